"""How a run begins, or goes on: whatever can be wrong is looked at before the first step."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastvoc.config import from_dict, to_dict, write_json
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.data.loader import Loader
from fastvoc.train.foreign.find import find_discriminators, find_run, find_weights
from fastvoc.train.foreign.resume import ForeignRun, hand_over
from fastvoc.train.learning import parallel
from fastvoc.train.material import Material, material_of
from fastvoc.train.tasks.task import Task

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Run:
    """A run that is ready for its next step.

    Attributes
    ----------
    config : TrainConfig
    task : Task
    loader : Loader
    material : Material
        What it learns from.
    clips : dict of str to dict of str to Tensor
        Validation set to clip to wave.
    step : int
        Steps that were complete when it started.
    best : float
        Least validation error so far.
    probation : int
        Step up to which the run's numbers are in doubt: it makes rescues instead of checkpoints until then.
    saved : int
        Step that the latest checkpoint or rescue is of.
    main : bool
        Whether this process is the one that writes.
    """

    config: TrainConfig
    task: Task
    loader: Loader
    material: Material
    clips: dict[str, dict[str, Tensor]]
    step: int = 0
    best: float = math.inf
    probation: int = 0
    saved: int = 0
    main: bool = field(default_factory=lambda: parallel.rank() == 0)

    def save(self, step: int) -> None:
        """Write a checkpoint, or a rescue while the run is on probation; its last step is always a checkpoint."""
        if not self.main:
            return
        training = {
            "step": step,
            "config": to_dict(self.config),
            "task": self.task.state_dict(),
            "loader": self.loader.state_dict(),
            "random": state.random_state(),
            "best": self.best,
            "probation": self.probation,
        }
        doubtful = step < self.probation
        generator = self.task.plain_generator()
        state.save(
            self.config.folder,
            step,
            training,
            self.material.settings_of(generator),
            generator.state_dict(),
            keep_last=self.config.steps if doubtful else self.config.keep_last,  # a last step in doubt displaces none
            milestone_every=self.config.milestone_every,
            doubtful=doubtful and step < self.config.steps,
        )
        self.saved = step

    def doubt(self, step: int) -> None:
        """Put the run on probation: for as many steps as lie between two checkpoints it makes rescues."""
        self.probation = step + self.config.save_every

    def keep(self, step: int) -> str:
        """Save a run that ends between two steps, and say what has become of it."""
        if step == self.saved:
            return "nothing is lost: no step was made since the run was saved" if step else "no step has been made yet"
        return self._saved(step, f"the run is saved at step {step}, and the same command goes on from there")

    def rescue(self, step: int, *, exploded: bool = False) -> str:
        """Save a run that ends within a step, if its weights are worth it, and say what has become of it.

        Parameters
        ----------
        step : int
            Counts as made: started again, the run goes on with the next batch.
        exploded : bool
            Leave it at the last checkpoint whose numbers were sane.
        """
        values = [value for network in self.task.networks().values() for value in network.state_dict().values()]
        if exploded or not all(bool(value.isfinite().all()) for value in values):
            if self.main:
                state.drop_rescues(self.config.folder)
            kept = state.latest(self.config.folder)
            return f"its weights are of no use; started again the run goes on from {kept or 'the beginning'}"
        if step - 1 == self.saved and state.latest(self.config.folder) is None:
            return "no step has been made yet"  # most likely settings are wrong, and may be corrected
        self.doubt(step)
        return self._saved(step, f"the run is saved at step {step}; started again it goes on with other data")

    def _saved(self, step: int, said: str) -> str:
        if not self.main:
            return "the first process saves the run"
        try:
            self.save(step)
        except Exception as error:
            kept = state.latest(self.config.folder)
            return (
                f"the run cannot be saved ({' '.join(str(error).split())}); it goes on from {kept or 'the beginning'}"
            )
        return said

    def validate(self) -> tuple[dict[str, float], dict[str, tuple[Tensor, Tensor]]]:
        """Judge the vocoder on all validation sets and keep it if it is the best so far.

        Returns
        -------
        numbers : dict of str to float
            Named ``set/measure``.
        samples : dict of str to (Tensor, Tensor)
            Recording and generated wave of a few clips.
        """
        generator = self.task.plain_generator()
        numbers: dict[str, float] = {}
        samples: dict[str, tuple[Tensor, Tensor]] = {}
        for name, clips in self.clips.items():
            found, pairs = self.material.judge(self.task, generator, clips)
            numbers |= {f"{name}/{key}": value for key, value in found.items()}
            samples |= {f"{name}/{clip}": pair for clip, pair in pairs.items()}
        # the first set decides: voices that were trained on, where there are such
        ending = f"/{self.material.criterion}"
        error = next((value for name, value in numbers.items() if name.endswith(ending)), math.inf)
        if error < self.best:
            best = self.config.folder / state.BEST
            try:
                state.save_vocoder(best, self.material.settings_of(generator), generator.state_dict())
                self.best = error
            except (OSError, RuntimeError) as failure:
                _logger.warning(
                    "%s; training goes on, and the next better one is written", state.unwritable(best, failure)
                )
        return numbers, samples


def start(config: TrainConfig, device: torch.device, *, allow_changes: bool = False) -> Run:
    """Begin a run, or go on with the one in its folder.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `fastvoc.train.run.train`.
    """
    world, rank = parallel.world_size(), parallel.rank()
    if config.batch % (world * config.accumulate):
        raise ValueError(
            f"train: batch {config.batch} cannot be divided among {world} processes in {config.accumulate} parts; "
            f"make it a multiple of {world * config.accumulate}"
        )
    if config.graph and (device.type != "cuda" or world > 1):
        where = f"{world} processes" if world > 1 else f"a {device.type}"
        raise ValueError(f"train: graph records a step on one GPU, and this is a run on {where}; leave it out")
    if rank == 0:
        state.sweep(config.folder)
    parallel.wait()
    checkpoint = state.latest(config.folder)
    saved = None if checkpoint is None else state.load(checkpoint)
    strict = not allow_changes
    if saved is not None and strict and (changed := state.differences(_complete(saved["config"]), to_dict(config))):
        raise ValueError(
            f"{config.folder}: holds a run of {saved['step']} steps with another configuration: {'; '.join(changed)}; "
            "restore it, name another folder, or go on with the changes (--allow-changes, allow_changes=True)"
        )
    # what costs no time comes first: the recordings are looked at before a network is built
    material = material_of(config)
    loader = material.loader(rank, world)
    clips = material.clips() if rank == 0 else {}
    task = config.task.build(config, device)
    run = Run(config, task, loader, material, clips)
    if rank == 0:
        state.check_space(config.folder, (config.keep_last + 2) * _size(task))  # and one being written, and a rescue
        write_json(config, config.folder / state.SETTINGS)
    if saved is not None:
        _resume(run, saved, strict=strict)
    else:
        run.step = begin(task, loader, strict=strict)
    run.saved = run.step
    task.agree()
    return run


def begin(task: Task, loader: Loader, *, strict: bool) -> int:
    """Take weights, and more, from elsewhere where the configuration says so.

    Parameters
    ----------
    task : Task
        With first weights.
    loader : Loader
        At its beginning.
    strict : bool
        Go on with optimisers of the same settings only.

    Returns
    -------
    int
        Steps that are complete.

    Raises
    ------
    FileNotFoundError, ValueError
        One sentence: what is missing, damaged, or of other networks.
    """
    config = task.config
    if config.continue_from is not None:
        return _go_on(find_run(config.continue_from, config), task, loader, strict=strict)
    if config.start_from is not None:
        task.start_from(find_weights(config.start_from, config, "start_from"))
    if config.start_adversary_from is not None:
        if task.adversary is None:
            raise ValueError(f"start_adversary_from {config.start_adversary_from}: the settings have no adversary")
        task.adversary.start_from(find_discriminators(config.start_adversary_from, task.adversary))
    return 0


def _go_on(run: ForeignRun, task: Task, loader: Loader, *, strict: bool) -> int:
    if not isinstance(run.epoch, int) or not 0 <= run.epoch < 1 << 32:
        raise ValueError(f"{run.path}: its epoch is {run.epoch!r}; expected a number of epochs")
    steps = hand_over(run, task, strict=strict)
    if steps >= task.config.steps:
        raise ValueError(
            f"continue_from {run.path}: has made {steps} updates already, and steps is {task.config.steps}; set more"
        )
    # the originals, too, begin the epoch anew
    loader.load_state_dict(loader.state_dict() | {"step": run.epoch * loader.steps_per_epoch})
    return steps


def _resume(run: Run, saved: dict[str, Any], *, strict: bool) -> None:
    try:
        run.task.load_state_dict(saved["task"])
    except (RuntimeError, ValueError, KeyError) as error:
        # only where changes are allowed: with the same configuration the networks are the same
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{run.config.folder}: its networks and optimisers are not those of the changed configuration ({reason}); "
            "name another folder, and its vocoder as start_from"
        ) from None
    try:
        run.loader.load_state_dict(saved["loader"], strict=strict)
    except ValueError as error:
        raise ValueError(f"{run.config.folder}: {error}") from None
    state.set_random_state(saved["random"])
    run.step, run.best = saved["step"], saved["best"]
    run.probation = saved.get("probation", 0)  # versions before had none
    if run.main and run.step >= run.probation:
        # a kill may have come between the checkpoint and the vocoder beside it
        generator = run.task.plain_generator()
        state.save_vocoder(run.config.folder, run.material.settings_of(generator), generator.state_dict())


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Add what a version before had no setting for, with its default."""
    try:
        completed: dict[str, Any] = to_dict(from_dict(TrainConfig, settings, "saved settings"))
    except ValueError:  # one of its settings has gone: the difference says which
        return settings
    return completed


def _size(task: Task) -> int:
    """Bytes of a checkpoint: variables, up to three moments of them in an optimiser, and the vocoder."""
    values = [value.numel() for network in task.networks().values() for value in network.state_dict().values()]
    total: int = 4 * 5 * sum(values)
    return total

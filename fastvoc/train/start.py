"""How a run begins, or goes on: whatever can be wrong is looked at before the first step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints import VocoderConfig
from fastvoc.config import from_dict, to_dict, write_json
from fastvoc.train import parallel, state
from fastvoc.train.beginning import begin
from fastvoc.train.config import TrainConfig
from fastvoc.train.gan import GanTask
from fastvoc.train.loader import Loader, make_loader
from fastvoc.train.validation import generate, measure, validation_clips

SAMPLES = 4
"""Validation clips of each set that are shown and played."""


@dataclass(eq=False)
class Run:
    """A run that is ready for its next step.

    Attributes
    ----------
    config : TrainConfig
    task : GanTask
    loader : Loader
    clips : dict of str to dict of str to Tensor
        Validation set to clip to wave.
    step : int
        Steps that were complete when it started.
    best : float
        Least validation error so far.
    main : bool
        Whether this process is the one that writes.
    """

    config: TrainConfig
    task: GanTask
    loader: Loader
    clips: dict[str, dict[str, Tensor]]
    step: int = 0
    best: float = math.inf
    main: bool = field(default_factory=lambda: parallel.rank() == 0)

    @property
    def vocoder(self) -> VocoderConfig:
        """Of the vocoder that is saved."""
        return VocoderConfig(generator=self.config.generator, mel=self.config.mel)

    def save(self, step: int) -> None:
        """Write a checkpoint."""
        if not self.main:
            return
        training = {
            "step": step,
            "config": to_dict(self.config),
            "task": self.task.state_dict(),
            "loader": self.loader.state_dict(),
            "random": state.random_state(),
            "best": self.best,
        }
        state.save(
            self.config.folder,
            step,
            training,
            self.vocoder,
            self.task.plain_generator().state_dict(),
            keep_last=self.config.keep_last,
            milestone_every=self.config.milestone_every,
        )

    def rescue(self, step: int) -> str:
        """Save a run that met a number that is not finite, if its weights still are, and say what has become of it."""
        values = [value for network in self.task.networks().values() for value in network.state_dict().values()]
        advice = "a lower learning rate, a clip or precision float32 may help"
        if all(bool(value.isfinite().all()) for value in values):
            self.save(step)
            return f"the update was left out and the run is saved; started again it goes on with other data; {advice}"
        kept = state.latest(self.config.folder)
        return f"the last good state is {kept or 'the beginning'}; {advice}"

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
            pairs = generate(generator, clips, self.config.mel)
            numbers |= {f"{name}/{key}": value for key, value in measure(pairs, self.config.mel).items()}
            samples |= {f"{name}/{clip}": pair for clip, pair in list(pairs.items())[:SAMPLES]}
        # the first set decides: voices that were trained on, where there are such
        error = next((value for name, value in numbers.items() if name.endswith("/mel_l1")), math.inf)
        if error < self.best:
            self.best = error
            state.save_vocoder(self.config.folder / state.BEST, self.vocoder, generator.state_dict())
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
            "restore it, name another folder, or allow changes"
        )
    # what costs no time comes first: the recordings are looked at before a network is built
    loader = make_loader(
        config.data,
        sample_rate=config.mel.sample_rate,
        segment=config.segment,
        batch=config.batch // world,
        seed=config.seed,
        rank=rank,
        world_size=world,
        mel=config.mel,
    )
    clips = validation_clips(config.data, sample_rate=config.mel.sample_rate) if rank == 0 else {}
    task = GanTask(config, device)
    run = Run(config, task, loader, clips)
    if rank == 0:
        state.check_space(config.folder, (config.keep_last + 1) * _size(task))
        write_json(config, config.folder / state.SETTINGS)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # segments have one length
    if saved is not None:
        _resume(run, saved, strict=strict)
    else:
        run.step = begin(task, loader, strict=strict)
    task.agree()
    return run


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
    run.loader.load_state_dict(saved["loader"], strict=strict)
    state.set_random_state(saved["random"])
    run.step, run.best = saved["step"], saved["best"]
    if run.main:
        # a kill may have come between the checkpoint and the vocoder beside it
        state.save_vocoder(run.config.folder, run.vocoder, run.task.plain_generator().state_dict())


def _complete(settings: dict[str, Any]) -> dict[str, Any]:
    """Add what a version before had no setting for, with its default."""
    try:
        completed: dict[str, Any] = to_dict(from_dict(TrainConfig, settings, "saved settings"))
    except ValueError:  # one of its settings has gone: the difference says which
        return settings
    return completed


def _size(task: GanTask) -> int:
    """Bytes of a checkpoint: variables, up to three moments of them in an optimiser, and the vocoder."""
    values = [value.numel() for network in task.networks().values() for value in network.state_dict().values()]
    total: int = 4 * 5 * sum(values)
    return total

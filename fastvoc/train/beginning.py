"""Where a new run begins: from nothing, from weights of others, or where a run of another project is."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fastvoc.checkpoints import open_checkpoint, parallel_wavegan
from fastvoc.checkpoints._source import Source
from fastvoc.config import to_dict
from fastvoc.train import official, state
from fastvoc.train import parallel_wavegan as their_runs
from fastvoc.train.config import TrainConfig
from fastvoc.train.handover import ForeignRun, hand_over
from fastvoc.train.loader import Loader
from fastvoc.train.networks import Networks
from fastvoc.train.renaming import dressed, refuse_other_norms

_LONGEST = 300
"""Characters of a difference: statistics of bands are many numbers."""


def begin(task: Networks, loader: Loader, *, strict: bool) -> int:
    """Take weights, and more, from elsewhere where the configuration says so.

    Parameters
    ----------
    task : Networks
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
        return _go_on(config.continue_from, task, loader, strict=strict)
    if config.start_from is not None:
        task.start_from(_weights(config.start_from, config, "start_from"))
    if config.start_adversary_from is not None:
        _start_adversary(config.start_adversary_from, task)
    return 0


def _go_on(path: Path, task: Networks, loader: Loader, *, strict: bool) -> int:
    run = _foreign_run(path, task.config)
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


def _foreign_run(path: Path, config: TrainConfig) -> ForeignRun:
    """Find and read what a path means: a file of a pair, a checkpoint, or a folder with several of one of them."""
    if (path / state.CHECKPOINTS).is_dir() or (path / state.TRAINING).is_file():
        raise ValueError(
            f"continue_from {path}: is a run of fastvoc; name it as the folder of the run to go on with it"
        )
    pairs = sorted(path.glob("do_????????")) if path.is_dir() else []
    if path.name.startswith("g_"):
        pairs = [path.with_name(f"do_{path.name.removeprefix('g_')}")]
    source = Source.find(pairs[-1] if pairs else path, None, parallel_wavegan.FILES)
    if "mpd" in source.top:
        _weights(official.generator_beside(source.file), config, "continue_from")
        return official.read_run(source, config)
    if {"model", "optimizer"} <= source.top:
        _weights(source.file, config, "continue_from")
        return their_runs.read_run(source, config)
    raise ValueError(
        f"continue_from {source.file}: is neither the do_ file of an official HiFi-GAN nor a checkpoint of "
        "ParallelWaveGAN; other vocoders are taken by start_from"
    )


def _weights(path: Path, config: TrainConfig, field: str) -> dict[str, Tensor]:
    """Open a vocoder of the same network and mel."""
    checkpoint = open_checkpoint(path)
    for name, theirs, ours in (
        ("generator", checkpoint.config.generator, config.generator),
        ("mel", checkpoint.config.mel, config.mel),
    ):
        if theirs != ours:
            changed = "; ".join(state.differences(to_dict(theirs), to_dict(ours), name))
            changed = changed if len(changed) <= _LONGEST else f"{changed[:_LONGEST]} …"
            raise ValueError(f"{field} {path}: its {name} is another one: {changed}; use its own settings")
    return checkpoint.weights


def _start_adversary(path: Path, task: Networks) -> None:
    """Take the discriminators of a checkpoint, of the latest one of a run, or of a file of another project."""
    if task.adversary is None:
        raise ValueError(f"start_adversary_from {path}: the settings have no adversary")
    where = f"start_adversary_from {path}"
    if path.is_file():
        source = Source.find(path, None, ())
        kind = their_runs if "model" in source.top else official
        weights = kind.read_discriminators(source, task.adversary.config)
        refuse_other_norms(weights, task.adversary.network, where)
        task.start_adversary_from(dressed(weights, task.adversary.network))
        return
    checkpoint = path if (path / state.TRAINING).exists() else state.latest(path)
    if checkpoint is None:
        raise FileNotFoundError(f"{where}: holds no checkpoint of a run")
    saved: dict[str, Tensor] | None = state.load(checkpoint)["task"].get("discriminators")
    if saved is None:
        raise ValueError(f"start_adversary_from {checkpoint}: that run has no discriminators")
    task.start_adversary_from(saved)

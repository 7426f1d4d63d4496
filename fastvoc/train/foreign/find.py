"""What the paths of a configuration mean: runs of other projects, their discriminators, and vocoders in any format."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fastvoc.checkpoints import open_checkpoint
from fastvoc.checkpoints.formats import parallel_wavegan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.config import to_dict
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.foreign import hifigan
from fastvoc.train.foreign import parallel_wavegan as their_runs
from fastvoc.train.foreign.names import refuse_other_norms, with_weight_norm
from fastvoc.train.foreign.resume import ForeignRun
from fastvoc.train.material import material_of
from fastvoc.train.tasks.adversary import Adversary

_LONGEST = 300
"""Characters of a difference: statistics of bands are many numbers."""


def find_run(path: Path, config: TrainConfig) -> ForeignRun:
    """Find and read what a path means: a file of a pair, a checkpoint, or a folder with several of one of them."""
    if (path / state.CHECKPOINTS).is_dir() or (path / state.TRAINING).is_file():
        raise ValueError(
            f"continue_from {path}: is a run of fastvoc; name it as the folder of the run to go on with it"
        )
    pairs = sorted(path.glob("do_????????")) if path.is_dir() else []
    alone = sorted(path.glob("g_????????")) if path.is_dir() and not pairs else []
    if path.is_file() and path.name.startswith("g_"):
        pairs = [path.with_name(f"do_{path.name.removeprefix('g_')}")]
        alone = [path] if not pairs[0].is_file() else []
    if alone:
        raise FileNotFoundError(
            f"continue_from {alone[-1]}: needs the do_ file of the same step beside it, which holds the discriminators "
            "and what the optimisers remember; without it begin with the generator's weights by start_from"
        )
    source = Source.find(pairs[-1] if pairs else path, None, parallel_wavegan.FORMAT.files)
    if "mpd" in source.top:
        find_weights(hifigan.generator_beside(source.file), config, "continue_from")
        return hifigan.read_run(source, config)
    if {"model", "optimizer"} <= source.top:
        find_weights(source.file, config, "continue_from")
        return their_runs.read_run(source, config)
    raise ValueError(
        f"continue_from {source.file}: is neither the do_ file of an official HiFi-GAN nor a checkpoint of "
        "ParallelWaveGAN; other vocoders are taken by start_from"
    )


def find_weights(path: Path, config: TrainConfig, field: str) -> dict[str, Tensor]:
    """Open a vocoder of the same network and mel, whatever its format, for a field of the settings."""
    checkpoint = open_checkpoint(path)
    settings = material_of(config).settings_of()
    if (progress := getattr(checkpoint.config.generator, "progress", None)) is not None:
        raise ValueError(
            f"{field} {path}: its network had grown to {progress:g} when it was saved, and is no beginning of a "
            "whole one; go on with its own run until it is full-grown"
        )
    for name in ("generator", "mel", "spectrum", "second"):
        theirs, ours = (getattr(of, name, None) for of in (checkpoint.config, settings))
        if theirs is None or ours is None:  # an autoencoder has no mel, and only an instrument has the last two
            continue
        if theirs != ours:
            changed = "; ".join(state.differences(to_dict(theirs), to_dict(ours), name))
            changed = changed if len(changed) <= _LONGEST else f"{changed[:_LONGEST]} …"
            raise ValueError(f"{field} {path}: its {name} is another one: {changed}; use its own settings")
    return checkpoint.weights


def find_discriminators(path: Path, adversary: Adversary) -> dict[str, Tensor]:
    """Read the discriminators of a checkpoint, of the latest one of a run, or of a file of another project."""
    where = f"start_adversary_from {path}"
    if path.is_file():
        source = Source.find(path, None, ())
        kind = their_runs if "model" in source.top else hifigan
        weights = kind.read_discriminators(source, adversary.config)
        refuse_other_norms(weights, adversary.network, where)
        return with_weight_norm(weights, adversary.network)
    checkpoint = path if (path / state.TRAINING).exists() else state.latest(path)
    if checkpoint is None:
        raise FileNotFoundError(f"{where}: holds no checkpoint of a run")
    saved: dict[str, Tensor] | None = state.load(checkpoint)["task"].get("discriminators")
    if saved is None:
        raise ValueError(f"start_adversary_from {checkpoint}: that run has no discriminators")
    return saved

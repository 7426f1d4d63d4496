"""MelGAN as its authors save it (descriptinc/melgan-neurips 6488045).

Files
    ``netG.pt`` and ``best_netG.pt`` hold the generator's tensors under weight norm, without an outer name; ``args.yml``
    is the dump of an ``argparse.Namespace``. The two models in the original repository come without it, and have the
    default settings. ``netD.pt`` holds the discriminator, ``optG.pt`` and ``optD.pt`` the optimizers.
Mel
    log10 of magnitudes, floor 1e-5, all bands up to half the sample rate. Only the number of bands is a setting; the
    rest is written in the original's code.
Oddities
    The layers are numbered through one sequence, in which padding, activations and residual units count: ``model.1``
    is the stem, then each stage takes two numbers and one for each of its residual units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.foreign_settings import pick, refuse_other
from fastvoc.checkpoints.format import Format, each, names_begin, refuse_unsaid, write_torch
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, from_native, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import MelGANConfig


@config
class Settings:
    """The settings of the generator, and what the original's command line gives them."""

    n_mel_channels: int = 80
    """Bands of the mel spectrogram."""
    ngf: int = Field(32, gt=0, le=4096)
    """Channels behind the last stage."""
    n_residual_layers: int = 3
    """Residual units of each stage."""


STAGES = 4
"""Of rates 8, 8, 2 and 2, which are written in the original's code; the stem is 2 ** 4 times ``ngf`` wide."""


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it, or the default ones."""
    path = source.settings_path("args.yml")
    settings = pick(Settings, source.settings("args.yml"), str(path))
    notes = ("no args.yml beside the weights; the original's default settings are assumed",) if path is None else ()
    where = str(path or source.file)
    generator: MelGANConfig = from_dict(
        MelGANConfig,
        {
            "mel_bands": settings.n_mel_channels,
            "channels": settings.ngf * 2**STAGES,
            "units": settings.n_residual_layers,
        },
        where,
    )
    mel = to_dict(CONVENTIONS["melgan"]) | {"bands": settings.n_mel_channels}
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    weights = to_native(source.state(), table(generator), generator, str(source.file))
    return Checkpoint(vocoder, weights, "MelGAN (descriptinc) generator", notes)


def write(config: MelGANConfig, weights: Mapping[str, Tensor], *, weight_norm: bool = True) -> dict[str, Tensor]:
    """Return what ``torch.save`` writes as ``netG.pt`` for the original code.

    Raises
    ------
    ValueError
        If the generator does something that the original has no setting for.
    """
    if config != MelGANConfig(mel_bands=config.mel_bands, channels=config.channels, units=config.units):
        raise ValueError("melgan: the original can be told the mel bands, channels and residual units, and no more")
    return from_native(weights, table(config), weight_norm=weight_norm)


def save(folder: Path, config: VocoderConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a folder that the original code opens: ``netG.pt`` and ``args.yml``.

    Raises
    ------
    ValueError
        If the generator or the mel does something that the original has no setting for, or the folder has an
        ``args.yml`` that belongs to other weights.
    """
    if not isinstance(config.generator, MelGANConfig):
        raise ValueError(f"melgan: the original is a MelGAN, not a {config.generator.kind}")
    content = write(config.generator, weights)
    refuse_unsaid("melgan", config, replace(CONVENTIONS["melgan"], bands=config.mel.bands))
    refuse_other(folder / "args.yml", _is_own_result, "a folder that was written before")
    settings = Settings(
        n_mel_channels=config.mel.bands,
        ngf=config.generator.channels // 2**STAGES,
        n_residual_layers=config.generator.units,
    )
    lines = [f"{name}: {value}" for name, value in to_dict(settings).items()]
    # the tag makes the object whose attributes the original reads
    text = "\n".join(["!!python/object:argparse.Namespace", *lines, ""])
    write_torch(folder, "netG.pt", content, "args.yml", text)


def _is_own_result(path: Path, settings: Mapping[str, Any]) -> bool:
    return {file.name for file in path.parent.glob("*.pt")} <= {"netG.pt"}


def table(config: MelGANConfig) -> Table:
    """List the pairs (original layer, native layer)."""
    pairs = [("model.1", "trunk.stem")]
    number = 3
    for stage in range(len(config.rates)):
        pairs.append((f"model.{number}", f"trunk.up.{stage}"))
        for unit in range(config.units):
            theirs = f"model.{number + 1 + unit}"
            ours = f"trunk.residual.{stage}.branches.0.{unit}"
            pairs += [(f"{theirs}.block.2", f"{ours}.0"), (f"{theirs}.block.4", f"{ours}.1")]
            pairs += [(f"{theirs}.shortcut", f"{ours}.2")]
        number += 2 + config.units
    return [*pairs, (f"model.{number + 1}", "head.conv")]


FORMAT = Format(
    name="melgan",
    title="MelGAN (descriptinc)",
    files=("best_netG.pt", "netG.pt"),
    read=read,
    write=save,
    layers=each("model.1", "model.3", "model.4.block.2", "model.4.shortcut"),
    clue=names_begin("model.1.", "model.3.", "model.4.block."),
    presets={"melgan": {"n_mel_channels": 80, "ngf": 32, "n_residual_layers": 3}},
)

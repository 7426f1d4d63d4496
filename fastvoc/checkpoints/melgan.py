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
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints._keys import Table, from_native, to_native
from fastvoc.checkpoints._source import Source
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.config import from_dict, to_dict
from fastvoc.models import MelGANConfig

FILES = ("best_netG.pt", "netG.pt")

DEFAULTS = {"n_mel_channels": 80, "ngf": 32, "n_residual_layers": 3}
"""The settings of the generator, and what the original's command line gives them."""

STAGES = 4
"""Of rates 8, 8, 2 and 2, which are written in the original's code; the stem is 2 ** 4 times ``ngf`` wide."""


def recognises(source: Source) -> bool:
    """Whether the tensors are numbered as in the original's sequence."""
    layers = {name.rsplit(".weight", 1)[0].removesuffix(".parametrizations") for name in source.state("")}
    return {"model.1", "model.3", "model.4.block.2", "model.4.shortcut"} <= layers


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it, or the default ones."""
    path = source.settings_path("args.yml")
    settings = DEFAULTS if path is None else DEFAULTS | _read_namespace(path)
    notes = ("no args.yml beside the weights; the original's default settings are assumed",) if path is None else ()
    where = str(path or source.file)
    bands, width, units = (settings[name] for name in DEFAULTS)
    generator: MelGANConfig = from_dict(
        MelGANConfig, {"mel_bands": bands, "channels": width * 2**STAGES, "units": units}, where
    )
    mel = to_dict(CONVENTIONS["melgan"]) | {"bands": bands}
    config: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    weights = to_native(source.state(""), table(generator), generator, str(source.file))
    return Checkpoint(config, weights, "MelGAN (descriptinc) generator", notes)


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


class _PlainLoader(yaml.SafeLoader):
    """Reads what a tag of Python wraps as plain data, and makes no object."""


def _plain(loader: _PlainLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def _read_namespace(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds {type(values).__name__}; expected the settings of a run of melgan-neurips")
    return {name: values[name] for name in DEFAULTS if name in values}

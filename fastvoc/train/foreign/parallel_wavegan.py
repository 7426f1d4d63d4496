"""Runs of kan-bayashi/ParallelWaveGAN 8674037, to go on with or to take discriminators from.

``checkpoint-400000steps.pkl`` holds ``model`` and ``optimizer``, each of ``generator`` and ``discriminator``, and
``epochs``, those that are complete; ``config.yml`` beside it says what they are. The optimisers' own counts are the
place: ``steps`` counts one more, because the generator makes no update in the first.

Scale discriminators of HiFi-GANs trained before June 2023 have no norms, whatever their settings say; their weights
are divided into magnitude and direction, but what their optimiser remembers does not fit then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints import statistics
from fastvoc.checkpoints.formats import parallel_wavegan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.config import to_dict
from fastvoc.models import HiFiGANConfig, MelGANConfig
from fastvoc.models.discriminators import (
    DiscriminatorConfig,
    MelGANDiscriminatorConfig,
    PeriodDiscriminatorConfig,
    ScaleDiscriminatorConfig,
)
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.foreign.names import renamed
from fastvoc.train.foreign.parallel_wavegan_settings import discriminator_configs
from fastvoc.train.foreign.resume import ForeignRun, Part
from fastvoc.train.tasks.adversary import AdversaryConfig

OPTIMISERS = {"Adam": "adam", "AdamW": "adamw", "RAdam": "radam"}
"""Classes that the settings name, and our kinds."""


def read_discriminators(source: Source, config: AdversaryConfig) -> dict[str, Tensor]:
    """Read the discriminators of a checkpoint.

    Parameters
    ----------
    source : Source
        The checkpoint, with its settings beside it.
    config : AdversaryConfig

    Returns
    -------
    dict of str to Tensor
        Names of `fastvoc.train.tasks.adversary.Discriminators`, in the order of the file; weights may be without norms.

    Raises
    ------
    ValueError
        If `config` has other discriminators.
    """
    settings, path = _settings(source)
    kind = str(settings.get("discriminator_type", "ParallelWaveGANDiscriminator"))
    theirs = discriminator_configs(kind, settings.get("discriminator_params") or {}, str(path))
    # whether the first scale has spectral norm is seen in its weights
    changed = state.differences(_compared(theirs), _compared(config.discriminators), "discriminators")
    if changed or len(theirs) != len(config.discriminators):
        raise ValueError(f"{path}: has other discriminators than the settings: {'; '.join(changed)}; use its own")
    layers: dict[str, str] = {}
    for number, each in enumerate(config.discriminators):
        layers |= _layers(each, f"networks.{number}")
    tensors = source.state("model/discriminator")
    return renamed(tensors, layers.get, f"{source.file}: the discriminator")


def read_run(source: Source, config: TrainConfig) -> ForeignRun:
    """Read all of a checkpoint.

    Raises
    ------
    ValueError
        One sentence: what is missing, damaged, or of other networks.
    """
    settings, path = _settings(source)
    generator, adversary = config.generator, config.adversary
    if not isinstance(generator, HiFiGANConfig | MelGANConfig) or adversary is None:
        raise ValueError(f"{source.file}: is a run of a GAN; the settings are of another one")
    table = (
        parallel_wavegan.melgan_table(generator)
        if isinstance(generator, MelGANConfig)
        else parallel_wavegan.hifigan_table(generator)
    )
    tensors = source.state("model/generator")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in statistics.NAMES}
    memories = source.content.get("optimizer")
    if not isinstance(memories, Mapping):
        raise ValueError(f"{source.file}: holds no optimizer; take its weights alone by start_from")
    kinds = [str(settings.get(f"{name}_optimizer_type", "RAdam")) for name in ("generator", "discriminator")]
    for kind in kinds:
        if kind not in OPTIMISERS:
            raise ValueError(f"{path}: its optimizer is {kind}; fastvoc goes on with {', '.join(OPTIMISERS)}")
    return ForeignRun(
        source.file,
        Part(
            renamed(tensors, dict(table).get, f"{source.file}: the generator"),
            OPTIMISERS[kinds[0]],
            memories.get("generator"),
        ),
        Part(read_discriminators(source, adversary), OPTIMISERS[kinds[1]], memories.get("discriminator")),
        source.content.get("epochs"),
    )


def _settings(source: Source) -> tuple[dict[str, Any], Path]:
    return source.required("ParallelWaveGAN checkpoint", "config.yml", "config.yaml")


def _compared(configs: Iterable[DiscriminatorConfig]) -> dict[str, Any]:
    values = {str(each.kind): to_dict(each) for each in configs}
    for each in values.values():
        each.pop("spectral", None)
    return values


def _layers(config: DiscriminatorConfig, ours: str) -> dict[str, str]:
    """Return our names of the original's layers."""
    if isinstance(config, PeriodDiscriminatorConfig):
        names = {f"convs.{n}.0": n for n in range(5)} | {"output_conv": 5}
        parts, place, count = "networks", "mpd.", len(config.periods)
    elif isinstance(config, ScaleDiscriminatorConfig):
        names = {f"layers.{n}.0": n for n in range(7)} | {"layers.7": 7}
        parts, place, count = "scales", "msd.", config.scales
    elif isinstance(config, MelGANDiscriminatorConfig):
        last = len(config.downsampling) + 2
        # padding is the first module of the first layer
        names = {"layers.0.1": 0} | {f"layers.{n}.0": n for n in range(1, last)} | {f"layers.{last}": last}
        parts, place, count = "scales", "", config.scales
    else:
        return {}
    return {
        f"{place}discriminators.{part}.{theirs}": f"{ours}.{parts}.{part}.convs.{n}"
        for part in range(count)
        for theirs, n in names.items()
    }

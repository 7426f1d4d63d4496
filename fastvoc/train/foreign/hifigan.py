"""Runs of the official HiFi-GAN (jik876/hifi-gan 4769534), to go on with or to take discriminators from.

``g_02500000`` holds the generator; ``do_02500000`` the discriminators ``mpd`` and ``msd``, the optimisers ``optim_g``
and ``optim_d`` (AdamW, the latter of ``msd``, then ``mpd``), ``steps`` and ``epoch``, both from 0. A file is written
after the update of its step, within an epoch that the original begins anew. Its schedule, built anew, is an epoch
ahead from then on; ours is not.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.models import HiFiGANConfig
from fastvoc.train.config import TrainConfig
from fastvoc.train.foreign.names import renamed
from fastvoc.train.foreign.resume import ForeignRun, Part
from fastvoc.train.tasks.adversary import AdversaryConfig

_PLACES = {"scale": ("msd", "scales", 7), "period": ("mpd", "networks", 5)}
"""Kind of a discriminator, in the order of the optimiser: its name in the file, our name of its parts, the number of
its last convolution."""


def read_discriminators(source: Source, config: AdversaryConfig) -> dict[str, Tensor]:
    """Read the discriminators that belong to a ``g_`` file of the same step.

    Parameters
    ----------
    source : Source
        The ``do_`` file.
    config : AdversaryConfig
        Of period and scale discriminators.

    Returns
    -------
    dict of str to Tensor
        Names of `fastvoc.train.tasks.adversary.Discriminators`, in the order of the original's optimiser.

    Raises
    ------
    ValueError
        If the file is another one, or `config` has discriminators that it does not hold.
    """
    path, content = source.file, source.content
    numbers = {str(discriminator.kind): number for number, discriminator in enumerate(config.discriminators)}
    for kind in numbers:
        if kind not in _PLACES:
            raise ValueError(f"{path}: holds no {kind} discriminator; only {' and '.join(_PLACES)}")
    weights: dict[str, Tensor] = {}
    for kind, (place, parts, last) in _PLACES.items():
        if kind not in numbers:
            continue
        tensors = content.get(place) if isinstance(content, dict) else None
        if not isinstance(tensors, dict):
            raise ValueError(f"{path}: holds no {place!r}; needs the do_ file of an official HiFi-GAN")
        ours = f"networks.{numbers[kind]}.{parts}"
        names = {f"convs.{n}": f"convs.{n}" for n in range(last)} | {"conv_post": f"convs.{last}"}
        layers = {
            f"discriminators.{part}.{theirs}": f"{ours}.{part}.{name}"
            for part in range(len(tensors))  # more than there can be
            for theirs, name in names.items()
        }
        weights |= renamed(tensors, layers.get, f"{path}: {place}")
    return weights


def read_run(source: Source, config: TrainConfig) -> ForeignRun:
    """Read the pair of files of a step.

    Parameters
    ----------
    source : Source
        The ``do_`` file; the ``g_`` file lies beside it.
    config : TrainConfig
        Of a run of the same networks.

    Raises
    ------
    FileNotFoundError, ValueError
        One sentence: a file that is missing, damaged, or of other networks.
    """
    path, content = source.file, source.content
    generator, adversary = config.generator, config.adversary
    if not isinstance(generator, HiFiGANConfig) or adversary is None:
        raise ValueError(f"{path}: is a run of HiFi-GAN and its discriminators; the settings are of another one")
    discriminators = read_discriminators(source, adversary)
    missing = [name for name in ("optim_g", "optim_d", "epoch") if name not in content]
    if missing:
        raise ValueError(f"{path}: holds no {', '.join(missing)}; take its weights alone by start_adversary_from")
    beside = generator_beside(path)
    tensors = Source.find(beside, None, ()).state(*hifigan.PLACES)
    weights = renamed(tensors, dict(hifigan.table(generator)).get, str(beside))
    return ForeignRun(
        path,
        Part(weights, "adamw", content["optim_g"]),
        Part(discriminators, "adamw", content["optim_d"]),
        content["epoch"],
    )


def generator_beside(path: Path) -> Path:
    """Return the ``g_`` file of a ``do_`` file, or raise one sentence."""
    beside = path.with_name(f"g_{path.name.removeprefix('do_')}")
    if not beside.is_file():
        raise FileNotFoundError(f"{path}: needs the generator of the same step beside it, {beside.name}")
    return beside

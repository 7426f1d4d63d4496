"""Magenta's GANSynth: ``stage_00012/model.ckpt-….index`` with the file of values beside it, ``experiment.json`` above.

The checkpoints of magenta/magenta 526d3eb, models/gansynth (``acoustic_only.zip`` and others, which are to be
unpacked). Sizes are read from the shapes; what the pictures are, the experiment says. Names of variables begin with
``Generator/progressive_gan_generator/progressive_gan_block_1``. Beside each lies its moving average, which is what the
original plays; those of the discriminator are left aside.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastvoc.audio.instantaneous_frequency import NoteSpectrum
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, InstrumentConfig
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import account
from fastvoc.config import from_dict
from fastvoc.models import GANSynthConfig

AVERAGE = "/ExponentialMovingAverage"

_START = "Generator/progressive_gan_generator/progressive_gan_block_"
_VARIABLE = re.compile(rf"{_START}(\d+)/(conv0|conv1|to_rgb)/(bias|conv2d/kernel)")

_BLOCKS = 7
"""Of every network that was published, when it is full-grown."""

_LATENT = 256

_PICTURES: dict[str, dict[str, Any]] = {
    "mel": {"mel": True},
    "linear": {"mel": False},
    "phase": {"mel": False, "second": "phase"},
}
"""By the original's ``data_type``."""


def recognises(source: Source) -> bool:
    """Whether there is a generator."""
    return any(name.startswith(f"{_START}1/conv0/") for name in source.state())


def read(source: Source) -> Checkpoint:
    """Read weights of any size, and what is known about their pictures."""
    where = str(source.file)
    variables, averaged = _generator(source.state(), where)
    settings, note = _experiment(source)
    generator = _sizes(variables, settings, where)
    weights = {}
    for (block, layer, part), value in variables.items():
        name = f"blocks.{block - 1}.{'to_picture' if layer == 'to_rgb' else layer}"
        if part == "bias":
            weights[f"{name}.bias"] = value.clone()
            continue
        if value.ndim != 4:
            raise ValueError(f"{where}: {name}'s kernel has shape {tuple(value.shape)}; expected (high, wide, in, out)")
        gain = 1.0 if layer == "to_rgb" else 2.0
        scale = math.sqrt(gain / max(1, math.prod(value.shape[:3])))
        weights[f"{name}.weight"] = (value.permute(3, 2, 0, 1).double() * scale).to(value.dtype).contiguous()
    account(weights, generator, where)
    kind = str(settings.get("data_type", "mel"))
    if kind not in _PICTURES:
        raise ValueError(f"{where}: makes {kind!r}, not pictures of notes; known: {', '.join(_PICTURES)}")
    spectrum = {
        "sample_rate": settings.get("sample_rate", 16000),
        "samples": settings.get("audio_length", 64000),
        "frames": generator.frames,
        "fft_size": 2 * generator.bins,
        "hop": generator.bins // 2,  # four windows overlap
    }
    config = from_dict(
        InstrumentConfig,
        {"generator": generator, "spectrum": from_dict(NoteSpectrum, spectrum, where), **_PICTURES[kind]},
        where,
    )
    notes = (f"the weights are {'moving averages, as the original plays them' if averaged else 'not averaged'}", note)
    return Checkpoint(config, weights, "GANSynth (Magenta)", notes)


def _generator(state: Mapping[str, Tensor], where: str) -> tuple[dict[tuple[int, str, str], Tensor], bool]:
    """Return the generator's variables by block, layer and part, and whether they are averages."""
    averages = {name.removesuffix(AVERAGE): value for name, value in state.items() if name.endswith(AVERAGE)}
    for chosen, averaged in ((averages, True), (state, False)):
        found = {match: value for name, value in chosen.items() if (match := _VARIABLE.fullmatch(name))}
        if found:
            return {(int(m[1]), m[2], m[3]): value for m, value in found.items()}, averaged
    raise ValueError(f"{where}: has a generator without any whole layer; it is cut short")


def _experiment(source: Source) -> tuple[dict[str, Any], str]:
    """Return the settings of the run, which lie beside the folder of its stage."""
    path = source.settings_path("experiment.json")
    if path is None and (above := source.file.resolve().parent.parent / "experiment.json").is_file():
        path = above
    if path is None:
        return {}, "there is no experiment.json; the pictures are taken for mel bands, as in the published networks"
    return foreign_settings.read(path), f"the settings of the pictures are those of {path.name}"


def _sizes(variables: Mapping[tuple[int, str, str], Tensor], settings: Mapping[str, Any], where: str) -> GANSynthConfig:
    """Return the configuration that the shapes speak of."""

    def kernel(block: int) -> Tensor:
        found = variables.get((block, "conv0", "conv2d/kernel"))
        if found is None or found.ndim != 4:
            raise ValueError(f"{where}: block {block} has no kernel of its first convolution; it is cut short")
        return found

    count = max(block for block, _, _ in variables)
    if count > _BLOCKS:
        raise ValueError(f"{where}: has {count} blocks; no published GANSynth has more than {_BLOCKS}")
    channels = [kernel(block).shape[3] for block in range(1, count + 1)]
    # a network that has not grown yet says nothing about what comes; only its picture's size is needed
    channels += [channels[-1]] * (_BLOCKS - count)
    latent = settings.get("latent_vector_size", _LATENT)
    inputs = kernel(1).shape[2]
    if not isinstance(latent, int) or not 0 < latent < inputs:
        raise ValueError(f"{where}: takes {inputs} numbers; with latent_vector_size {latent!r} no pitches are left")
    values = {
        "latent": latent,
        "pitches": inputs - latent,
        "first": tuple(kernel(1).shape[:2]),
        "channels": tuple(channels),
        "progress": None if count == _BLOCKS else float(count - 1),
    }
    found: GANSynthConfig = from_dict(GANSynthConfig, values, where)
    return found


FORMAT = Format(
    name="gansynth",
    title="GANSynth (Magenta)",
    files=("stage_*/model.ckpt-*.index",),
    recognises=recognises,
    read=read,
)

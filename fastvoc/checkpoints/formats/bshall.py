"""HiFi-GAN at 16 kHz as bshall/hifigan 49c16c9 saves it.

Files
    The files of its releases hold the generator's tensors without an outer name; those of training hold
    ``{"generator": {"model", "optimizer", "scheduler"}, "discriminator", "step", "loss"}``. There are no settings: all
    are written in the code, and are known here by the shapes of the first layers.
Mel
    128 bands up to 8 kHz, ln of magnitudes, floor 1e-5, a frame every 160 samples of 16 kHz.
Oddities
    The names are those of the original HiFi-GAN, so settings that are named explicitly, or lie beside the weights, go
    before this format.
"""

from __future__ import annotations

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import SPELLINGS, to_native
from fastvoc.models import HiFiGANConfig

GENERATOR = HiFiGANConfig(mel_bands=128, rates=(10, 4, 2, 2), rate_kernel_sizes=(20, 8, 4, 4))


def recognises(source: Source) -> bool:
    """Whether there are no settings, and the names and first shapes are those of the code."""
    state = source.state()
    if not hifigan.is_layout(state) or source.settings_path(*hifigan.names(source)):
        return False
    shapes = {
        layer: tuple(state[name].shape)
        for layer in ("conv_pre", "ups.0")
        for ending in ("weight", *(direction for _, direction in SPELLINGS))
        if (name := f"{layer}.{ending}") in state
    }
    known = {"conv_pre": (512, 128, 7), "ups.0": (512, 256, 20)}
    return bool(shapes) and shapes.items() <= known.items()  # one that is missing is to be named


def read(source: Source) -> Checkpoint:
    """Read a generator; its settings are known."""
    config = VocoderConfig(generator=GENERATOR, mel=CONVENTIONS["bshall"])
    weights = to_native(source.state(), hifigan.table(GENERATOR), GENERATOR, str(source.file))
    notes = ("the file has no settings; those that are written in the code of bshall/hifigan are taken",)
    return Checkpoint(config, weights, "HiFi-GAN (bshall) generator", notes)


FORMAT = Format(
    name="bshall",
    title="HiFi-GAN (bshall)",
    files=("hifigan-*.pt", "hifigan-*.pth"),
    places=("generator/model", "generator", "model", ""),
    recognises=recognises,
    read=read,
)

"""The vocoder of GPT-SoVITS v4, a HiFi-GAN, as RVC-Boss/GPT-SoVITS 48b1a01 publishes it.

Files
    ``vocoder.pth`` holds the generator's tensors without an outer name and without weight norm. There are no settings:
    all are written in the code, and are known here by the shapes of the first layer and of all transposed convolutions.
Mel
    100 bands up to 16 kHz, ln of magnitudes, floor 1e-5, a frame every 320 samples of 32 kHz.
Oddities
    Of each frame it makes 480 samples of 48 kHz: the mel is of one rate, and the wave of another. The names are those
    of the original HiFi-GAN, so settings that are named explicitly, or lie beside the weights, go before this format.
"""

from __future__ import annotations

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.models import HiFiGANConfig

GENERATOR = HiFiGANConfig(mel_bands=100, rates=(10, 6, 2, 2, 2), rate_kernel_sizes=(20, 12, 4, 4, 4))

WAVE_RATE = 48000

SHAPES = {"conv_pre": (512, 100, 7)} | {
    f"ups.{stage}": (512 >> stage, 256 >> stage, taps) for stage, taps in enumerate(GENERATOR.rate_kernel_sizes)
}
"""Of the weights by which it is known."""


def recognises(source: Source) -> bool:
    """Whether there are no settings, and the names and shapes are those of the code."""
    shapes = hifigan.shapes_of(source.state(), SHAPES)
    fits = shapes.items() <= SHAPES.items() and len(shapes) + 1 >= len(SHAPES)  # one that is missing is to be named
    return fits and not source.settings_path(*hifigan.names(source))


def read(source: Source) -> Checkpoint:
    """Read a generator; its settings are known."""
    config = VocoderConfig(generator=GENERATOR, mel=CONVENTIONS["gpt-sovits-v4"], wave_rate=WAVE_RATE)
    weights = to_native(source.state(), hifigan.table(GENERATOR), GENERATOR, str(source.file))
    notes = ("the file has no settings; those that are written in the code of GPT-SoVITS v4 are taken",)
    return Checkpoint(config, weights, "HiFi-GAN (GPT-SoVITS v4) generator", notes)


FORMAT = Format(
    name="gpt-sovits",
    title="HiFi-GAN (GPT-SoVITS v4)",
    files=("vocoder.pth",),
    places=("", "generator"),
    recognises=recognises,
    read=read,
)

"""HiFi-GAN in Hugging Face's transformers: SpeechT5HifiGan and FastSpeech2ConformerHifiGan.

Files
    ``model.safetensors`` or ``pytorch_model.bin`` with plain weights, ``config.json``. In
    FastSpeech2ConformerWithHifiGan all lie under ``vocoder.`` and the settings under ``vocoder_config``.
Mel
    SpeechT5: 16 kHz, log10 of magnitudes, floor 1e-10, 80 to 7600 Hz. FastSpeech2Conformer: ESPnet's at 22050 Hz,
    which no file says; its text-to-mel model works on a mel that is normalized as its training was.
Oddities
    The network itself subtracts ``mean`` and divides by ``scale`` where ``normalize_before`` is true. Its input is
    (frames, bands), which the original turns; here it is (bands, frames) as everywhere.
"""

from __future__ import annotations

from typing import Any

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import _plain, hifigan
from fastvoc.checkpoints._keys import Table, to_native
from fastvoc.checkpoints._source import Source, layers, under
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import HiFiGANConfig

FILES = ("model.safetensors", "pytorch_model.bin")


@config
class Settings:
    """``config.json``, with the defaults of SpeechT5HifiGan."""

    model_type: str = "hifigan"
    model_in_dim: int = 80
    sampling_rate: int | None = None
    upsample_initial_channel: int = 512
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    leaky_relu_slope: float = 0.1
    normalize_before: bool = True


def recognises(source: Source) -> bool:
    """Whether the tensors have the names of transformers."""
    names = layers(source.state(""))
    return {"conv_pre", "upsampler.0", "conv_post"} <= names or {"vocoder.conv_pre", "vocoder.upsampler.0"} <= names


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    values, path = source.required("HiFi-GAN of transformers", "config.json")
    where, state = str(path), source.state("")
    if any(name.startswith("vocoder.") for name in state):
        state, values = under(state, "vocoder."), values.get("vocoder_config", {})
    settings = _plain.pick(Settings, values, where)
    generator: HiFiGANConfig = from_dict(
        HiFiGANConfig,
        {
            "mel_bands": settings.model_in_dim,
            "channels": settings.upsample_initial_channel,
            "rates": settings.upsample_rates,
            "rate_kernel_sizes": settings.upsample_kernel_sizes,
            "kernel_sizes": settings.resblock_kernel_sizes,
            "dilations": settings.resblock_dilation_sizes,
            "slope": settings.leaky_relu_slope,
            "standardised": settings.normalize_before,
        },
        where,
    )
    conformer = "fastspeech2" in settings.model_type
    rate = settings.sampling_rate or (22050 if conformer else 16000)
    own: dict[str, Any] = {"bands": generator.mel_bands, "hop": generator.hop, "sample_rate": rate}
    mel = to_dict(CONVENTIONS["espnet" if conformer else "speecht5"]) | own
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    notes: list[str] = []
    if not settings.normalize_before:
        for name in ("mean", "scale"):
            state.pop(name, None)
        notes.append("mean and scale in the file are not used, since normalize_before is false")
    if settings.sampling_rate is None:
        notes.append(f"{path.name} does not say the sample rate; {rate} Hz is assumed")
    notes.append(
        f"{path.name} does not say the mel convention; that of {'ESPnet' if conformer else 'SpeechT5'} is assumed"
    )
    weights = to_native(state, table(generator), generator, str(source.file))
    name = "FastSpeech2Conformer" if conformer else "SpeechT5"
    return Checkpoint(vocoder, weights, f"HiFi-GAN (transformers, {name})", tuple(notes))


def table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer or tensor, native one)."""
    pairs = [(theirs.replace("ups.", "upsampler."), ours) for theirs, ours in hifigan.table(config)]
    return [*pairs, ("mean", "mean"), ("scale", "scale")] if config.standardised else pairs

"""HiFi-GAN in Hugging Face's transformers: SpeechT5HifiGan and FastSpeech2ConformerHifiGan.

Files
    ``model.safetensors`` or ``pytorch_model.bin`` with plain weights, ``config.json``. In
    FastSpeech2ConformerWithHifiGan all lie under ``vocoder.`` and the settings under ``vocoder_config``.
Mel
    SpeechT5: 16 kHz, log10 of magnitudes, floor 1e-10, 80 to 7600 Hz. FastSpeech2Conformer: ESPnet's at 22050 Hz,
    which no file says; its text-to-mel model works on a mel that is normalized as its training was. The vocoder of
    AudioLDM, MusicLDM and Tango is known by 64 bands that are not normalized: Tacotron 2's at 16 kHz, 0 to 8000 Hz.
Oddities
    The network itself subtracts ``mean`` and divides by ``scale`` where ``normalize_before`` is true. Its input is
    (frames, bands), which the original turns; here it is (bands, frames) as everywhere.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.modules import Live, attributes_of, layers_in
from fastvoc.checkpoints.reading.source import Source, layers_of, under
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import HiFiGANConfig

LAYERS = frozenset({"conv_pre", "upsampler.0", "conv_post"})
"""By which the format is known."""


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
    state = source.state()
    return layers_of(state) >= LAYERS or layers_of(under(state, "vocoder.")) >= LAYERS


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    values, path = source.required("HiFi-GAN of transformers", "config.json")
    where, state = str(path), source.state()
    if any(name.startswith("vocoder.") for name in state):
        state, values = under(state, "vocoder."), values.get("vocoder_config", {})
    settings = foreign_settings.pick(Settings, values, where)
    generator = hifigan.network(
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
    project, convention = "SpeechT5", "speecht5"
    if conformer:
        project, convention = "ESPnet", "espnet"
    elif generator.mel_bands == 64 and not settings.normalize_before:
        project, convention = "AudioLDM", "tacotron2"
    rate = settings.sampling_rate or (22050 if conformer else 16000)
    own: dict[str, Any] = {"bands": generator.mel_bands, "hop": generator.hop, "sample_rate": rate}
    mel = to_dict(CONVENTIONS[convention]) | own
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    notes = list(hifigan.longer(generator))
    unused = [] if settings.normalize_before else [name for name in state if name in ("mean", "scale")]
    for name in unused:
        del state[name]
    if unused:
        notes.append(f"{' and '.join(unused)} in the file are not used, since normalize_before is false")
    if settings.sampling_rate is None:
        notes.append(f"{path.name} does not say the sample rate; {rate} Hz is assumed")
    notes.append(f"{path.name} does not say the mel convention; that of {project} is assumed")
    weights = to_native(state, table(generator), generator, str(source.file))
    name = "FastSpeech2Conformer" if conformer else project
    return Checkpoint(vocoder, weights, f"HiFi-GAN (transformers, {name})", tuple(notes))


def table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer or tensor, native one)."""
    pairs = [(theirs.replace("ups.", "upsampler."), ours) for theirs, ours in hifigan.table(config)]
    return [*pairs, ("mean", "mean"), ("scale", "scale")] if config.standardised else pairs


def live(module: nn.Module) -> Live | None:
    """Read a ``SpeechT5HifiGan`` or one of its relatives, which keeps its settings as ``config``."""
    settings = attributes_of(getattr(module, "config", None))
    if not layers_in(module).keys() >= LAYERS or "upsample_rates" not in settings:
        return None
    return Live(settings=settings, says_mel=True, turned=True)


FORMAT = Format(
    name="transformers",
    title="Hugging Face transformers HiFi-GAN",
    files=("model.safetensors", "pytorch_model.bin"),
    recognises=recognises,
    read=read,
    live=live,
    layers=each(*sorted(LAYERS)),
    clue=names_begin("upsampler.0.", "vocoder.upsampler.0."),
)

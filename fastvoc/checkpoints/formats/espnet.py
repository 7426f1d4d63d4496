"""The HiFi-GAN inside ESPnet's joint text-to-wave models (espnet2, ``tts: joint_text2wav``).

Files
    ``*.pth`` holds all tensors of the model without an outer name; ``config.yaml`` the settings of its training;
    ``feats_stats.npz`` belongs to the text-to-mel part.
Mel
    ESPnet's ``LogMelFbank``: as ParallelWaveGAN's, with a floor of 1e-10 under the root too, and ``log_base`` null for
    ln. The joint model has the mel between its parts in the units of the text-to-mel part, which are normalized where
    the training had ``normalize: global_mvn``; what lies outside the network is not known here and is noted.
Oddities
    Layers are ParallelWaveGAN's under ``tts.generator.vocoder.``. The text-to-mel part and the discriminators are left
    aside; JETS and VITS have no mel inside and are refused.
"""

from __future__ import annotations

from typing import Any, Literal

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings, statistics
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, names_begin
from fastvoc.checkpoints.formats.parallel_wavegan import STEMS, generator_config, is_layout, translate
from fastvoc.checkpoints.reading.source import Source, under
from fastvoc.config import config, from_dict, to_dict

PREFIX = "tts.generator.vocoder."

GENERATORS = {"hifigan_generator": "HiFiGANGenerator", "melgan_generator": "MelGANGenerator"}
"""ESPnet's names of generators, and ParallelWaveGAN's."""


@config
class Features:
    """``feats_extract_conf``, with the defaults of ``LogMelFbank``."""

    fs: int = 16000
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int | None = None
    window: Literal["hann"] = "hann"
    n_mels: int = 80
    fmin: float | None = 80
    fmax: float | None = 7600
    htk: bool = False
    log_base: Literal[10, None] = 10


def recognises(source: Source) -> bool:
    """Whether there is a vocoder inside."""
    return is_layout(under(source.state(), PREFIX))


def read(source: Source) -> Checkpoint:
    """Read the vocoder's part and the settings beside it."""
    settings, path = source.required("joint text-to-wave model of ESPnet", "config.yaml", "config.yml")
    where = str(path)
    outer: Any = settings.get("tts_conf")
    inner = outer.get("generator_params", outer) if isinstance(outer, dict) else None
    if not isinstance(inner, dict):
        raise ValueError(f"{where}: has no tts_conf; expected the settings of an ESPnet training")
    kind = str(inner.get("vocoder_type", "hifigan_generator"))
    if settings.get("feats_extract", "fbank") != "fbank":
        raise ValueError(f"{where}: feats_extract is {settings['feats_extract']}; only fbank is a mel")
    parameters = inner.get("vocoder_params", {})
    generator, notes = generator_config(GENERATORS.get(kind, kind), parameters, where)
    features = foreign_settings.pick(Features, settings.get("feats_extract_conf", {}), where)
    mel = to_dict(CONVENTIONS["espnet"]) | {
        "sample_rate": features.fs,
        "fft_size": features.n_fft,
        "hop": features.hop_length,
        "window_size": features.win_length or features.n_fft,
        "bands": features.n_mels,
        "low": features.fmin or 0,
        "high": features.fmax,
        "scale": "htk" if features.htk else "slaney",
        "logarithm": "decimal" if features.log_base == 10 else "natural",
    }
    state = under(source.state(), PREFIX)
    inside = {name: state.pop(name) for name in statistics.NAMES if name in state}
    if normalization := statistics.of_tensors(inside, str(source.file)):
        mel["normalization"] = normalization
    if settings.get("normalize") is not None:
        notes += (
            f"the training had normalize: {settings['normalize']}; if the network was fed normalized mels, "
            "they must be made so before they come here",
        )
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    weights = translate(state, generator, str(source.file), parameters)
    return Checkpoint(vocoder, weights, "HiFi-GAN of an ESPnet text-to-wave model", notes)


FORMAT = Format(
    name="espnet",
    title="ESPnet text2wav",
    files=("*.ave*best.pth", "train.total_count.*.pth"),
    recognises=recognises,
    read=read,
    layers=(STEMS,),
    prefix=PREFIX,
    clue=names_begin(PREFIX),
)

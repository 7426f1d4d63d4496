"""WaveNet as r9y9/wavenet_vocoder a35fff7 saves it, and as v0.0.3 to v0.1.1 of 2018 did.

Files
    ``checkpoint_step001000000.pth`` holds ``{"state_dict", "optimizer", "global_step", …}``, the file of the same name
    that ends in ``_ema.pth`` the moving average that the original evaluates, which goes first. ``hparams.json``
    holds the settings, as its runs and presets (``conf/*.json``) do.
Mel
    log10 of magnitudes, floor 1e-10, centred frames, then mean and scale of each band over the training data, which
    lie in ``meanvar.joblib``: a pickle of scikit-learn's, which is not opened. `Normalization.unknown` says so.
Oddities
    The signal that the network makes has a gain and pre-emphasis, which are settings; the original undoes them behind
    it. The residual connection of the last layer is saved and read by nobody.
Files of 2018
    Among them the published 20180510_mixture_lj_checkpoint_step000320000_ema.pth and its 20180212 sister of CMU ARCTIC.
    Their mels are up-sampled by transposed convolutions over bands and time (``upsample_conv``), and the sum of skips
    is multiplied by √½ at each layer but the first, which is folded into the skips' weights here. Their mels are
    decibels in [0, 1] of lws's spectra (3341893): the square of the window is half a Hann window, and frames begin at
    their first sample, of a wave before which `preprocess.py` has put (fft − hop) zeros. Before 26e4305 (February 2018)
    0.01 was added under the logarithm, of which settings say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from fastvoc.audio import MelConfig, Normalization
from fastvoc.blocks.conditioning import BandTransposedConfig, RepeatedConfig, StretchedConfig
from fastvoc.blocks.distributions import GaussianConfig, LogisticsConfig, MuLawConfig
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.foreign_settings import pick
from fastvoc.checkpoints.format import Format, names_begin
from fastvoc.checkpoints.reading.source import Source, layers_of
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict
from fastvoc.models import WaveNetConfig

FILES = ("checkpoint_step*_ema.pth", "checkpoint_latest_ema.pth", "checkpoint_step*.pth", "checkpoint_latest.pth")


@config
class UpsampleParameters:
    """``upsample_params``, of ``ConvInUpsampleNetwork``."""

    upsample_scales: tuple[int, ...] = (4, 4, 4, 4)
    freq_axis_kernel_size: int = 1
    mode: Literal["nearest"] = "nearest"
    upsample_activation: Literal["none"] = "none"
    cin_pad: int | None = None


@config
class HyperParameters:
    """The settings that say what a network is, with the defaults of the original's ``hparams.py``."""

    input_type: Literal["raw", "mulaw", "mulaw-quantize"] = "raw"
    quantize_channels: int = 65536
    out_channels: int = 30
    output_distribution: Literal["Logistic", "Normal"] = "Logistic"
    log_scale_min: float = -16.0
    layers: int = Field(24, ge=1)
    stacks: int = Field(4, ge=1)
    residual_channels: int = 128
    gate_channels: int = 256
    skip_out_channels: int = 128
    kernel_size: int = 3
    cin_channels: int = 80
    cin_pad: int = 2
    gin_channels: int = -1
    n_speakers: int | None = None
    use_speaker_embedding: bool = True
    upsample_conditional_features: bool = True
    upsample_net: Literal["ConvInUpsampleNetwork"] = "ConvInUpsampleNetwork"
    upsample_params: dict[str, Any] = Field(default_factory=dict)
    legacy: bool = True
    scalar_input: bool | None = None
    preemphasis: float = 0.0
    global_gain_scale: float = 1.0
    postprocess: str | None = ""
    sample_rate: int = 22050
    fft_size: int = Field(1024, gt=0)
    hop_size: int = Field(256, gt=0)
    frame_shift_ms: int | None = None
    win_length: int | None = 1024
    win_length_ms: float = -1.0
    num_mels: int = 80
    fmin: float = 125.0
    fmax: float = 7600.0
    window: Literal["hann"] = "hann"
    upsample_scales: tuple[int, ...] = (4, 4, 4, 4)
    freq_axis_kernel_size: int = 3
    min_level_db: float = Field(-100.0, lt=0)
    ref_level_db: float = 20.0


def recognises(source: Source) -> bool:
    """Whether the tensors have the original's names, and none that Parallel WaveGAN's generator has."""
    layers = layers_of(source.state())
    return {"first_conv", "conv_layers.0.conv", "conv_layers.0.conv1x1_skip", "last_conv_layers.1"} <= layers and (
        "conv_layers.0.conv1x1_aux" not in layers
    )


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    state = dict(source.state())
    settings, path = source.required("WaveNet (r9y9)", "hparams.json", "config.json")
    told = pick(HyperParameters, settings, str(path))
    of_2018 = is_of_2018(state, settings)
    generator = network(told, str(path), of_2018=of_2018)
    for unread in [name for name in state if name.startswith(f"conv_layers.{generator.layers - 1}.conv1x1_out.")]:
        del state[unread]  # which the original saves, and nothing reads
    weights = to_native(state, table(generator), generator, str(source.file), bias_free=bias_free(generator))
    if of_2018 and told.legacy:
        _fold_skips(weights, generator.layers)
    mel = (mel_of_2018 if of_2018 else mel_of)(told, str(path))
    made: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, str(path))
    notes = (
        "before February 2018, 0.01 was added to mels under the logarithm, of which its settings say nothing"
        if of_2018
        else "mean and scale of each band are in meanvar.joblib, a pickle that is not opened; mels come standardised",
        *(() if "_ema" in source.file.name else ("not the moving average that the original evaluates (…_ema.pth)",)),
    )
    return Checkpoint(made, weights, "WaveNet (r9y9/wavenet_vocoder)", notes)


def is_of_2018(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> bool:
    """Whether one of the versions of 2018 saved it: by what up-samples, or by settings where mels are repeated."""
    return any(name.startswith("upsample_conv.") for name in state) or (
        "upsample_scales" in settings and "upsample_params" not in settings
    )


def _fold_skips(weights: dict[str, Tensor], layers: int) -> None:
    """Multiply the skips of each layer by what their sum is multiplied by from there on: √½ at each but the first."""
    for layer in range(layers):
        for part in ("weight", "bias"):
            weights[f"layers.{layer}.skip.{part}"] *= math.sqrt(0.5) ** (layers - max(layer, 1))


def mel_of(told: HyperParameters, where: str) -> MelConfig:
    """Return the mels of later versions, of which mean and scale are not known."""
    made: MelConfig = from_dict(
        MelConfig,
        {
            **_sizes_of_mel(told),
            "window_size": told.win_length or told.fft_size,
            "padding": "centre",
            "logarithm": "decimal",
            "floor": 1e-10,
            "normalization": Normalization(unknown=True),
        },
        where,
    )
    return made


def mel_of_2018(told: HyperParameters, where: str) -> MelConfig:
    """Return the mels of those versions: decibels of what lws makes, in [0, 1]."""
    overlapping, rest = divmod(told.fft_size, told.hop_size)
    if rest:
        raise ValueError(
            f"{where}: fft_size {told.fft_size} is no multiple of hop_size {told.hop_size}; the window of lws is then "
            "none that fastvoc has"
        )
    # the square of lws's window is a Hann window in parts of the sum of as many as overlap
    power, span = 2 / overlapping, -told.min_level_db
    made: MelConfig = from_dict(
        MelConfig,
        {
            **_sizes_of_mel(told),
            "window_size": told.fft_size,
            "window": "sine",
            "padding": "end",
            "padding_mode": "zero",
            "logarithm": "decimal",
            "gain": 20,
            "floor": 10 ** (told.min_level_db / 20) / math.sqrt(power),
            "normalization": {
                "mean": told.ref_level_db + told.min_level_db - 10 * math.log10(power),
                "scale": span,
                "clip": (0, 1),
            },
        },
        where,
    )
    return made


def _sizes_of_mel(told: HyperParameters) -> dict[str, Any]:
    return {
        "sample_rate": told.sample_rate,
        "fft_size": told.fft_size,
        "hop": told.hop_size,
        "bands": told.num_mels,
        "low": told.fmin,
        "high": told.fmax,
    }


def network(told: HyperParameters, where: str, *, of_2018: bool = False) -> WaveNetConfig:
    """Build the configuration of a network, or of one of the versions of 2018."""
    if told.layers % told.stacks:
        raise ValueError(f"{where}: layers {told.layers} are no multiple of stacks {told.stacks}")
    if told.cin_channels <= 0:
        raise ValueError(
            f"{where}: cin_channels is {told.cin_channels}; fastvoc opens networks that are conditioned on a mel"
        )
    if not told.legacy and not of_2018:
        raise ValueError(
            f"{where}: legacy is false; the published networks scale residuals by √½, and fastvoc opens those"
        )
    if told.input_type == "mulaw":
        raise ValueError(f"{where}: input_type is 'mulaw': a continuous μ-law, which fastvoc does not open")
    smallest = {"smallest_log_scale": told.log_scale_min}
    distribution: MuLawConfig | LogisticsConfig | GaussianConfig
    if told.input_type == "mulaw-quantize":
        distribution = from_dict(MuLawConfig, {"numbering": "truncated", "classes": told.quantize_channels}, where)
    elif told.output_distribution == "Normal":
        distribution = from_dict(GaussianConfig, smallest, where)
    else:
        if told.out_channels % 3:
            raise ValueError(
                f"{where}: out_channels {told.out_channels} is no multiple of 3: logit, mean and scale of each logistic"
            )
        sizes = {"mixtures": told.out_channels // 3, "levels": told.quantize_channels}
        distribution = from_dict(LogisticsConfig, sizes | smallest, where)
    if told.out_channels != distribution.outputs:
        raise ValueError(
            f"{where}: out_channels is {told.out_channels}, but its {distribution.kind} has {distribution.outputs}"
        )
    conditioning: Any = from_dict(RepeatedConfig, {"hop": told.hop_size}, where)
    if told.upsample_conditional_features and of_2018:
        rates = {"rates": told.upsample_scales, "band_taps": told.freq_axis_kernel_size}
        conditioning = from_dict(BandTransposedConfig, rates, where)
    elif told.upsample_conditional_features:
        up = pick(UpsampleParameters, told.upsample_params, f"{where}: upsample_params")
        context = told.cin_pad if up.cin_pad is None else up.cin_pad
        rates = {"rates": up.upsample_scales, "context": context, "band_taps": up.freq_axis_kernel_size}
        conditioning = from_dict(StretchedConfig, rates, where)
    conditioned = max(0, told.gin_channels)
    speakers = (told.n_speakers or 0) if conditioned and told.use_speaker_embedding else 0
    values = {
        "mel_bands": told.cin_channels,
        "conditioning": conditioning,
        "distribution": distribution,
        "channels": told.residual_channels,
        "gates": told.gate_channels,
        "skip_channels": told.skip_out_channels,
        "head_channels": told.skip_out_channels,
        "layers": told.layers,
        "cycle": told.layers // told.stacks,
        "kernel_size": told.kernel_size,
        "residual_scale": math.sqrt(0.5),
        "skip_scale": 1.0 if of_2018 else None,
        "condition_channels": conditioned,
        "speakers": speakers,
        "preemphasis": told.preemphasis if "inv_preemphasis" in (told.postprocess or "") else 0.0,
        "gain": told.global_gain_scale if told.global_gain_scale > 0 else 1.0,
    }
    built: WaveNetConfig = from_dict(WaveNetConfig, values, where)
    return built


def table(config: WaveNetConfig) -> Table:
    """List the pairs (original layer, native layer), but those of what the original has no part of."""
    pairs = [("first_conv", "input"), ("last_conv_layers.1", "hidden"), ("last_conv_layers.3", "output")]
    for layer in range(config.layers):
        theirs, ours = f"conv_layers.{layer}", f"layers.{layer}"
        pairs += [(f"{theirs}.conv", f"{ours}.dilated"), (f"{theirs}.conv1x1c", f"{ours}.condition")]
        if config.condition_channels:
            pairs.append((f"{theirs}.conv1x1g", f"{ours}.utterance"))
        if layer < config.layers - 1:
            pairs.append((f"{theirs}.conv1x1_out", f"{ours}.residual"))
        pairs.append((f"{theirs}.conv1x1_skip", f"{ours}.skip"))
    if isinstance(config.conditioning, StretchedConfig):
        pairs.append(("upsample_net.conv_in", "rows.first"))
        stages = range(len(config.conditioning.rates))
        # layers that repeat stand between those that smooth
        pairs += [(f"upsample_net.upsample.up_layers.{2 * stage + 1}", f"rows.smooth.{stage}") for stage in stages]
    if isinstance(config.conditioning, BandTransposedConfig):
        stages = range(len(config.conditioning.rates))  # with a ReLU behind each
        pairs += [(f"upsample_conv.{2 * stage}", f"rows.stages.{stage}") for stage in stages]
    if config.speakers:
        pairs.append(("embed_speakers.weight", "speakers.weight"))
    return pairs


def bias_free(config: WaveNetConfig) -> tuple[str, ...]:
    """List the layers of the original that have no bias."""
    return tuple(
        theirs
        for theirs, _ in table(config)
        if theirs.endswith((".conv1x1c", ".conv1x1g")) or theirs.startswith("upsample_net.")
    )


_MU_LAW = {
    "input_type": "mulaw-quantize",
    "quantize_channels": 256,
    "out_channels": 256,
    "layers": 30,
    "stacks": 3,
    "preemphasis": 0.85,
    "postprocess": "inv_preemphasis",
    "global_gain_scale": 0.55,
}
_MIXTURE = {**_MU_LAW, "input_type": "raw", "quantize_channels": 65536, "out_channels": 30, "layers": 24, "stacks": 4}

_MIXTURE_OF_2018 = {
    "quantize_channels": 65536,
    "out_channels": 30,
    "log_scale_min": math.log(1e-14),
    "residual_channels": 512,
    "gate_channels": 512,
    "skip_out_channels": 256,
}

FORMAT = Format(
    name="wavenet-vocoder",
    title="WaveNet (r9y9)",
    files=FILES,
    places=("state_dict", ""),
    recognises=recognises,
    read=read,
    clue=names_begin("conv_layers.0.conv1x1_skip", "last_conv_layers.", "embed_speakers."),
    presets={
        "wavenet-mulaw256": _MU_LAW,
        "wavenet-mol": _MIXTURE,
        "wavenet-gaussian": _MIXTURE | {"out_channels": 2, "output_distribution": "Normal"},
        "wavenet-mol-2018": _MIXTURE_OF_2018,
    },
)

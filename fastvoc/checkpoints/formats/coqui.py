"""HiFi-GAN, MelGAN and multi-band MelGAN as Coqui's TTS saves them (coqui-ai dbf1a08, idiap 7cde79e).

Files
    ``model_file.pth`` (also ``.pth.tar``, ``best_model_*.pth``, ``checkpoint_*.pth``) holds, under ``model``, the
    generator as ``model_g.…`` beside ``model_d.…``, or the bare generator with ``model_disc`` beside ``model``;
    ``config.json``, which may hold comments, the settings. ``scale_stats.npy`` holds the statistics of the mel where
    ``audio.stats_path`` is set, as pickled objects, which are not opened: the message says how to convert them.
Mel
    Centred frames, ``spec_gain`` times log10 or ln with a floor of 1e-8, then what ``signal_norm`` says: a map of
    decibels to a range, or per-band statistics.
Oddities
    Inference repeats 5 frames (2 in MelGAN) at both ends and keeps their sound, which is kept as the vocoder's
    `InferenceFrames`. The filter bank of multi-band MelGAN has another prototype than ParallelWaveGAN's and delays by
    one sample; its stored filters are taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings, statistics
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import hifigan, seungwonpark
from fastvoc.checkpoints.modules import Live, fitting_mel, hifigan_sizes, layers_in
from fastvoc.checkpoints.reading.source import Source, under
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import HiFiGANConfig, MelGANConfig

WIDTHS = {"melgan_generator": 512, "fullband_melgan_generator": 512, "multiband_melgan_generator": 384}
"""Channels of each kind of MelGAN, which are written in the original's code."""

FILTERS = "pqmf_layer."


@config
class HiFiGANParameters:
    """``generator_params`` of ``hifigan_generator``, with the defaults of its code."""

    upsample_factors: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_type: Literal["1", "2", 1, 2]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    inference_padding: int = 5
    cond_channels: int = 0
    conv_post_bias: bool = True


@config
class MelGANParameters:
    """``generator_params`` of the kinds of MelGAN."""

    upsample_factors: tuple[int, ...]
    num_res_blocks: int


@config
class Features:
    """``audio``, with the defaults of ``BaseAudioConfig``."""

    fft_size: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    frame_shift_ms: None = None
    frame_length_ms: None = None
    sample_rate: int = 22050
    preemphasis: Literal[0] = 0
    ref_level_db: float = 20
    min_level_db: float = Field(-100, lt=0)
    log_func: Literal["np.log", "np.log10"] = "np.log10"
    spec_gain: float = 20
    do_amp_to_db_mel: Literal[True] = True
    num_mels: int = 80
    stft_pad_mode: Literal["reflect"] = "reflect"
    mel_fmin: float | None = 0
    mel_fmax: float | None = None
    signal_norm: bool = True
    symmetric_norm: bool = True
    max_norm: float = Field(4, gt=0)
    clip_norm: bool = True
    stats_path: str | None = None


def recognises(source: Source) -> bool:
    """Whether there are a generator and a discriminator in one of the two ways, or the settings name a generator."""
    state = source.state()
    if any(name.startswith("model_g.") for name in state) or "model_disc" in source.top:
        settings = source.settings("config.json")  # those of another project tell that the names are only alike
        return not settings or "generator_model" in settings
    known = hifigan.is_layout(state) or any(name.startswith("layers.1.") for name in state)
    return known and "generator_model" in source.settings("config.json")


def read(source: Source) -> Checkpoint:
    """Read a generator, the settings beside it and the statistics of its mel."""
    settings, path = source.required("Coqui vocoder", "config.json")
    where = str(path)
    state = source.state()
    state = under(state, "model_g.") or state
    features = foreign_settings.pick(Features, settings.get("audio", {}), where)
    kind = str(settings.get("generator_model", "")).lower()
    filters = {name: state.pop(name) for name in list(state) if name.startswith(FILTERS)}
    generator, padding = _generator(kind, settings.get("generator_model_params"), features.num_mels, filters, where)
    mel = to_dict(CONVENTIONS["coqui"]) | {
        "sample_rate": features.sample_rate,
        "fft_size": features.fft_size,
        "hop": features.hop_length,
        "window_size": features.win_length,
        "bands": features.num_mels,
        "low": features.mel_fmin or 0,
        "high": features.mel_fmax,
        "logarithm": "natural" if features.log_func == "np.log" else "decimal",
        "gain": features.spec_gain,
        "normalization": _normalization(features, source),
    }
    values = {"generator": generator, "mel": mel, "inference": {"replicated_frames": padding}}
    vocoder: VocoderConfig = from_dict(VocoderConfig, values, where)
    pairs = hifigan_table(generator) if isinstance(generator, HiFiGANConfig) else melgan_table(generator)
    bias_free: tuple[str, ...] = ()
    if isinstance(generator, HiFiGANConfig):
        name, bias = f"{where}: generator_model_params", settings["generator_model_params"].get(hifigan.BIAS, True)
        bias_free = hifigan.layers_without_bias(state, bias, str(source.file), name)
    weights = to_native(state, pairs, generator, str(source.file), bias_free=bias_free)
    if filters:
        weights["head.filters"] = synthesis(filters).to(weights["head.filters"].dtype)
    notes: list[str] = []
    if isinstance(generator, HiFiGANConfig):
        notes += [*hifigan.missing_bias(state), *hifigan.longer(generator)]
    if padding:
        notes.append(
            f"the original repeats {padding} frames at both ends and keeps their sound: vocoder.config.inference"
        )
    if filters:
        notes.append("the filter bank is the one in the file, which delays by one sample")
    family = "HiFi-GAN" if isinstance(generator, HiFiGANConfig) else "MelGAN"
    return Checkpoint(vocoder, weights, f"{family} (Coqui) generator", tuple(notes))


def hifigan_table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer, native layer) of the HiFi-GAN."""
    conditioned = [("cond_layer", "trunk.condition.0")] if config.condition_channels else []
    return [*hifigan.table(config), *conditioned]


def melgan_table(config: MelGANConfig) -> Table:
    """List the pairs (original layer, native layer) of every MelGAN."""
    return seungwonpark.table(config, "layers")


def synthesis(filters: Mapping[str, Tensor]) -> Tensor:
    """Join the original's two steps, spreading by ``updown_filter`` and filtering by ``G``, into one convolution."""
    bank = filters[f"{FILTERS}G"]
    return (bank.shape[1] * bank.double()).flip(-1).permute(1, 0, 2).contiguous()


def _generator(
    kind: str, parameters: Any, bands: int, filters: Mapping[str, Tensor], where: str
) -> tuple[HiFiGANConfig | MelGANConfig, int]:
    """Translate the settings of the network, and return the frames that inference repeats."""
    name = f"{where}: generator_model_params"
    if kind == "hifigan_generator":
        hifi = foreign_settings.pick(HiFiGANParameters, parameters, name)
        values: dict[str, Any] = {
            "mel_bands": bands,
            "channels": hifi.upsample_initial_channel,
            "rates": hifi.upsample_factors,
            "rate_kernel_sizes": hifi.upsample_kernel_sizes,
            "block": str(hifi.resblock_type),
            "kernel_sizes": hifi.resblock_kernel_sizes,
            "dilations": hifi.resblock_dilation_sizes,
            "condition_channels": hifi.cond_channels,
        }
        return hifigan.network(values, name), hifi.inference_padding
    if kind not in WIDTHS:
        raise ValueError(
            f"{where}: generator_model is {kind or 'missing'}; of Coqui fastvoc opens hifigan_generator, "
            f"{', '.join(WIDTHS)}"
        )
    melgan = foreign_settings.pick(MelGANParameters, parameters, name)
    values = {
        "mel_bands": bands,
        "channels": WIDTHS[kind],
        "rates": melgan.upsample_factors,
        "rate_kernel_sizes": [2 * rate for rate in melgan.upsample_factors],
        "units": melgan.num_res_blocks,
    }
    if kind == "multiband_melgan_generator":
        bank = filters.get(f"{FILTERS}G", torch.empty(0))
        if bank.dim() != 3 or bank.shape[0] != 1 or not bank.is_floating_point() or bank.numel() > 1 << 20:
            raise ValueError(f"{where}: a multi-band MelGAN needs the filters {FILTERS}G of shape (1, bands, taps)")
        values["pqmf"] = {"bands": bank.shape[1], "taps": bank.shape[2] - 1, "cutoff": 0.15}
    elif filters:
        raise ValueError(f"{where}: generator_model is {kind}, but the weights have a filter bank")
    return from_dict(MelGANConfig, values, name), 2


def _normalization(features: Features, source: Source) -> Any:
    if not features.signal_norm:
        return {}
    if features.stats_path:
        if file := source.beside("scale_stats.npz", "scale_stats.npy"):
            return statistics.read(file)
        raise ValueError(f"{source.file}: needs the statistics of the mel, but scale_stats.npy is not beside it")
    # the original subtracts the reference, maps [min, 0] to [0, 1], and that to [-max, max] or [0, max]
    reference, lowest, most = features.ref_level_db, features.min_level_db, features.max_norm
    if features.symmetric_norm:
        mean, scale, floor = reference + lowest / 2, -lowest / (2 * most), -most
    else:
        mean, scale, floor = reference + lowest, -lowest / most, 0.0
    return {"mean": mean, "scale": scale, "clip": (floor, most) if features.clip_norm else None}


def live(module: nn.Module) -> Live | None:
    """Read a ``HifiganGenerator``, or the sequence of layers inside a MelGAN of the full band.

    It is that sequence which both its `forward` and its ``inference`` run. A multi-band MelGAN is not known without the
    filters beside it.
    """
    layers = layers_in(module)
    if layers.keys() >= hifigan.LAYERS and (hasattr(module, "inference_padding") or "cond_layer" in layers):
        return _live_hifigan(module)
    shortcuts = [name for name in layers if ".shortcuts." in name]
    if not isinstance(module, nn.Sequential) or not shortcuts:
        return None
    stem, *_, head = layers.values()
    rates = [one.stride[0] for one in layers.values() if isinstance(one, nn.ConvTranspose1d)]
    if not rates or head.out_channels != 1 or stem.out_channels != WIDTHS["melgan_generator"]:
        return None
    parameters = {"upsample_factors": rates, "num_res_blocks": len(shortcuts) // len(rates)}
    settings = _live_settings("melgan_generator", parameters, math.prod(rates), stem.in_channels)
    return Live(settings=settings, prefix="layers.")


def _live_hifigan(module: nn.Module) -> Live | None:
    if (sizes := hifigan_sizes(module)) is None:
        return None
    condition = layers_in(module).get("cond_layer")
    parameters = {
        "upsample_factors": sizes["rates"],
        "upsample_kernel_sizes": sizes["rate_kernel_sizes"],
        "upsample_initial_channel": sizes["channels"],
        "resblock_type": sizes["block"],
        "resblock_kernel_sizes": sizes["kernel_sizes"],
        "resblock_dilation_sizes": sizes["dilations"],
        "inference_padding": getattr(module, "inference_padding", 0),
        "cond_channels": getattr(condition, "in_channels", 0),
        hifigan.BIAS: sizes["bias"],
    }
    settings = _live_settings("hifigan_generator", parameters, math.prod(sizes["rates"]), sizes["mel_bands"])
    return Live(settings=settings, condition="g" if condition is not None else None, prefix="model_g.")


def _live_settings(kind: str, parameters: dict[str, Any], hop: int, bands: int) -> dict[str, Any]:
    mel = fitting_mel(hop)
    audio = {"fft_size": mel["fft_size"], "win_length": mel["window_size"], "hop_length": hop, "num_mels": bands}
    return {"generator_model": kind, "generator_model_params": parameters, "audio": audio}


FORMAT = Format(
    name="coqui",
    title="Coqui",
    files=("model_file.pth", "model_file.pth.tar", "best_model*.pth", "checkpoint_*.pth"),
    places=("model", ""),
    recognises=recognises,
    read=read,
    live=live,
)

"""HiFi-GAN as SpeechBrain 9c826ef saves it.

Files
    ``generator.ckpt`` holds the generator's tensors without an outer name, ``hyperparams.yaml`` the settings, in YAML
    whose tags make objects; here they make none, and references such as ``!ref <in_channels>`` are followed by name.
    Training folders have ``CKPT+…/generator.ckpt``, and ``train.yaml`` or ``hyperparams.yaml`` further up.
Mel
    Tacotron 2's: ln of magnitudes, floor 1e-5, centred frames. The settings of the published vocoders need not say it;
    what they lack is that of the recipe for LJ Speech.
Oddities
    Names are the original HiFi-GAN's with ``.conv`` behind each layer. Convolutions reflect the signal at its ends
    instead of padding zeros. Inference repeats 5 frames at both ends and keeps their sound, which is kept as the
    vocoder's `InferenceFrames`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from torch import nn

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.modules import Live, fitting_mel, hifigan_sizes, layers_in
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import HiFiGANConfig

SETTINGS = ("hyperparams.yaml", "hyperparams_train.yaml", "train.yaml")


@config
class Network:
    """The arguments of ``HifiganGenerator``, with the defaults of its code."""

    in_channels: int
    out_channels: Literal[1] = 1
    resblock_type: Literal["1", "2", 1, 2]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    resblock_kernel_sizes: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    upsample_factors: tuple[int, ...]
    inference_padding: int = 5
    cond_channels: int = 0
    conv_post_bias: bool = True


@config
class Features:
    """The settings of the mel, with those of the recipe for LJ Speech where a file lacks them."""

    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int | None = None
    """Where it is given, it has to be that of the network."""
    mel_fmin: float = 0
    mel_fmax: float | None = 8000
    mel_normalized: Literal[False] = False
    power: Literal[1, 2] = 1
    norm: Literal["slaney"] | None = "slaney"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    dynamic_range_compression: Literal[True] = True


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    values, path = source.required("SpeechBrain generator", *SETTINGS)
    where, state = str(path), source.state()
    entry = values.get("generator")
    resolved = {name: _resolve(value, values) for name, value in values.items()}
    if isinstance(entry, dict):
        resolved |= {str(name): _resolve(value, values) for name, value in entry.items()}
    network = foreign_settings.pick(Network, resolved, where)
    features = foreign_settings.pick(Features, resolved, where)
    generator = hifigan.network(
        {
            "mel_bands": network.in_channels,
            "channels": network.upsample_initial_channel,
            "rates": network.upsample_factors,
            "rate_kernel_sizes": network.upsample_kernel_sizes,
            "block": str(network.resblock_type),
            "kernel_sizes": network.resblock_kernel_sizes,
            "dilations": network.resblock_dilation_sizes,
            "padding_mode": "reflect",
            "condition_channels": network.cond_channels,
        },
        where,
    )
    mel = to_dict(CONVENTIONS["tacotron2"]) | {
        "bands": network.in_channels,
        "hop": features.hop_length or generator.hop,
        "sample_rate": features.sample_rate,
        "fft_size": features.n_fft,
        "window_size": features.win_length,
        "low": features.mel_fmin,
        "high": features.mel_fmax,
        "power": features.power,
        "area_normalized": features.norm == "slaney",
        "scale": features.mel_scale,
    }
    frames = {"replicated_frames": network.inference_padding}
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel, "inference": frames}, where)
    bias_free = hifigan.layers_without_bias(state, network.conv_post_bias, str(source.file), where, "conv_post.conv")
    weights = to_native(state, table(generator), generator, str(source.file), bias_free=bias_free)
    notes = [*hifigan.missing_bias(state, "conv_post.conv"), *hifigan.longer(generator)]
    if "sample_rate" not in resolved:
        notes.append(f"{path.name} does not say the mel; that of the recipe for LJ Speech is assumed, at 22050 Hz")
    if network.inference_padding:
        notes.append(
            f"the original repeats {network.inference_padding} frames at both ends and keeps their sound: "
            "vocoder.config.inference"
        )
    return Checkpoint(vocoder, weights, "HiFi-GAN (SpeechBrain) generator", tuple(notes))


def table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer, native layer)."""
    pairs = hifigan.table(config)
    if config.condition_channels:
        pairs = [*pairs, ("cond_layer", "trunk.condition.0")]
    return [(f"{theirs}.conv", ours) for theirs, ours in pairs]


def _resolve(value: Any, values: dict[str, Any]) -> Any:
    """Follow a reference to a value at the top, once: a reference to a reference is a name, not a value."""
    reference = re.fullmatch(r"<(\w+)>", value) if isinstance(value, str) else None
    return values.get(reference[1], value) if reference else value


def live(module: nn.Module) -> Live | None:
    """Read a ``HifiganGenerator``, whose layers are modules around convolutions."""
    layers = layers_in(module)
    if not {"conv_pre.conv", "ups.0.conv", "conv_post.conv"} <= layers.keys() or not (sizes := hifigan_sizes(module)):
        return None
    condition = layers.get("cond_layer.conv")
    mel = fitting_mel(math.prod(sizes["rates"]))
    settings = {
        "in_channels": sizes["mel_bands"],
        "resblock_type": sizes["block"],
        "resblock_dilation_sizes": sizes["dilations"],
        "resblock_kernel_sizes": sizes["kernel_sizes"],
        "upsample_kernel_sizes": sizes["rate_kernel_sizes"],
        "upsample_initial_channel": sizes["channels"],
        "upsample_factors": sizes["rates"],
        "inference_padding": getattr(module, "inference_padding", 5),
        "cond_channels": getattr(condition, "in_channels", 0),
        "conv_post_bias": sizes["bias"],
        "n_fft": mel["fft_size"],
        "win_length": mel["window_size"],
    }
    return Live(settings=settings, condition="g" if condition is not None else None)


FORMAT = Format(
    name="speechbrain",
    title="SpeechBrain HiFi-GAN",
    files=("generator.ckpt",),
    read=read,
    live=live,
    layers=each("conv_post.conv", "conv_pre.conv", "ups.0.conv"),
    clue=names_begin("conv_pre.conv.", "ups.0.conv."),
)

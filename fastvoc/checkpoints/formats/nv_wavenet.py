"""WaveNet as NVIDIA/nv-wavenet 03f6957 trains it in PyTorch.

Files
    ``wavenet_210000`` holds ``{"model", "iteration", "optimizer", "learning_rate"}``, where the model is the module
    itself, pickled: its tensors are taken, and no code runs. One that was saved again may hold its ``state_dict``.
    ``config.json`` of the original holds ``wavenet_config`` and ``data_config``.
Mel
    Tacotron 2's at 16 kHz: 80 bands from 0 to 8 kHz, ln of magnitudes, centred frames every 200 samples.
Oddities
    All sizes follow from the shapes of tensors, but the hop, the rate and how far dilations grow; where there is no
    ``config.json``, those of the published configuration are assumed. Samples are classes of which 128 is silence. One
    matrix makes the conditions of all layers.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import WaveNetConfig


@config
class Data:
    """The settings of the mel, ``data_config``."""

    sampling_rate: int = 16000
    filter_length: int = 800
    hop_length: int = 200
    win_length: int = 800
    mel_fmin: float = 0
    mel_fmax: float | None = 8000


@config
class Sizes:
    """What no shape tells, of ``wavenet_config``."""

    max_dilation: int = 128
    upsamp_stride: int = 200


def read(source: Source) -> Checkpoint:
    """Read a module or its tensors, and the settings beside them, or the published ones."""
    where, path = str(source.file), source.settings_path("config.json")
    settings = source.settings("config.json")
    data = foreign_settings.pick(Data, settings.get("data_config", {}), f"{path or where}: data_config")
    sizes = foreign_settings.pick(Sizes, settings.get("wavenet_config", {}), f"{path or where}: wavenet_config")
    state = source.state()
    generator = network(state, sizes, where)
    mel = to_dict(CONVENTIONS["tacotron2"]) | {
        "sample_rate": data.sampling_rate,
        "fft_size": data.filter_length,
        "hop": data.hop_length,
        "window_size": data.win_length,
        "bands": generator.mel_bands,
        "low": data.mel_fmin,
        "high": data.mel_fmax,
    }
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, str(path or where))
    weights = to_native(divided(state, generator.layers), table(generator), generator, where, bias_free=BIAS_FREE)
    notes = () if path else ("no config.json beside the weights; the published rate, hop and dilations are assumed",)
    return Checkpoint(vocoder, weights, "WaveNet (NVIDIA/nv-wavenet)", notes)


def network(state: Mapping[str, Tensor], told: Sizes, where: str) -> WaveNetConfig:
    """Tell the sizes of a network from the shapes of its tensors."""

    def shape(name: str, axes: int = 3) -> list[int]:
        tensor = state.get(name)
        if tensor is None or tensor.dim() != axes:
            raise ValueError(f"{where}: {name} is missing or has not {axes} dimensions; it is no whole nv-wavenet")
        return list(tensor.shape)

    cycle = told.max_dilation.bit_length()
    if told.max_dilation != 2 ** (cycle - 1):
        raise ValueError(f"{where}: max_dilation {told.max_dilation} is no power of two")
    gates, channels, taps = shape("dilate_layers.0.conv.weight")
    upsample = shape("upsample.weight")
    values = {
        "mel_bands": upsample[0],
        "conditioning": {"kind": "transposed", "hop": told.upsamp_stride, "kernel_size": upsample[2]},
        "distribution": {"kind": "mu-law", "numbering": "rounded", "classes": shape("embed.weight", 2)[0]},
        "channels": channels,
        "gates": gates,
        "skip_channels": shape("skip_layers.0.conv.weight")[0],
        "head_channels": shape("conv_out.conv.weight")[0],
        "layers": sum(f"dilate_layers.{number}.conv.weight" in state for number in range(257)),
        "cycle": cycle,
        "kernel_size": taps,
        "residual_scale": 1.0,
        "skip_scale": 1.0,
    }
    made: WaveNetConfig = from_dict(WaveNetConfig, values, where)
    return made


def divided(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Give each layer its part of the conditions, and the table of classes the shape of a convolution."""
    result = dict(state)
    for name in ("weight", "bias"):
        tensor = result.get(f"cond_layers.conv.{name}")
        if tensor is not None and tensor.dim() and len(tensor) % layers == 0:
            del result[f"cond_layers.conv.{name}"]
            result |= {f"cond_layers.{n}.{name}": part for n, part in enumerate(tensor.chunk(layers))}
    table_of_classes = result.get("embed.weight")
    if table_of_classes is not None and table_of_classes.dim() == 2:
        result["embed.weight"] = table_of_classes.T[..., None]
    return result


BIAS_FREE = ("embed", "conv_out.conv", "conv_end.conv")
"""Layers of the original that have no bias."""


def table(config: WaveNetConfig) -> Table:
    """List the pairs (layer of what `divided` returns, native layer)."""
    pairs = [("upsample", "rows"), ("embed", "input"), ("conv_out.conv", "hidden"), ("conv_end.conv", "output")]
    for layer in range(config.layers):
        ours = f"layers.{layer}"
        pairs += [(f"cond_layers.{layer}", f"{ours}.condition"), (f"dilate_layers.{layer}.conv", f"{ours}.dilated")]
        if layer < config.layers - 1:
            pairs.append((f"res_layers.{layer}.conv", f"{ours}.residual"))
        pairs.append((f"skip_layers.{layer}.conv", f"{ours}.skip"))
    return pairs


FORMAT = Format(
    name="nv-wavenet",
    title="WaveNet (nv-wavenet)",
    files=("wavenet_*",),
    places=("model", "state_dict", ""),
    read=read,
    layers=each("upsample", "embed", "cond_layers.conv", "dilate_layers.0.conv", "conv_end.conv"),
    clue=names_begin("dilate_layers.", "cond_layers.conv."),
)

"""WaveGlow as NVIDIA/waveglow 8afb643 and NVIDIA/DeepLearningExamples 729963d save it.

Files
    ``waveglow_256channels_universal_v5.pt``, ``waveglow_256channels.pt`` and checkpoints of a run hold under ``model``
    the module itself, pickled; others, from NGC and DeepLearningExamples, hold its tensors, under ``state_dict`` or
    ``model``, mostly with ``module.`` in front of their names. Of pickles, tensors are taken and no code runs.
Mel
    Tacotron 2's, which is nowhere in the file: 80 bands up to 8 kHz at 22.05 kHz, ln of magnitudes, centred frames.
Oddities
    All sizes follow from the shapes of tensors, but the hop and the rate, which ``config.json`` of the original tells
    where it lies beside the file. Files of the first version, whose classes are in ``glow_old``, have ``res_layers``
    and ``skip_layers`` in place of ``res_skip_layers``, and those and DeepLearningExamples' have a list ``cond_layers``
    in place of ``cond_layer``; they are put together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin
from fastvoc.checkpoints.reading.source import Source, layers_of, under
from fastvoc.checkpoints.tensor_names import SPELLINGS, Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import WaveGlowConfig


@config
class Data:
    """The settings of the mel, ``data_config``."""

    sampling_rate: int = 22050
    filter_length: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    mel_fmin: float = 0
    mel_fmax: float | None = 8000


def read(source: Source) -> Checkpoint:
    """Read a module or its tensors, and the settings of the original beside them, or the published ones."""
    where, path = str(source.file), source.settings_path("config.json")
    settings = source.settings("config.json")
    data = foreign_settings.pick(Data, settings.get("data_config", {}), f"{path or where}: data_config")
    state = source.state()
    state = under(state, "waveglow.") or state
    sizes = network(merged(state), where)
    training = settings.get("train_config")
    if isinstance(training, Mapping) and "sigma" in training:
        sizes["deviation"] = training["sigma"]
    generator: WaveGlowConfig = from_dict(WaveGlowConfig, sizes | {"hop": data.hop_length}, str(path or where))
    mel = to_dict(CONVENTIONS["waveglow"]) | {
        "sample_rate": data.sampling_rate,
        "fft_size": data.filter_length,
        "hop": data.hop_length,
        "window_size": data.win_length,
        "bands": generator.mel_bands,
        "low": data.mel_fmin,
        "high": data.mel_fmax,
    }
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    tensors = {name: matrix(name, tensor, where) for name, tensor in merged(state).items()}
    weights = to_native(tensors, table(generator), generator, where)
    notes = () if path else ("no config.json beside the weights; the original's rate, hop and mel are assumed",)
    return Checkpoint(vocoder, weights, "WaveGlow (NVIDIA)", notes)


def network(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Tell the sizes of a network from the shapes of its tensors, all but the hop."""

    def shape(layer: str) -> list[int]:
        names = (f"{layer}.{name}" for name in ("weight", *(pair[1] for pair in SPELLINGS)))
        found = next((state[name] for name in names if name in state), None)
        if found is None or found.dim() != 3:
            raise ValueError(f"{where}: {layer}.weight is missing or has no three dimensions; it is no whole WaveGlow")
        return list(found.shape)

    names = layers_of(state)
    flows = sum(f"convinv.{number}.conv" in names for number in range(65))
    widths = [shape(f"convinv.{number}.conv")[0] for number in range(flows)]
    fewer = next((number for number, width in enumerate(widths) if width != widths[0]), None)
    return {
        "mel_bands": shape("upsample")[0],
        "upsample_kernel_size": shape("upsample")[2],
        "group": widths[0],
        "flows": flows,
        # where none leave, or not for a second time, either number is one of several
        "early_every": fewer or flows,
        "early_size": 2 if fewer is None else widths[0] - widths[fewer],
        "channels": shape("WN.0.start")[0],
        "layers": sum(f"WN.0.in_layers.{number}" in names for number in range(13)),
        "kernel_size": shape("WN.0.in_layers.0")[2],
    }


def matrix(name: str, tensor: Tensor, where: str) -> Tensor:
    """Return the weight of a 1×1 convolution as the matrix that it is, and others as they are."""
    if not name.startswith("convinv."):
        return tensor
    if tensor.dim() != 3 or tensor.shape[2] != 1:
        raise ValueError(f"{where}: {name} has shape {tuple(tensor.shape)}; expected (channels, channels, 1)")
    return tensor[..., 0]


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put together what the first version and DeepLearningExamples hold in parts: rows of residual, then of skip."""
    result: dict[str, Tensor] = {}
    conditions: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        whole = name.replace(".res_layers.", ".res_skip_layers.").replace(".skip_layers.", ".res_skip_layers.")
        before, found, rest = name.partition(".cond_layers.")
        number, _, kind = rest.partition(".")
        if found and number.isdigit():
            conditions.setdefault(f"{before}.cond_layer.{kind}", {})[int(number)] = tensor
        elif (
            ".skip_layers." in name and (first := state.get(name.replace(".skip_layers.", ".res_layers."))) is not None
        ):
            result[whole] = _joined(first, tensor)
        elif ".res_layers." not in name:
            result[whole] = tensor
        elif name.replace(".res_layers.", ".skip_layers.") not in state:
            result[name] = tensor
    for name, parts in conditions.items():
        result[name] = _joined(*(parts[number] for number in sorted(parts)))
    return result


def _joined(*parts: Tensor) -> Tensor:
    """Join rows; what does not fit stays as it is, and is refused for its shape."""
    fits = all(
        part.dim() == parts[0].dim() > 0
        and part.shape[1:] == parts[0].shape[1:]
        and part.numel() * part.element_size() <= part.untyped_storage().nbytes()  # a view may claim to be larger
        for part in parts
    )
    return torch.cat(parts) if fits else parts[0]


def table(config: WaveGlowConfig) -> Table:
    """List the pairs (original layer, native layer)."""
    pairs = [("upsample", "upsample")]
    for flow in range(config.flows):
        theirs, ours = f"WN.{flow}", f"flows.{flow}.network"
        pairs += [(f"convinv.{flow}.conv.weight", f"flows.{flow}.mix")]
        pairs += [(f"{theirs}.{one}", f"{ours}.{other}") for one, other in _ONCE]
        for number in range(config.layers):
            pairs += [(f"{theirs}.{one}.{number}", f"{ours}.layers.{number}.{other}") for one, other in _EACH]
    return pairs


_ONCE = (("start", "start"), ("cond_layer", "condition"), ("end", "end"))
_EACH = (("in_layers", "conv"), ("res_skip_layers", "out"))


def recognises(source: Source) -> bool:
    """Whether there are flows, with a prefix or without."""
    state = source.state()
    names = layers_of(under(state, "waveglow.") or state)
    return {"upsample", "convinv.0.conv", "WN.0.start", "WN.0.in_layers.0"} <= names


FORMAT = Format(
    name="waveglow",
    title="WaveGlow",
    files=("waveglow_*.pt", "waveglow_*", "nvidia_waveglow*"),
    places=("model", "state_dict", ""),
    recognises=recognises,
    read=read,
    layers=each("upsample", "convinv.0.conv", "WN.0.start", "WN.0.in_layers.0"),
    clue=names_begin("convinv.0.", "WN.0."),
)

"""What the modules of a live network say about it: sizes, strides and dilations, which its tensors alone do not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

BLOCK = re.compile(r"(.+)\.(convs1|convs2|convs)\.\d+")
"""Names of the convolutions in a residual block of HiFi-GAN, the same in all projects up to what is around a layer."""


@dataclass(frozen=True, kw_only=True)
class Live:
    """A network of another project, as its own code has built it.

    Attributes
    ----------
    settings : dict
        What the project's files of settings would say.
    says_mel : bool
        Whether those of the mel are the network's own; otherwise they only agree with it.
    turned : bool
        Whether its `forward` takes (B, frames, bands) and returns (B, samples), not (B, bands, frames) and
        (B, 1, samples).
    condition : str, optional
        The argument of its `forward` that is a vector per utterance, (B, C, 1), where it needs one.
    prefix : str
        What stands before the names of its tensors in the project's files.
    subbands : bool
        Whether it makes sub-bands, (B, bands, samples), which something behind it joins.
    beside : dict of str to Tensor
        Tensors that the project's files have beside those of the module, whose values its `forward` does not need.
    """

    settings: dict[str, Any]
    says_mel: bool = False
    turned: bool = False
    condition: str | None = None
    prefix: str = ""
    subbands: bool = False
    beside: dict[str, Tensor] = field(default_factory=dict)


def layers_in(module: nn.Module) -> dict[str, nn.Conv1d | nn.ConvTranspose1d]:
    """Return the convolutions in a network by name, in its order."""
    return {name: one for name, one in module.named_modules() if isinstance(one, nn.Conv1d | nn.ConvTranspose1d)}


def hifigan_sizes(module: nn.Module) -> dict[str, Any] | None:
    """Read the sizes of a HiFi-GAN from its convolutions, under the names of `HiFiGANConfig`.

    Parameters
    ----------
    module : nn.Module
        A first convolution, then transposed convolutions and lists ``convs1`` and ``convs2``, or ``convs``, of each
        residual block, in the order in which they run, and a last convolution.

    Returns
    -------
    dict or None
        Also ``bias``, whether the last convolution has one; None where it is no such network.
    """
    layers = layers_in(module)
    plain = [(name, layer) for name, layer in layers.items() if isinstance(layer, nn.Conv1d)]
    ups = [layer for layer in layers.values() if isinstance(layer, nn.ConvTranspose1d)]
    blocks: dict[str, dict[str, list[nn.Conv1d]]] = {}
    for name, layer in plain:
        if found := BLOCK.match(name):
            blocks.setdefault(found[1], {}).setdefault(found[2], []).append(layer)
    outside = [layer for name, layer in plain if not BLOCK.match(name)]
    if not ups or len(outside) < 2 or not blocks or len(blocks) % len(ups):
        return None
    first = list(blocks.values())[: len(blocks) // len(ups)]
    convs = [block.get("convs1") or block.get("convs") or [] for block in first]
    heads = [layer for layer in outside[1:] if layer.out_channels == 1]
    if not all(convs) or not heads:
        return None
    return {
        "mel_bands": outside[0].in_channels,
        "channels": outside[0].out_channels,
        "rates": [up.stride[0] for up in ups],
        "rate_kernel_sizes": [up.kernel_size[0] for up in ups],
        "block": "1" if "convs1" in first[0] else "2",
        "kernel_sizes": [layers[0].kernel_size[0] for layers in convs],
        "dilations": [[layer.dilation[0] for layer in layers] for layers in convs],
        "bias": heads[-1].bias is not None,
    }


def fitting_mel(hop: int) -> dict[str, int]:
    """Return sizes of a transform that a mel of a hop can have, where nothing says which it has."""
    size = max(1024, 1 << math.ceil(math.log2(4 * max(hop, 1))))
    return {"sample_rate": 22050, "fft_size": size, "window_size": size, "hop": hop}


def attributes_of(config: Any) -> dict[str, Any]:
    """Return what a settings object of another project holds, as plain values."""
    if callable(to_dict := getattr(config, "to_dict", None)):
        config = to_dict()
    elif not isinstance(config, Mapping) and hasattr(config, "__dict__"):
        config = vars(config)
    return {str(name): value for name, value in config.items()} if isinstance(config, Mapping) else {}


def slope_of(module: nn.Module) -> float | None:
    """Return the slope of the first leaky ReLU that is a module of a network, or None where none is."""
    return next((one.negative_slope for one in module.modules() if isinstance(one, nn.LeakyReLU)), None)

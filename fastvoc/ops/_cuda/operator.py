"""An operator as a network of one layer or a few: what it refuses, and how it runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastvoc.ops._cuda.device import gpu
from fastvoc.ops._cuda.device import refuses as refuses_device
from fastvoc.ops._cuda.network import compiled
from fastvoc.ops._layout import in_layout_of
from fastvoc.ops._network import INPUT, Layer, frames_of, too_short
from fastvoc.ops._op import Slower
from fastvoc.ops._packing import packed
from fastvoc.ops._ragged import ragged_lengths

REACH = 2**31
"""Elements of one item that 32-bit offsets inside the kernels can reach."""


def refuses(x: Tensor, layers: Sequence[Layer]) -> str | None:
    """Return why the kernels cannot run these layers on `x`, as a sentence, or None."""
    reason = refuses_device(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    if x.shape[2] == 0:
        return "x has no frames"
    for layer in layers:
        span = layer.dilation * (layer.weight.shape[2] - 1)
        if layer.kind == "conv1d" and max(layer.padding) > span:
            return f"padding is {layer.padding}; these kernels pad up to dilation * (taps - 1), {span} frames"
    frames = frames_of(layers, x.shape[2])
    channels = {INPUT: x.shape[1]} | {number: layer.out_channels for number, layer in enumerate(layers)}
    if any(channels[number] * count >= REACH for number, count in frames.items()):
        return f"an item has {REACH} elements or more"
    network = compiled(layers, gpu(x.device), x.dtype)
    return (network if isinstance(network, str) else None) or too_short(layers, x.shape[2]) or reason


def run(layers: Sequence[Layer], x: Tensor, other: Tensor | None = None) -> Tensor:
    """Run layers that are not refused; weights are packed on every call, unless somebody keeps them.

    Parameters
    ----------
    layers : sequence of Layer
    x : Tensor, shape (B, C, T)
    other : Tensor, shape (B, C_out, T_out), optional
        The second input.

    Returns
    -------
    Tensor, shape (B, C_out, T_out)
        In the dtype and memory order of `x`.
    """
    network = compiled(layers, gpu(x.device), x.dtype)
    if isinstance(network, str):
        raise NotImplementedError(network)
    weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
    own = packed(("cuda", network), lambda *_: network.pack(layers), *weights)
    y = network.run(own, x, dtype=x.dtype, other=other, lengths=ragged_lengths(x.shape[2]))
    return in_layout_of(x, y)

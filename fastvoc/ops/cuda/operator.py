"""An operator as a network of one layer or a few: what it refuses, and how it runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from fastvoc.ops.cuda.device import gpu, refuses
from fastvoc.ops.cuda.network import Network, compiled
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.network import INPUT, Layer, frames_of, too_short
from fastvoc.ops.op import Prepared, Slower, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_lengths

REACH = 2**31
"""Elements of one item that 32-bit offsets inside the kernels can reach."""


def prepare(layers: Sequence[Layer], x: Tensor, other: Tensor | None = None) -> Prepared:
    """Return what runs layers on `x`, or why the kernels cannot.

    Parameters
    ----------
    layers : sequence of Layer
    x : Tensor, shape (B, C, T)
    other : Tensor, shape (B, C_out, T_out), optional
        The second input.

    Returns
    -------
    callable or str
        The result has shape (B, C_out, T_out), and the dtype and memory order of `x`.
    """
    reason = refuses(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    network = network_for(layers, x)
    return network if isinstance(network, str) else prepared(partial(_run, network, layers, x, other), reason)


def network_for(layers: Sequence[Layer], x: Tensor) -> Network | str:
    """Return layers compiled for `x`, on a device and in a dtype that the kernels take, or why they cannot run."""
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
    return network if isinstance(network, str) else too_short(layers, x.shape[2]) or network


def _run(network: Network, layers: Sequence[Layer], x: Tensor, other: Tensor | None) -> Tensor:
    """Run a network; weights are packed on every call, unless somebody keeps them (`packing.keep`)."""
    weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
    own = packed(("cuda", network), lambda *_: network.pack(layers), *weights)
    y = network.run(own, x, dtype=x.dtype, other=other, lengths=ragged_lengths(x.shape[2]))
    return in_layout_of(x, y)

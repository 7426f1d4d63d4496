"""An operator as a network of one layer or a few: what it refuses, and how it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from fastvoc.ops.cuda.device import gpu, refuses
from fastvoc.ops.cuda.network import Network, Packing, Run, compiled
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.network import INPUT, Layer, frames_of, too_short
from fastvoc.ops.op import Prepared, Repeatable, Slower, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_lengths

C = TypeVar("C")

REACH = 2**31
"""Elements of one item that 32-bit offsets inside the kernels can reach."""


class Operands(NamedTuple):
    """The tensors of a call."""

    weights: list[tuple[Tensor, Tensor | None]]
    """Of each layer, with its bias."""
    x: Tensor
    other: Tensor | None = None
    """The second input, shape (B, C_out, T_out)."""


def prepare(call: C, layers_of: Callable[[C], list[Layer]], operands: Callable[[C], Operands]) -> Prepared:
    """Return what runs a call, or why the kernels cannot.

    Parameters
    ----------
    call : Call
    layers_of : callable
        Returns what the call is as layers.
    operands : callable
        Returns the tensors of the call, the weights in the order of the layers.

    Returns
    -------
    callable or str
        The result has shape (B, C_out, T_out), and the dtype and memory order of `x`.
    """
    x = operands(call).x
    reason = refuses(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    network = network_for(layers_of(call), x)
    if isinstance(network, str):
        return network
    return prepared(Repeatable(_Way(network, layers_of, operands)), reason)


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


class _Way(Generic[C]):
    """What runs the calls of a signature; weights are packed on every call, unless somebody keeps them."""

    def __init__(
        self, network: Network, layers_of: Callable[[C], list[Layer]], operands: Callable[[C], Operands]
    ) -> None:
        self._network, self._layers_of, self._operands = network, layers_of, operands
        self._packing: Packing | None = None
        self._run: Run | None = None

    def __call__(self, call: C) -> Tensor:
        weights, x, other = self._operands(call)

        def pack(*_: Tensor) -> Tensor:
            if self._packing is None:
                self._packing = Packing(self._network, self._layers_of(call))
            return self._packing(weights)

        own = packed(
            ("cuda", self._network), pack, *(tensor for pair in weights for tensor in pair if tensor is not None)
        )
        lengths = ragged_lengths(x.shape[2])
        if lengths is not None:
            return in_layout_of(x, self._network.run(own, x, dtype=x.dtype, other=other, lengths=lengths))
        if self._run is None:
            self._run = Run(self._network, x, x.dtype, other)
        return in_layout_of(x, self._run(own, x, other=other))

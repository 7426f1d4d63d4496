"""The gradients of `conv1d` and `upsample` on a GPU.

That of an input is a convolution too, a network of one layer, and a kernel that does what is left; those of weight and
bias are products over time, in parts that are added in order: twice the same call gives twice the same bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc import native
from fastvoc.ops.cuda.device import PRECISIONS, Template, gpu, kernels, memory, pointer, refuses, stream
from fastvoc.ops.cuda.network import Network, Packing, Run
from fastvoc.ops.cuda.operator import network_for
from fastvoc.ops.layout import empty_like_layout, in_layout_of, to_channels_last
from fastvoc.ops.network import INPUT, Layer, describe
from fastvoc.ops.op import Prepared, Repeatable, Slower, prepared

REACH = 2**30
"""Elements of one item, with its padding, that 32-bit offsets inside the kernels can reach."""

MOST_ITEMS = 65535
"""Of a batch: the second extent of a grid."""

MOST_WEIGHTS, MOST_TAPS = 2**24, 2**12
"""Blocks are counted in the other extents: elements of a weight; its taps, or frames of a stride."""


class Adjoint(NamedTuple):
    """What makes the gradient of a layer's padded input out of that of its result."""

    weight: tuple[int, int, int]
    """Shape of the weight of the convolution."""
    dilation: int
    padding: tuple[int, int]
    frames: int
    """Of the gradient as the convolution reads it."""
    before: int
    """Frames of zeros in front of it, or of its own that it does not need if negative."""

    def layer(self, weight: Tensor) -> Layer:
        """Return the layer of the network."""
        return Layer(kind="conv1d", input=INPUT, weight=weight, bias=None, padding=self.padding, dilation=self.dilation)


class Gradient(Protocol):
    """A call of the gradient of a layer."""

    @property
    def grad(self) -> Tensor:
        """Of the layer's result, shape (B, C_out, T_out)."""

    @property
    def x(self) -> Tensor:
        """Its input, shape (B, C, T)."""

    @property
    def weight(self) -> Tensor:
        """Its weight."""

    @property
    def needs(self) -> tuple[bool, bool, bool]:
        """Whether the gradients of input, weight and bias are wanted."""


def prepare(call: Gradient, layer: Layer) -> Prepared:
    """Return what differentiates a layer, or why the kernels cannot.

    Parameters
    ----------
    call : Gradient
        With `grad` of shape (B, C_out, T_out) and `x` of shape (B, C, T).
    layer : Layer
        What is differentiated.

    Returns
    -------
    callable or str
        The results are the gradients of input, weight and bias; those that are not wanted are empty.
    """
    grad, x, needs = call.grad, call.x, call.needs
    reason = refuses(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    if x.shape[2] == 0:
        return "x has no frames"
    if x.shape[0] > MOST_ITEMS:
        return f"the batch has more than {MOST_ITEMS} items"
    if layer.weight.numel() > MOST_WEIGHTS or max(layer.weight.shape[2], layer.stride) > MOST_TAPS:
        return f"a weight of shape {tuple(layer.weight.shape)} with stride {layer.stride} is too large"
    reach = sum(layer.padding) + layer.dilation * layer.weight.shape[2] + layer.stride + 32
    if any((tensor.shape[1] + 8) * (tensor.shape[2] + reach) >= REACH for tensor in (x, grad)):
        return f"an item has {REACH} elements or more"
    adjoint: Adjoint | None = None
    network: Network | str | None = None
    if needs[0]:
        adjoint = _adjoint(layer, x.shape[2])
        read = grad.new_empty(1).expand(grad.shape[0], adjoint.weight[1], adjoint.frames)
        network = network_for([adjoint.layer(_stand_in(layer.weight, adjoint.weight))], read)
    if isinstance(network, str):
        return network
    # of the weight only the shape is kept
    settings = replace(layer, weight=_stand_in(layer.weight, layer.weight.shape), bias=None)
    return prepared(Repeatable(_Way(settings, adjoint, network)), reason)


def _stand_in(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return what has a shape, and the dtype and device of a weight, but no memory."""
    return weight.detach().new_empty(1).expand(shape)


class _Way:
    """What runs the calls of a signature; all but the tensors is computed at the first one."""

    def __init__(self, layer: Layer, adjoint: Adjoint | None, network: Network | None) -> None:
        self._layer, self._adjoint, self._network = layer, adjoint, network
        self._products: _Products | None = None
        self._packing: Packing | None = None
        self._run: Run | None = None
        self._rest: Template | None = None

    def __call__(self, call: Gradient) -> tuple[Tensor, Tensor, Tensor]:
        grad, x, needs, layer = call.grad, call.x, call.needs, self._layer
        if needs[0] and layer.kind == "conv1d":
            grad = to_channels_last(grad)  # once, for all kernels
        if grad.numel() == 0:
            return (
                torch.empty_like(x) if needs[0] else x.new_empty(0),
                x.new_zeros(layer.weight.shape) if needs[1] else x.new_empty(0),
                x.new_zeros(layer.out_channels) if needs[2] else x.new_empty(0),
            )
        grad_weight = x.new_empty(layer.weight.shape) if needs[1] else None
        grad_bias = x.new_empty(layer.out_channels) if needs[2] else None
        if needs[1] or needs[2]:
            if self._products is None:
                self._products = _Products(grad, x, layer)
            self._products(grad, x, grad_weight, grad_bias)
        return (
            self._input_gradient(grad, x, call.weight) if needs[0] else x.new_empty(0),
            x.new_empty(0) if grad_weight is None else grad_weight,
            x.new_empty(0) if grad_bias is None else grad_bias,
        )

    def _input_gradient(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        layer, adjoint, network = self._layer, self._adjoint, self._network
        assert adjoint is not None and network is not None
        if layer.kind == "upsample":
            stride = layer.stride
            inner, out, taps = weight.shape
            behind = adjoint.frames * stride - adjoint.before - grad.shape[2]
            rows = F.pad(grad.transpose(1, 2), (0, 0, adjoint.before, behind)).contiguous()
            read = rows.view(x.shape[0], adjoint.frames, stride * out).transpose(1, 2)
            phases = F.pad(weight, (0, adjoint.weight[2] * stride - taps)).view(inner, out, adjoint.weight[2], stride)
            weight = phases.permute(0, 3, 1, 2).reshape(adjoint.weight)
        else:
            read = grad[:, :, -adjoint.before : adjoint.frames - adjoint.before]
            weight = weight.transpose(0, 1).flip(2)
        if self._packing is None:
            self._packing = Packing(network, [adjoint.layer(weight)])
        if self._run is None:
            self._run = Run(network, read, x.dtype, None)
        padded = self._run(self._packing([(weight, None)]), read)
        if layer.slope == 1.0 and padded.shape == x.shape:
            return in_layout_of(x, padded)
        y = empty_like_layout(x, x.shape[1], x.shape[2])
        if self._rest is None:
            self._rest = _rest(layer, x, y, padded)
        _, library = native.library()
        with stream(x.device) as current:
            code = library.fastvoc_cuda_input_gradient_run(
                kernels(x.device), current, self._rest(padded=padded, x=x, y=y)
            )
        native.check("cuda", code)
        return y


def _adjoint(layer: Layer, frames: int) -> Adjoint:
    (left, right), taps = layer.padding, layer.weight.shape[2]
    if layer.kind == "upsample":
        # dx[i, s] = sum_ok w[i, o, k] g[o, s stride + k - left]: rows of `stride` frames side by side, and no stride
        inner, out = layer.weight.shape[:2]
        rows = -(-taps // layer.stride)
        return Adjoint((inner, layer.stride * out, rows), 1, (0, 0), frames + rows - 1, left)
    # da[i, s] = sum_ok w[o, i, k] g[o, s + left - k d]; copies of x that padding made have gradients of their own
    out, inner = layer.weight.shape[:2]
    span = layer.dilation * (taps - 1)
    copies = layer.padding_mode != "zero"
    before, behind = (span, span) if copies else (span - left, span - right)
    read = frames + left + right - span + min(before, 0) + min(behind, 0)
    return Adjoint((inner, out, taps), layer.dilation, (max(before, 0), max(behind, 0)), read, min(before, 0))


def _rest(layer: Layer, x: Tensor, y: Tensor, padded: Tensor) -> Template:
    """Describe what is left of the gradient of an input, whose padding and slope the convolution does not know."""
    _, library = native.library()
    copies = layer.kind == "conv1d" and layer.padding_mode != "zero"
    return Template(
        "fastvoc_cuda_input_gradient *",
        precision=getattr(library, f"FASTVOC_{PRECISIONS[x.dtype]}"),
        padding_mode=getattr(library, f"FASTVOC_{(layer.padding_mode if copies else 'zero').upper()}"),
        batch=x.shape[0],
        channels=x.shape[1],
        frames=x.shape[2],
        left=layer.padding[0] if copies else 0,
        right=layer.padding[1] if copies else 0,
        slope=layer.slope,
        padded_strides=padded.stride(),
        x_strides=x.stride(),
        y_strides=y.stride(),
    )


class _Products:
    """Makes the gradients of weight and bias, for tensors like these."""

    def __init__(self, grad: Tensor, x: Tensor, layer: Layer) -> None:
        ffi, library = native.library()
        self._description = describe([layer], precision=PRECISIONS[x.dtype])
        self._device = ffi.new("fastvoc_gpu *", gpu(x.device)._asdict())
        self._call = Template(
            "fastvoc_cuda_weight_gradient *",
            precision=getattr(library, f"FASTVOC_{PRECISIONS[x.dtype]}"),
            batch=x.shape[0],
            frames=x.shape[2],
            x_strides=x.stride(),
            grad_strides=grad.stride(),
        )
        self._size: int | None = None

    def __call__(self, grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        _, library = native.library()
        call, layers = self._call(x=x, grad=grad, weight=weight, bias=bias), self._description.layers
        if self._size is None:
            self._size = library.fastvoc_cuda_weight_gradient_workspace_size(layers, self._device, call)
        workspace = memory(self._size, x.device)
        with stream(x.device) as current:
            code = library.fastvoc_cuda_weight_gradient_run(
                layers, self._device, kernels(x.device), pointer(workspace), current, call
            )
        native.check("cuda", code)

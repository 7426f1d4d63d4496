"""The Triton kernels of `downsample` and of its gradient: checks, memory, launches."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.ops._layout import empty_channels_last, empty_like_layout, to_channels_last
from fastvoc.ops._packing import packed
from fastvoc.ops._triton import refuses as refuses_tensors
from fastvoc.ops._triton.convolution import convolution
from fastvoc.ops._triton.launch import REACH
from fastvoc.ops._triton.packing import block_diagonal, merged_groups, phases_first, taps_first
from fastvoc.ops._triton.tiles import shape_of, slower
from fastvoc.ops._triton.weight_gradient import weight_gradient

FEW = 64
"""A step of the loop multiplies as many channels at most; where a group has fewer, it goes through several taps."""


def refuses(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    taps = weight.shape[2]
    _, width, columns = _widths(weight, groups)
    return _refuses_size(x, weight.shape[0], (x.shape[2] + left + right - taps) // stride + 1) or slower(
        shape_of("downsample", taps * width if width < FEW else width, columns, taps, 1, x)
    )


def downsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> Tensor:
    """Run the kernel, a convolution with a hop."""
    merged, width, _ = _widths(weight, groups)

    def pack(weight: Tensor) -> Tensor:
        return taps_first(block_diagonal(weight, groups, merged))

    y = empty_channels_last(x, weight.shape[0], (x.shape[2] + left + right - weight.shape[2]) // stride + 1)
    convolution(
        x,
        packed(f"downsample in {groups} groups", pack, weight),
        bias,
        y,
        name="downsample",
        dilation=1,
        shift=left,
        hop=stride,
        finish="none" if slope == 1.0 else "activate",
        out_slope=slope,
        flat=width < FEW,
        fold=True,
    )()
    return y


def refuses_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: int,
    left: int,
    right: int,
    groups: int,
    slope: float,
    needs: list[bool],
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    rounds = -(-weight.shape[2] // stride)
    _, width, columns = _widths(weight, groups)
    return _refuses_size(x, *grad.shape[1:]) or slower(
        shape_of("downsample_backward", rounds * columns if columns < FEW else columns, stride * width, rounds, 1, x)
    )


def downsample_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: int,
    left: int,
    right: int,
    groups: int,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, a transposed convolution, and one for weight and bias."""
    merged, _, columns = _widths(weight, groups)
    g = to_channels_last(grad) if slope == 1.0 else _gated(grad, y, slope)
    grad_x = x.new_empty(0)
    if needs[0]:
        grad_x = empty_like_layout(x, x.shape[1], x.shape[2])
        convolution(  # dx[i, t stride + k - left] += w[o, i, k] g[o, t]
            g,
            phases_first(stride)(block_diagonal(weight, groups, merged)),
            None,
            grad_x,
            name="downsample_backward",
            dilation=-1,
            shift=0,
            phases=stride,
            crop=left,
            flat=columns < FEW,
            fold=True,
        )()
    grad_weight = x.new_empty(weight.shape) if needs[1] else None
    grad_bias = x.new_empty(weight.shape[0]) if needs[2] else None
    weight_gradient(  # dw[o, i, k] = sum_t g[o, t] x[i, t stride + k - left]; db[o] = sum_t g[o, t]
        x,
        g,
        grad_weight,
        grad_bias,
        taps=weight.shape[2],
        dilation=1,
        shift=left,
        hop=stride,
        groups=groups,
        merged=merged,
        flat=True,
    )
    none = x.new_empty(0)
    return grad_x, none if grad_weight is None else grad_weight, none if grad_bias is None else grad_bias


def _gated(grad: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return the gradient behind the leaky ReLU, channels-last.

    One pass writes it for all that follows. Kernels that gate while they read would read `y` beside `grad` for every
    tap, and keep loads from going to the matrix units as they are.
    """
    g = empty_channels_last(grad, *grad.shape[1:])
    torch.ops.aten.leaky_relu_backward.grad_input(grad, y, slope, True, grad_input=g)
    return g


def _widths(weight: Tensor, groups: int) -> tuple[int, int, int]:
    """Return how many groups a matrix product covers, and how many channels and results it then has."""
    out, channels = weight.shape[0] // groups, weight.shape[1]
    merged = merged_groups(groups, min(out, channels))
    return merged, merged * channels, merged * out


def _refuses_size(x: Tensor, out: int, frames: int) -> str | None:
    batch = x.shape[0]
    if max(x.numel(), batch * out * frames) >= REACH:  # the frames of all items are one sequence
        return f"a batch has {REACH} elements or more"
    return refuses_tensors(x, (out, frames))

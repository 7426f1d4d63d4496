"""The Triton kernels of `strided_conv1d` and of its gradient: memory and launches."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fastvoc.ops.layout import empty_channels_last, to_channels_last
from fastvoc.ops.op import Prepared, Repeatable, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_lengths
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward
from fastvoc.ops.triton import Launches, refuses
from fastvoc.ops.triton.convolution import convolve
from fastvoc.ops.triton.launch import REACH
from fastvoc.ops.triton.packing import block_diagonal, merged_groups, phases_first, taps_first
from fastvoc.ops.triton.tiles import shape_of, slower
from fastvoc.ops.triton.weight_gradient import weight_gradient

FEW = 64
"""A step of the loop multiplies as many channels at most; where a group has fewer, it goes through several taps."""


def prepare(call: StridedConv1d) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    taps = call.weight.shape[2]
    _, width, columns = _widths(call.weight, call.groups)
    reason = _refuses_size(call.x, *call.shape[1:]) or slower(
        shape_of("strided_conv1d", taps * width if width < FEW else width, columns, taps, 1, call.x)
    )
    return prepared(Repeatable(partial(_run, Launches())), reason)


def prepare_backward(call: StridedConv1dBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    rounds = -(-call.weight.shape[2] // call.stride)
    _, width, columns = _widths(call.weight, call.groups)
    depth = rounds * columns if columns < FEW else columns
    reason = _refuses_size(call.x, *call.grad.shape[1:]) or slower(
        shape_of("strided_conv1d_backward", depth, call.stride * width, rounds, 1, call.x)
    )
    return prepared(Repeatable(partial(_run_backward, Launches())), reason)


def _run(launches: Launches, call: StridedConv1d) -> Tensor:
    """Run the kernel, a convolution with a hop."""
    groups, slope = call.groups, call.slope
    merged, width, _ = _widths(call.weight, groups)

    def pack(weight: Tensor) -> Tensor:
        return taps_first(block_diagonal(weight, groups, merged))

    y = call.empty()
    convolve(
        launches,
        call.x,
        packed(f"strided_conv1d in {groups} groups", pack, call.weight),
        call.bias,
        y,
        name="strided_conv1d",
        dilation=1,
        shift=call.left,
        hop=call.stride,
        finish="none" if slope == 1.0 else "activate",
        out_slope=slope,
        flat=width < FEW,
        fold=True,
    )
    return y


def _run_backward(launches: Launches, call: StridedConv1dBackward) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, a transposed convolution, and one for weight and bias."""
    stride, groups, slope = call.stride, call.groups, call.slope
    merged, _, columns = _widths(call.weight, groups)
    g = to_channels_last(call.grad) if slope == 1.0 else _gated(call.grad, call.y, slope)
    grad_x, grad_weight, grad_bias = call.empty()
    if call.needs[0]:
        convolve(  # dx[i, t stride + k - left] += w[o, i, k] g[o, t]
            launches,
            g,
            phases_first(stride)(block_diagonal(call.weight, groups, merged)),
            None,
            grad_x,
            name="strided_conv1d_backward",
            dilation=-1,
            shift=0,
            phases=stride,
            crop=call.left,
            flat=columns < FEW,
            fold=True,
        )
    weight_gradient(  # dw[o, i, k] = sum_t g[o, t] x[i, t stride + k - left]; db[o] = sum_t g[o, t]
        launches,
        call.x,
        g,
        grad_weight if call.needs[1] else None,
        grad_bias if call.needs[2] else None,
        taps=call.weight.shape[2],
        dilation=1,
        shift=call.left,
        hop=stride,
        groups=groups,
        merged=merged,
        flat=True,
    )
    return grad_x, grad_weight, grad_bias


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
    return refuses(x, (out, frames), items=1 if ragged_lengths(x.shape[2]) is None else batch)

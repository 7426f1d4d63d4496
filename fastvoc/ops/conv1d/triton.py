"""The Triton kernels of `conv1d` and of its gradient: memory and launches."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.op import Prepared, Repeatable, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.triton import Launches, refuses
from fastvoc.ops.triton.convolution import convolve
from fastvoc.ops.triton.packing import taps_first, taps_first_transposed
from fastvoc.ops.triton.tiles import shape_of, slower
from fastvoc.ops.triton.weight_gradient import weight_gradient


def prepare(call: Conv1d) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    out, channels, taps = call.weight.shape
    reason = refuses(call.x, (out, call.shape[2]), beside=call.residual) or slower(
        shape_of("conv1d", channels, out, taps, call.dilation, call.x)
    )
    return prepared(Repeatable(partial(_run, Launches())), reason)


def prepare_backward(call: Conv1dBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    out, channels, taps = call.weight.shape
    reason = refuses(call.x, (call.grad.shape[1], call.grad.shape[2])) or slower(
        shape_of("conv1d_backward", out, channels, taps, call.dilation, call.x)
    )
    return prepared(Repeatable(partial(_run_backward, Launches())), reason)


def _run(launches: Launches, call: Conv1d) -> Tensor:
    """Run the kernel; the weight is packed on every call, unless somebody keeps it (`packing.keep`)."""
    y = call.empty()
    convolve(
        launches,
        call.x,
        packed("conv1d", taps_first, call.weight),
        call.bias,
        y,
        name="conv1d",
        dilation=call.dilation,
        shift=call.left,
        padding=call.padding_mode,
        slope=call.slope,
        beside=call.residual,
        finish="tanh" if call.tanh else "none",
    )
    return y


def _run_backward(launches: Launches, call: Conv1dBackward) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, one for weight and bias."""
    x, dilation, slope = call.x, call.dilation, call.slope
    grad = in_layout_of(x, call.grad)
    grad_x, grad_weight, grad_bias = call.empty()
    if call.needs[0]:
        copied = call.padding_mode != "zero" and (call.left or call.right)
        convolve(  # da[i, s] = sum_ok w[o, i, k] g[o, s + left - k d], for each copy of s; dx = da (1 or slope)
            launches,
            grad,
            taps_first_transposed(call.weight),
            None,
            grad_x,
            name="conv1d_backward",
            dilation=-dilation,
            shift=-call.left,
            copies=call.padding_mode if copied else "none",
            padded=(call.left, call.right),
            beside=x if slope != 1.0 else None,
            role="gate",
            out_slope=slope,
        )
    weight_gradient(  # dw[o, i, k] = sum_t g[o, t] a[i, t + k d - left]; db[o] = sum_t g[o, t]
        launches,
        x,
        grad,
        grad_weight if call.needs[1] else None,
        grad_bias if call.needs[2] else None,
        taps=call.weight.shape[2],
        dilation=dilation,
        shift=call.left,
        padding=call.padding_mode,
        activated="shifted",
        slope=slope,
    )
    return grad_x, grad_weight, grad_bias

"""The Triton kernels of `upsample` and of its gradient: memory and launches."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.op import Prepared, Repeatable, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.triton import Launches, refuses
from fastvoc.ops.triton.convolution import convolve
from fastvoc.ops.triton.packing import phases_first, taps_first
from fastvoc.ops.triton.tiles import shape_of, slower
from fastvoc.ops.triton.weight_gradient import weight_gradient
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward


def prepare(call: Upsample) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    channels, out, taps = call.weight.shape
    reason = refuses(call.x, (out, call.shape[2])) or slower(
        shape_of("upsample", channels, call.stride * out, -(-taps // call.stride), 1, call.x)
    )
    return prepared(Repeatable(partial(_run, Launches())), reason)


def prepare_backward(call: UpsampleBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    channels, out, taps = call.weight.shape
    reason = refuses(call.x, (call.grad.shape[1], call.grad.shape[2])) or slower(
        shape_of("upsample_backward", out, channels, taps, 1, call.x)
    )
    return prepared(Repeatable(partial(_run_backward, Launches())), reason)


def _run(launches: Launches, call: Upsample) -> Tensor:
    """Run the kernel: frame ``q stride + r - left`` adds up tap ``r + i stride`` of row ``q - i``, for every `i`.

    Each row of the matrix product makes `stride` neighbouring frames, so that channels-last results are contiguous.
    """
    y = call.empty()
    convolve(
        launches,
        call.x,
        packed(f"upsample by {call.stride}", phases_first(call.stride), call.weight),
        call.bias,
        y,
        name="upsample",
        dilation=-1,
        shift=0,
        phases=call.stride,
        crop=call.left,
        slope=call.slope,
    )
    return y


def _run_backward(launches: Launches, call: UpsampleBackward) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, a convolution with a hop, and one for weight and bias."""
    x, stride, slope = call.x, call.stride, call.slope
    grad = in_layout_of(x, call.grad)
    grad_x, grad_weight, grad_bias = call.empty()
    if call.needs[0]:
        convolve(  # du[i, s] = sum_ok w[i, o, k] g[o, s stride + k - left]; dx = du (1 or slope)
            launches,
            grad,
            taps_first(call.weight),
            None,
            grad_x,
            name="upsample_backward",
            dilation=1,
            shift=call.left,
            hop=stride,
            beside=x if slope != 1.0 else None,
            role="gate",
            out_slope=slope,
        )
    weight_gradient(  # dw[i, o, k] = sum_s u[i, s] g[o, s stride + k - left]; db[o] = sum_t g[o, t]
        launches,
        grad,
        x,
        grad_weight if call.needs[1] else None,
        grad_bias if call.needs[2] else None,
        taps=call.weight.shape[2],
        dilation=1,
        shift=call.left,
        hop=stride,
        activated="fixed",
        biased="shifted",
        slope=slope,
    )
    return grad_x, grad_weight, grad_bias

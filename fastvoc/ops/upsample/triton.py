"""The Triton kernels of `upsample` and of its gradient: checks, memory, launches."""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops._layout import empty_like_layout, in_layout_of
from fastvoc.ops._packing import packed
from fastvoc.ops._triton import refuses as refuses_tensors
from fastvoc.ops._triton.convolution import convolution
from fastvoc.ops._triton.packing import phases_first, taps_first
from fastvoc.ops._triton.tiles import shape_of, slower
from fastvoc.ops._triton.weight_gradient import weight_gradient


def refuses(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    frames = (x.shape[2] - 1) * stride + weight.shape[2] - left - right
    channels, out, taps = weight.shape
    return refuses_tensors(x, (out, frames)) or slower(
        shape_of("upsample", channels, stride * out, -(-taps // stride), 1, x)
    )


def upsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> Tensor:
    """Run the kernel: frame ``q stride + r - left`` adds up tap ``r + i stride`` of row ``q - i``, for every `i`.

    Each row of the matrix product makes `stride` neighbouring frames, so that channels-last results are contiguous.
    """
    y = empty_like_layout(x, weight.shape[1], (x.shape[2] - 1) * stride + weight.shape[2] - left - right)
    convolution(
        x,
        packed(f"upsample by {stride}", phases_first(stride), weight),
        bias,
        y,
        name="upsample",
        dilation=-1,
        shift=0,
        phases=stride,
        crop=left,
        slope=slope,
    )()
    return y


def refuses_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    channels, out, taps = weight.shape
    return refuses_tensors(x, (grad.shape[1], grad.shape[2])) or slower(
        shape_of("upsample_backward", out, channels, taps, 1, x)
    )


def upsample_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, a convolution with a hop, and one for weight and bias."""
    grad = in_layout_of(x, grad)
    grad_x = x.new_empty(0)
    if needs[0]:
        grad_x = empty_like_layout(x, x.shape[1], x.shape[2])
        convolution(  # du[i, s] = sum_ok w[i, o, k] g[o, s stride + k - left]; dx = du (1 or slope)
            grad,
            taps_first(weight),
            None,
            grad_x,
            name="upsample_backward",
            dilation=1,
            shift=left,
            hop=stride,
            beside=x if slope != 1.0 else None,
            role="gate",
            out_slope=slope,
        )()
    grad_weight = x.new_empty(weight.shape) if needs[1] else None
    grad_bias = x.new_empty(weight.shape[1]) if needs[2] else None
    weight_gradient(  # dw[i, o, k] = sum_s u[i, s] g[o, s stride + k - left]; db[o] = sum_t g[o, t]
        grad,
        x,
        grad_weight,
        grad_bias,
        taps=weight.shape[2],
        dilation=1,
        shift=left,
        hop=stride,
        activated="fixed",
        biased="shifted",
        slope=slope,
    )
    none = x.new_empty(0)
    return grad_x, none if grad_weight is None else grad_weight, none if grad_bias is None else grad_bias

"""The Triton kernels of `conv1d` and of its gradient: checks, memory, launches."""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops._layout import empty_like_layout, in_layout_of
from fastvoc.ops._packing import packed
from fastvoc.ops._triton import refuses as refuses_tensors
from fastvoc.ops._triton.convolution import convolution
from fastvoc.ops._triton.packing import taps_first, taps_first_transposed
from fastvoc.ops._triton.tiles import shape_of, slower
from fastvoc.ops._triton.weight_gradient import weight_gradient


def refuses(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    out, channels, taps = weight.shape
    frames = x.shape[2] + left + right - dilation * (taps - 1)
    return refuses_tensors(x, (out, frames)) or slower(shape_of("conv1d", channels, out, taps, dilation, x))


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> Tensor:
    """Run the kernel; the weight is packed on every call, unless somebody keeps it (`packing.keep`)."""
    y = empty_like_layout(x, weight.shape[0], x.shape[2] + left + right - dilation * (weight.shape[2] - 1))
    convolution(
        x,
        packed("conv1d", taps_first, weight),
        bias,
        y,
        name="conv1d",
        dilation=dilation,
        shift=left,
        padding=padding_mode,
        slope=slope,
        beside=residual,
        finish="tanh" if tanh else "none",
    )()
    return y


def refuses_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    out, channels, taps = weight.shape
    return refuses_tensors(x, (grad.shape[1], grad.shape[2])) or slower(
        shape_of("conv1d_backward", out, channels, taps, dilation, x)
    )


def conv1d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels: one for the input, one for weight and bias."""
    grad = in_layout_of(x, grad)
    grad_x = x.new_empty(0)
    if needs[0]:
        grad_x = empty_like_layout(x, x.shape[1], x.shape[2])
        convolution(  # da[i, s] = sum_ok w[o, i, k] g[o, s + left - k d], for each copy of s; dx = da (1 or slope)
            grad,
            taps_first_transposed(weight),
            None,
            grad_x,
            name="conv1d_backward",
            dilation=-dilation,
            shift=-left,
            copies=padding_mode if padding_mode != "zero" and (left or right) else "none",
            padded=(left, right),
            beside=x if slope != 1.0 else None,
            role="gate",
            out_slope=slope,
        )()
    grad_weight = x.new_empty(weight.shape) if needs[1] else None
    grad_bias = x.new_empty(weight.shape[0]) if needs[2] else None
    weight_gradient(  # dw[o, i, k] = sum_t g[o, t] a[i, t + k d - left]; db[o] = sum_t g[o, t]
        x,
        grad,
        grad_weight,
        grad_bias,
        taps=weight.shape[2],
        dilation=dilation,
        shift=left,
        padding=padding_mode,
        activated="shifted",
        slope=slope,
    )
    none = x.new_empty(0)
    return grad_x, none if grad_weight is None else grad_weight, none if grad_bias is None else grad_bias

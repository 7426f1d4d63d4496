"""The definition of `conv1d`, and of its gradient, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops._layout import in_layout_of


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
    """Leaky ReLU, pad, convolve, add bias, add residual, tanh."""
    a, native = _pad(
        _activate(x, slope), left, right, padding_mode
    )  # a[t] = u[t - left], u = max(x, 0) + slope min(x, 0)
    y = F.conv1d(a, weight, bias, dilation=dilation, padding=native)  # y[o, t] = b[o] + sum_ik w[o, i, k] a[i, t + k d]
    y = y if residual is None else y + residual  # y <- y + r
    y = torch.tanh(y) if tanh else y  # y <- tanh y
    return in_layout_of(x, y)


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
    """Gradients for x, weight and bias, from the gradient for the convolution's result; empty where not needed."""
    a, native = _pad(_activate(x, slope), left, right, padding_mode)
    grad_a, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, a, weight, [weight.shape[0]], [1], [native], [dilation], False, [0], 1, needs
    )  # dw[o, i, k] = sum_t g[o, t] a[i, t + k d]; db[o] = sum_t g[o, t]; da[i, s] = sum_ok w[o, i, k] g[o, s - k d]
    grad_x = x.new_empty(0)
    if needs[0]:
        if native == 0 and (left or right):
            grad_a = _unpad(
                grad_a, _activate(x, slope), left, right, padding_mode
            )  # each copy gives back to its source
        if slope != 1.0:
            grad_a = torch.ops.aten.leaky_relu_backward(grad_a, x, slope, False)  # dx = du (1 if x > 0 else slope)
        grad_x = in_layout_of(x, grad_a)
    return (
        grad_x,
        grad_weight.contiguous() if needs[1] else x.new_empty(0),
        grad_bias if needs[2] else x.new_empty(0),
    )


_ADJOINTS = {
    "reflect": torch.ops.aten.reflection_pad1d_backward,
    "replicate": torch.ops.aten.replication_pad1d_backward,
}


def _activate(x: Tensor, slope: float) -> Tensor:
    return x if slope == 1.0 else F.leaky_relu(x, slope)


def _pad(x: Tensor, left: int, right: int, padding_mode: str) -> tuple[Tensor, int]:
    """Return the padded input, and the zeros on each side that are left to the convolution itself."""
    if padding_mode == "zero":
        return (x, left) if left == right else (F.pad(x, (left, right)), 0)
    return (F.pad(x, (left, right), padding_mode) if left or right else x), 0


def _unpad(grad: Tensor, x: Tensor, left: int, right: int, padding_mode: str) -> Tensor:
    """Apply the adjoint of padding."""
    if padding_mode == "zero":
        return grad[..., left : left + x.shape[-1]]
    given_back: Tensor = _ADJOINTS[padding_mode](grad, x, [left, right])
    return given_back

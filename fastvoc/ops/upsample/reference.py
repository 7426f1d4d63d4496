"""The definition of `upsample`, and of its gradient, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops._layout import in_layout_of


def upsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> Tensor:
    """Leaky ReLU, transposed convolution, crop, add bias."""
    u = x if slope == 1.0 else F.leaky_relu(x, slope)  # u = max(x, 0) + slope min(x, 0)
    # y[o, t] = b[o] + sum_i sum_s w[i, o, t + left - s stride] u[i, s], for t in [0, (T - 1) stride + K - left - right)
    if 0 <= left - right < stride:
        y = F.conv_transpose1d(u, weight, bias, stride=stride, padding=left, output_padding=left - right)
    else:
        y = F.conv_transpose1d(u, weight, bias, stride=stride)
        y = y[..., left : y.shape[-1] - right]
    return in_layout_of(x, y)


def upsample_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for x, weight and bias; empty where not needed."""
    u = x if slope == 1.0 else F.leaky_relu(x, slope)
    if not 0 <= left - right < stride:
        grad, left, right = F.pad(grad, (left, right)), 0, 0
    grad_u, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, u, weight, [weight.shape[1]], [stride], [left], [1], True, [left - right], 1, needs
    )  # dw[i, o, k] = sum_s u[i, s] g[o, s stride + k - left]; db[o] = sum_t g[o, t]
    if needs[0] and slope != 1.0:  # du[i, s] = sum_ok w[i, o, k] g[o, s stride + k - left]
        grad_u = torch.ops.aten.leaky_relu_backward(grad_u, x, slope, False)  # dx = du (1 if x > 0 else slope)
    none = x.new_empty(0)
    return (
        in_layout_of(x, grad_u) if needs[0] else none,
        grad_weight.contiguous() if needs[1] else none,
        grad_bias if needs[2] else none,
    )

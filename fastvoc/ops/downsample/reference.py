"""The definition of `downsample`, and of its gradient, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops._layout import in_layout_of, to_channels_last


def downsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> Tensor:
    """Zero padding, strided convolution in groups, add bias, leaky ReLU."""
    # z[o, t] = b[o] + sum_i sum_k w[o, i, k] x[first(o) + i, t stride + k - left], with first(o) that of o's group
    z = F.conv1d(F.pad(x, (left, right)), weight, bias, stride, groups=groups)
    return to_channels_last(z if slope == 1.0 else F.leaky_relu(z, slope))  # y = max(z, 0) + slope min(z, 0)


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
    """Gradients for x, weight and bias; empty where not needed."""
    # dz = dy (1 if y > 0 else slope): a positive slope keeps the sign
    g = grad if slope == 1.0 else torch.ops.aten.leaky_relu_backward(grad, y, slope, True)
    padded = F.pad(x, (left, right))
    grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        g, padded, weight, [weight.shape[0]], [stride], [0], [1], False, [0], groups, needs
    )  # dx[i, t stride + k - left] += w[o, i, k] dz[o, t]; dw[o, i, k] = sum_t dz[o, t] x[i, t stride + k - left]
    none = x.new_empty(0)
    return (
        in_layout_of(x, grad_padded[..., left : left + x.shape[2]]) if needs[0] else none,
        grad_weight.contiguous() if needs[1] else none,
        grad_bias if needs[2] else none,
    )

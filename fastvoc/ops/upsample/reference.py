"""The definition of `upsample` in plain PyTorch."""

from __future__ import annotations

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

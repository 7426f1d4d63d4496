"""Weights in the order of the kernels: (taps, columns, channels), neighbouring channels being neighbours in memory."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def taps_first(weight: Tensor) -> Tensor:
    """(C_out, C, K) → (K, C_out, C)."""
    return weight.permute(2, 0, 1).contiguous()


def taps_first_transposed(weight: Tensor) -> Tensor:
    """(C_out, C, K) → (K, C, C_out)."""
    return weight.permute(2, 1, 0).contiguous()


def phases_first(stride: int) -> Callable[[Tensor], Tensor]:
    """Return the packing of a transposed convolution: (C, C_out, K) → (⌈K / stride⌉, stride C_out, C).

    Frame ``q stride + r`` adds up ``weight[:, :, r + i stride]`` times row ``q - i``, so that each `i` is a tap with
    the phases `r` side by side; taps beyond K are zero.
    """

    def pack(weight: Tensor) -> Tensor:
        channels, out, taps = weight.shape
        rounds = -(-taps // stride)
        whole = F.pad(weight, (0, rounds * stride - taps)).view(channels, out, rounds, stride)
        return whole.permute(2, 3, 1, 0).reshape(rounds, stride * out, channels)

    return pack


def side_by_side(*weights: Tensor) -> Tensor:
    """Return several weights of shape (C, C, K), as `taps_first` of each, one after the other."""
    channels = weights[0].shape[0]
    whole = weights[0].new_empty(sum(weight.shape[2] for weight in weights), channels, channels)
    start = 0
    for weight in weights:
        whole[start : start + weight.shape[2]] = weight.permute(2, 0, 1)
        start += weight.shape[2]
    return whole

"""Weights in the order of the kernels: (taps, columns, channels), neighbouring channels being neighbours in memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from torch import Tensor
from torch.nn import functional as F


def taps_first(weight: Tensor) -> Tensor:
    """(…, C_out, C, K) → (…, K, C_out, C)."""
    return weight.movedim(-1, -3).contiguous()


def taps_first_transposed(weight: Tensor) -> Tensor:
    """(C_out, C, K) → (K, C, C_out)."""
    return weight.permute(2, 1, 0).contiguous()


def phases_first(stride: int) -> Callable[[Tensor], Tensor]:
    """Return the packing of a transposed convolution: (…, C, C_out, K) → (…, ⌈K / stride⌉, stride C_out, C).

    Frame ``q stride + r`` adds up ``weight[..., r + i stride]`` times row ``q - i``, so that each `i` is a tap with
    the phases `r` side by side; taps beyond K are zero.
    """

    def pack(weight: Tensor) -> Tensor:
        *groups, channels, out, taps = weight.shape
        rounds = -(-taps // stride)
        whole = F.pad(weight, (0, rounds * stride - taps)).view(*groups, channels, out, rounds, stride)
        ordered = whole.movedim((-2, -1, -3, -4), (-4, -3, -2, -1)).contiguous()
        return ordered.view(*groups, rounds, stride * out, channels)

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


def merged_groups(groups: int, narrower: int) -> int:
    """Return how many neighbouring groups go into one matrix product, if the narrower of their two sides has so many.

    A matrix unit multiplies 16 channels at least, so narrower groups share a product: their blocks on its diagonal, and
    zeros. Where no fitting number divides `groups`, fewer go together, and tiles stay half empty.
    """
    enough = min(groups, -(-16 // narrower))
    return next(count for count in chain(range(enough, 4 * enough), range(enough, 0, -1)) if groups % count == 0)


def block_diagonal(weight: Tensor, groups: int, merged: int) -> Tensor:
    """Return the weights of wider groups: (C_out, C, K) → (groups / merged, merged C_out / groups, merged C, K)."""
    (out, channels, taps), products = weight.shape, groups // merged
    apart = weight.view(products, merged, out // groups, channels, taps)
    if merged == 1:
        return apart[:, 0]
    whole = weight.new_zeros(products, merged, out // groups, merged, channels, taps)
    whole.diagonal(dim1=1, dim2=3).copy_(apart.movedim(1, -1))
    return whole.view(products, merged * out // groups, merged * channels, taps)

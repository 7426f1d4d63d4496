"""Weights in the order of the kernels: (taps, columns, channels), neighbouring channels being neighbours in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from torch.nn import functional as F

_kept: ContextVar[dict[Any, Tensor] | None] = ContextVar("fastvoc_kept", default=None)


@contextmanager
def keep(packed: dict[Any, Tensor]) -> Iterator[None]:
    """Pack each weight once, into `packed`, inside a `with` block, rather than at every call.

    Whoever calls this knows that the weights do not change; a captured CUDA graph then holds no packing.
    """
    token = _kept.set(packed)
    try:
        yield
    finally:
        _kept.reset(token)


def packed(form: str, pack: Callable[..., Tensor], *weights: Tensor) -> Tensor:
    """Return ``pack(*weights)``, or what is kept of it."""
    kept = _kept.get()
    if kept is None:
        return pack(*weights)
    key = (form, *(weight.data_ptr() for weight in weights))
    if key not in kept:
        kept[key] = pack(*weights)
    return kept[key]


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

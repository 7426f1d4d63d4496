"""Batches whose items end at different frames, with the lengths in device memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Ragged:
    lengths: Tensor
    bucket: int
    of_frames: dict[int, Tensor] = field(default_factory=dict)


_ragged: ContextVar[_Ragged | None] = ContextVar("fastvoc_ragged", default=None)


@contextmanager
def ragged(lengths: Tensor, bucket: int) -> Iterator[None]:
    """Let items end before the tensors do, inside a `with` block, for the kernels of a GPU without a gradient.

    Each item's result is then the one of that item alone, to the bit. What lies behind its end is neither read nor
    written. The kernels read the lengths when they run, so that a captured graph can be replayed with others.

    Parameters
    ----------
    lengths : Tensor, shape (B,), int32
        True frames of each item, where the network's input has `bucket` of them.
    bucket : int
        Frames of the network's input; a tensor of T frames has ``(bucket - lengths[item]) * (T // bucket)`` too many.
    """
    token = _ragged.set(_Ragged(lengths=lengths, bucket=bucket, of_frames={bucket: lengths}))
    try:
        yield
    finally:
        _ragged.reset(token)


def is_ragged() -> bool:
    """Tell whether items end before their tensors do, here and now."""
    return _ragged.get() is not None


def ragged_arguments(frames: int) -> dict[str, Any]:
    """Return the arguments of a Triton kernel that say where the items of an input of so many frames end."""
    context = _ragged.get()
    if context is None:
        return {"lengths": None, "bucket": 0, "rate": 0}
    return {"lengths": context.lengths, "bucket": context.bucket, "rate": frames // context.bucket}


def ragged_lengths(frames: int) -> Tensor | None:
    """Return the true frames of each item of an input of so many, shape (B,), int32; None if all have as many."""
    context = _ragged.get()
    if context is None:
        return None
    if frames not in context.of_frames:
        rate = frames // context.bucket
        context.of_frames[frames] = context.lengths * rate + (frames - context.bucket * rate)
    return context.of_frames[frames]

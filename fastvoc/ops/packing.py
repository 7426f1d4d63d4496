"""Weights in the order of the kernels of a GPU: packed at every call, or kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

_kept: ContextVar[dict[Any, Any] | None] = ContextVar("fastvoc_kept", default=None)


@contextmanager
def keep(kept: dict[Any, Any]) -> Iterator[None]:
    """Pack each weight once, into `kept`, inside a `with` block, rather than at every call.

    Whoever calls this knows that the weights do not change; a captured CUDA graph then holds no packing.
    """
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def packed(form: Hashable, pack: Callable[..., Tensor], *weights: Tensor) -> Tensor:
    """Return ``pack(*weights)``, or what is kept of it.

    Beside it are kept the weights themselves: as long as they live, nothing else can be where they are.
    """
    kept = _kept.get()
    if kept is None:
        return pack(*weights)
    key = (form, *((weight.data_ptr(), weight.shape, weight.stride(), weight.dtype) for weight in weights))
    if key not in kept:
        kept[key] = weights, pack(*weights)
    result: Tensor = kept[key][1]
    return result

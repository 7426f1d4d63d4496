"""Tensors that are the same at every call, such as windows, and are therefore made once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


def kept(size: int) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Keep what a function has made for its latest `size` different arguments, as `functools.lru_cache` does.

    What is kept outlives the call that needed it first. So it is made outside of that call's inference mode, since a
    tensor from there could never meet a gradient; and while a compiler, an exporter or a tensor without values looks
    on, nothing is kept and nothing kept is returned, since what is made there belongs to that graph alone.

    Parameters
    ----------
    size : int
        How many results are kept.
    """

    def decorate(make: Callable[..., _Result]) -> Callable[..., _Result]:
        @functools.lru_cache(maxsize=size)
        def plain(*arguments: object) -> _Result:
            with torch.inference_mode(False), torch.no_grad():
                return make(*arguments)

        @functools.wraps(make)
        def look_up(*arguments: object) -> _Result:
            if torch.compiler.is_compiling() or _is_looked_on():
                return make(*arguments)
            return plain(*arguments)

        return look_up

    return decorate


def _is_looked_on() -> bool:
    """Whether tensors without values, or those of a graph that is being made, take the place of others."""
    kinds = torch._C._TorchDispatchModeKey
    return any(torch._C._get_dispatch_mode(kind) is not None for kind in (kinds.FAKE, kinds.PROXY, kinds.FUNCTIONAL))

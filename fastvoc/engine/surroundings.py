"""What surrounds a vocoder and must not change its samples: autocast, compilers, and processes that were forked."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_computes = False
_threaded = False


@contextmanager
def own_arithmetic(*devices: torch.device) -> Iterator[None]:
    """Switch off, inside a `with` block, that autocast rewrites the dtypes of operators on these devices."""
    with ExitStack() as stack:
        for kind in {device.type for device in devices if autocasts(device)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def autocasts(device: torch.device) -> bool:
    """Tell whether autocast rewrites the dtypes of operators on a device here and now; on some there is none."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def refuse_looks(what: str) -> None:
    """Raise where a tracer or a function transform looks at the operators that run here, of which `what` has none.

    Raises
    ------
    RuntimeError
        One sentence. Memory that native code fills would be empty in what was traced.
    """
    keys: Any = torch._C._TorchDispatchModeKey
    tracers = keys.PROXY, keys.FAKE, keys.FUNCTIONAL
    if (
        torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or any(torch._C._get_dispatch_mode(key) is not None for key in tracers)
    ):
        raise RuntimeError(
            f"{what} cannot be traced or transformed, since native code makes its samples; its generator can, a module "
            "of operators: vocoder.generator(mels), (batch, bands, frames)"
        )


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run as it is where `torch.compile` traces its caller, which is then compiled around it.

    It is told so only there, since telling it here would load the compiler, which takes longer than all of the package.
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            result: R = torch.compiler.disable(function)(*arguments, **named)  # type: ignore[no-untyped-call]
            return result
        return function(*arguments, **named)

    return call


def remember_threads() -> None:
    """Note that this process computes on more than one thread, if it does.

    OpenMP's threads do not survive a fork: whatever computes on more than one thread in the child, PyTorch too, would
    wait for them without end. One thread is what a child can have; a process that was spawned has all of them.
    """
    global _computes, _threaded
    _computes = True
    _threaded = _threaded or torch.get_num_threads() > 1


def _forking() -> None:
    # threads may have been asked for since
    if _computes:
        remember_threads()


def _forked() -> None:
    if _threaded:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forking, after_in_child=_forked)

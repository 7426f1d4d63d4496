"""An operator: a contract with a definition, and kernels that are guests.

The definition, in plain PyTorch, is always there. A kernel may refuse a call with a sentence; the first that does not
refuse runs. The choice is made inside the registered op, below autograd, so that `torch.compile`, `torch.export`,
autocast and DDP see one node whatever runs in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops import _backends
from fastvoc.ops._case import Case

Refusal = Callable[..., str | None]
Formula = tuple[Callable[..., Any], Callable[..., Any]]

OPS: dict[str, Op] = {}

_LIBRARY: Any = torch.library.Library("fastvoc", "DEF")  # type: ignore[no-untyped-call]
_forced: ContextVar[str | None] = ContextVar("fastvoc_backend", default=os.environ.get("FASTVOC_BACKEND") or None)


@dataclass(frozen=True)
class Kernel:
    """One way to run an op on one backend."""

    backend: str
    run: Callable[..., Any]
    refuses: Refusal


class Op:
    """A registered operator.

    Parameters
    ----------
    schema : str
        Name, arguments and results, as `torch.library` writes them.
    reference : callable
        The definition, in plain PyTorch.
    fake : callable
        Empty results of the right shape, dtype and memory order.
    gradient : (backward, save), "reference" or None
        A formula; or the definition's own gradient, by running the definition when somebody asks for one; or none,
        in which case differentiating raises.
    arguments : callable, optional
        Turns a call of the public function into the arguments of the schema, and checks them.
    composed : bool
        The definition is made of other ops, so that a forced backend for which this op has no kernel goes to them.
    cases : callable
        The shapes on which tests, benchmarks and diagnostics run.
    """

    def __init__(
        self,
        schema: str,
        reference: Callable[..., Any],
        *,
        fake: Callable[..., Any],
        gradient: Formula | str | None = None,
        arguments: Callable[..., tuple[Any, ...]] = lambda *values: values,
        composed: bool = False,
        cases: Callable[[], Sequence[Case]] = tuple,
    ) -> None:
        self.name = schema.split("(", 1)[0]
        self.reference = reference
        self.arguments = arguments
        self.composed = composed
        self.cases = cases
        self.kernels: list[Kernel] = []
        self.last: str | None = None
        """The backend that ran the latest call in this process, or None before the first."""
        self.differentiates_reference = gradient == "reference"
        _LIBRARY.define(schema)
        _LIBRARY.impl(self.name, self._run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"fastvoc::{self.name}", fake, lib=_LIBRARY)
        backward, save = gradient if isinstance(gradient, tuple) else (self._refuse_gradient, _save_nothing)
        torch.library.register_autograd(f"fastvoc::{self.name}", backward, setup_context=save, lib=_LIBRARY)
        self.overload = getattr(torch.ops.fastvoc, self.name).default
        OPS[self.name] = self

    def kernel(self, backend: str, run: Callable[..., Any], *, refuses: Refusal) -> None:
        """Add a kernel; kernels are asked in the order in which they were added."""
        self.kernels.append(Kernel(backend, run, refuses))

    def explain(self, *args: Any) -> dict[str, str | None]:
        """Return, for each backend, why it cannot run these arguments, or None; the first None is the choice."""
        table = {backend: self._reason(backend, args) for backend in _backends.NAMES}
        return table | {"reference": None}

    def __call__(self, *args: Any) -> Any:
        device = args[0].device.type
        if not torch.is_autocast_enabled(device):
            return self._door(args)
        # Inside an opaque op eager autocast would still rewrite dtypes that the fake has promised: cast here instead.
        dtype = torch.get_autocast_dtype(device)
        args = tuple(_cast(value, dtype) for value in args)
        with torch.autocast(device, enabled=False):
            return self._door(args)

    def _door(self, args: tuple[Any, ...]) -> Any:
        if self.differentiates_reference and torch.is_grad_enabled() and any(map(_requires_grad, args)):
            return self.reference(*args)
        return self.overload(*args)

    def _run(self, *args: Any) -> Any:
        forced = _forced.get()
        if forced is None:
            for kernel in self.kernels:
                if _backends.missing(kernel.backend) is None and kernel.refuses(*args) is None:
                    self.last = kernel.backend
                    return kernel.run(*args)
        elif forced != "reference":
            kernel_of = {kernel.backend: kernel for kernel in self.kernels}
            if forced in kernel_of or not self.composed:
                reason = self._reason(_known(forced, "FASTVOC_BACKEND"), args, forced=True)
                if reason is not None:
                    raise NotImplementedError(f"{self.name}: backend {forced!r} cannot run this call: {reason}")
                self.last = forced
                return kernel_of[forced].run(*args)
        self.last = "reference"
        return self.reference(*args)

    def _reason(self, backend: str, args: tuple[Any, ...], *, forced: bool = False) -> str | None:
        absent = _backends.missing(backend)
        if absent is not None:
            return absent
        reasons = [kernel.refuses(*args) for kernel in self.kernels if kernel.backend == backend]
        if not reasons:
            return f"{self.name} has no kernel for it"
        return None if forced and isinstance(reasons[0], Slower) else reasons[0]

    def _refuse_gradient(self, ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"{self.name}: fastvoc::{self.name} cannot be differentiated"
            + ("; second derivatives are not implemented" if self.name.endswith("_backward") else "")
        )


class Slower(str):
    """The reason of a kernel that could run a call, but was measured to be slower than the definition.

    Forcing the backend overrides it, unlike any other reason.
    """


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every op on one backend inside a `with` block.

    Parameters
    ----------
    name : {"cuda", "triton", "cpu", "reference"} or None
        None returns to the choice by order. The environment variable `FASTVOC_BACKEND` sets the same for a process.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    NotImplementedError
        By the ops called inside, with the reason, where the backend cannot run the call.
    """
    token = _forced.set(None if name is None else _known(name, "use_backend"))
    try:
        yield
    finally:
        _forced.reset(token)


def forced_backend() -> str | None:
    """Return the backend on which every op must run here and now, or None for the choice by order."""
    return _forced.get()


def explain(op: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Say which backends can run a call, and why the others cannot.

    Parameters
    ----------
    op : callable or str
        A public operator, such as `fastvoc.ops.conv1d`, or its name.
    *args, **kwargs
        The arguments of the call.

    Returns
    -------
    dict of str to (str or None)
        Backend to the reason why it cannot run this call; the first with None runs it.
    """
    name = op if isinstance(op, str) else op.__name__
    if name not in OPS:
        raise ValueError(f"explain: {name!r} is not an operator; known: {', '.join(sorted(OPS))}")
    return OPS[name].explain(*OPS[name].arguments(*args, **kwargs))


def last_backends() -> dict[str, str]:
    """Return, for each op that has run in this process, the backend of its latest call."""
    return {name: op.last for name, op in OPS.items() if op.last is not None}


def _known(name: str, where: str) -> str:
    if name in (*_backends.NAMES, "reference"):
        return name
    raise ValueError(f"{where}: {name!r} is not a backend; known: {', '.join((*_backends.NAMES, 'reference'))}")


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    return None


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        # Autocast leaves float64 alone, and so does this.
        return value.to(dtype) if value.is_floating_point() and value.dtype != torch.float64 else value
    if isinstance(value, (list, tuple)):
        return [_cast(item, dtype) for item in value]
    return value


def _requires_grad(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, (list, tuple)) and any(map(_requires_grad, value))

"""An operator: a call is a record, which has a definition in plain PyTorch, and kernels that may decline it.

A record says all that there is to say of a call: what fits, what comes out, and how it is computed and differentiated.
Schema, shapes and autograd of the registered operator follow from it. A kernel may decline a call with a sentence; the
first that does not runs. The choice is made inside the registered operator, below autograd, so that `torch.compile`,
`torch.export`, autocast and DDP see one node whatever runs in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import zip_longest
from typing import Any, Generic, Protocol, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastvoc.ops import availability
from fastvoc.ops.case import Case


class Call(Protocol):
    """What the record of a call is: a `NamedTuple` whose first field is a tensor, with these methods.

    Fields are tensors, numbers, names, and lists of them; which types they may have, `Op` says of any other.

    A record that has its gradient as a formula has two more, and its tensors are its first fields, none in a list.
    Without them its gradient is that of its definition, which then runs wherever somebody asks for one.

    ``saved(result)``
        Returns what the gradient is made of: the call without the tensors that it does not need, and the result, or
        None in its place. Left out, the whole call is saved, and no result.
    ``differentiate(result, grad, needs)``
        Of a call and a result as they were saved, and the gradient of the result (a tuple if there are several),
        returns the gradients of the first fields. What is not in `needs`, which has a bool for each field, is dropped.
    """

    def __iter__(self) -> Iterator[Any]: ...

    def __getitem__(self, place: int, /) -> Any: ...

    def check(self) -> None:
        """Raise one sentence, the same everywhere, if the fields do not fit.

        Nothing else looks at a call before a kernel reads its memory.
        """

    def empty(self) -> Any:
        """Return results of the right shape, dtype, device and memory order, without values, of a call that fits.

        Its annotation tells the results of the operator: a tensor, or a tuple of so many.
        """

    def reference(self) -> Any:
        """Return the results as they are defined, in plain PyTorch."""


C = TypeVar("C", bound=Call)
Function = TypeVar("Function", bound=Callable[..., Any])

Prepared = Callable[[], Any] | str
"""What a kernel makes of a call: what runs it and returns its results, or a sentence that says why it cannot."""

OPS: dict[str, Op[Any]] = {}
_OF: dict[type, Op[Any]] = {}

_LIBRARY: Any = torch.library.Library("fastvoc", "DEF")  # type: ignore[no-untyped-call]
_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    list[Tensor]: "Tensor[]",
    int: "int",
    list[int]: "int[]",
    float: "float",
    list[float]: "float[]",
    bool: "bool",
    tuple[bool, bool, bool]: "bool[3]",
    str: "str",
}
_forced: ContextVar[str | None] = ContextVar("fastvoc_backend", default=os.environ.get("FASTVOC_BACKEND") or None)
_explaining: ContextVar[bool] = ContextVar("fastvoc_explaining", default=False)


class Op(Generic[C]):
    """A registered operator, ``fastvoc::<name>``; called with a record, it runs it.

    Parameters
    ----------
    kind : type
        The record that a call is (`Call`). Its name is the operator's, in lower case with underscores between words,
        and its fields are the arguments.
    composed : bool
        The definition is made of other operators, so that a forced backend for which this one has no kernel goes to
        them.
    cases : callable
        The calls on which tests, benchmarks and diagnostics run.
    **kernels : callable
        ``prepare(call)`` of each backend that has a kernel; see `Prepared`.

    Raises
    ------
    TypeError
        If a field has a type that no argument of an operator can have.
    ValueError
        If there is an operator of that name already, or no backend of the name of a kernel.
    """

    def __init__(
        self,
        kind: type[C],
        *,
        composed: bool = False,
        cases: Callable[[], Sequence[Case[C]]] = tuple,
        **kernels: Callable[[C], Prepared],
    ) -> None:
        self.kind = kind
        self.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
        self.composed = composed
        self.cases = cases
        self.kernels = {backend: kernels[backend] for backend in availability.NAMES if backend in kernels}
        self.function: Callable[..., Any] = self
        """What the public calls: this, unless a function was made `public`."""
        self.last: str | None = None
        """The backend that ran the latest call in this process, or None before the first."""
        self.has_formula = hasattr(kind, "differentiate")
        self._tensors = sum(hint in (Tensor, Tensor | None) for hint in _hints(kind).values())
        schema = f"{self.name}({', '.join(_arguments(kind))}) -> {_results(kind)}"
        if unknown := sorted(kernels.keys() - set(availability.NAMES)):
            known = ", ".join(availability.NAMES)
            raise ValueError(f"Op: {unknown[0]!r} is no backend that can have a kernel; known: {known}")
        if self.name in OPS:
            raise ValueError(f"Op: there is an operator {self.name!r} already; expected another name for the record")
        _LIBRARY.define(schema)
        _LIBRARY.impl(self.name, self._run, "CompositeExplicitAutograd")
        qualified = f"fastvoc::{self.name}"
        torch.library.register_fake(qualified, self._fake, lib=_LIBRARY)
        torch.library.register_autograd(qualified, self._differentiate, setup_context=self._save, lib=_LIBRARY)
        self.overload = getattr(torch.ops.fastvoc, self.name).default
        OPS[self.name] = _OF[kind] = self

    def public(self, function: Function) -> Function:
        """Make a function the public face of this operator, for `explain`; a decorator."""
        self.function = function
        return function

    def explain(self, call: C) -> dict[str, str | None]:
        """Return, for each backend, why it cannot run a call, or None; the first None is the choice."""
        made = {backend: self._prepared(backend, call) for backend in availability.NAMES}
        return {backend: one if isinstance(one, str) else None for backend, one in made.items()} | {"reference": None}

    def __call__(self, call: C) -> Any:
        """Run a call as the surroundings ask for it: in the dtype of autocast, on the backend that is forced."""
        device = call[0].device.type
        if not _autocasts(device):
            return self._choose(call)
        # Inside an opaque operator eager autocast would still rewrite dtypes that the fake has promised: cast here.
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return self._choose(self.kind(*[_cast(value, dtype) for value in call]))

    def without_autocast(self, call: C) -> Any:
        """Run a call in the dtype of its tensors, whatever surrounds it."""
        device = call[0].device.type
        if not _autocasts(device):
            return self._dispatch(call)
        with torch.autocast(device, enabled=False):
            return self._dispatch(call)

    def _choose(self, call: C) -> Any:
        # What compiled code runs on is decided when it runs; elsewhere, forcing the definition makes plain PyTorch.
        if not torch.compiler.is_dynamo_compiling():
            if _explaining.get():
                raise _Reached(call)
            if _forced.get() == "reference":
                return self._define(call)
        return self._dispatch(call)

    def _dispatch(self, call: C) -> Any:
        return self._define(call) if self._looked_into(call) else self.overload(*call)

    def _looked_into(self, call: C) -> bool:
        """Tell whether something differentiates or maps what happens here, and so has to see the definition itself."""
        if not self.has_formula and torch.is_grad_enabled() and any(map(_requires_grad, call)):
            return True
        if torch._C._are_functorch_transforms_active():
            return True
        return not torch.compiler.is_dynamo_compiling() and forward_ad._current_level >= 0

    def _define(self, call: C) -> Any:
        call.check()
        if not torch.compiler.is_dynamo_compiling():
            self.last = "reference"
        return call.reference()

    def _fake(self, *args: Any) -> Any:
        call = self.kind(*args)
        call.check()
        return call.empty()

    def _run(self, *args: Any) -> Any:
        call = self.kind(*args)
        call.check()
        if forward_ad._current_level >= 0:
            raise NotImplementedError(
                f"{self.name}: the registered operator fastvoc::{self.name} has no forward-mode derivative; "
                f"only its definition has, which eager code runs instead"
            )
        forced = _forced.get()
        if forced is None:
            for backend, prepare in self.kernels.items():
                if availability.missing(backend) is None:
                    made = prepare(call)
                    if not isinstance(made, str):
                        self.last = backend
                        return made()
        elif forced != "reference" and (forced in self.kernels or not self.composed):
            made = self._prepared(known_backend(forced, "FASTVOC_BACKEND"), call)
            if isinstance(made, Slower) and made.run is not None:
                made = made.run
            if isinstance(made, str):
                raise NotImplementedError(f"{self.name}: backend {forced!r} cannot run this call: {made}")
            self.last = forced
            return made()
        self.last = "reference"
        return call.reference()

    def _prepared(self, backend: str, call: C) -> Prepared:
        absent = availability.missing(backend)
        if absent is not None:
            return absent
        if backend not in self.kernels:
            return f"{self.name} has no kernel for it"
        return self.kernels[backend](call)

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if not self.has_formula:
            return
        kind: Any = self.kind
        call, result = kind(*inputs), None
        if hasattr(kind, "saved"):
            call, result = call.saved(output)
        ctx.save_for_backward(*call[: self._tensors], result)
        ctx.settings = call[self._tensors :]
        ctx.backend = _forced.get()

    def _differentiate(self, ctx: Any, *grads: Any) -> Any:
        """Return the gradients of a call, on the backend that was forced on it, in whatever thread this runs."""
        if not self.has_formula:
            raise NotImplementedError(
                f"{self.name}: the registered operator fastvoc::{self.name} cannot be differentiated; "
                "only its definition can, which eager code runs instead"
            )
        *tensors, result = ctx.saved_tensors
        call: Any = self.kind(*tensors, *ctx.settings)
        needs = ctx.needs_input_grad
        with use_backend(ctx.backend):
            made = call.differentiate(result, grads[0] if len(grads) == 1 else grads, needs)
        return tuple(grad if needed else None for grad, needed in zip_longest(made, needs))


class Slower(str):
    """The reason of a kernel that could run a call, but was measured to be slower than the definition.

    Forcing the backend overrides it, unlike any other reason.

    Parameters
    ----------
    reason : str
    run : callable, optional
        What runs the call all the same.
    """

    run: Callable[[], Any] | None

    def __new__(cls, reason: str, run: Callable[[], Any] | None = None) -> Slower:
        """Make the sentence."""
        made = super().__new__(cls, reason)
        made.run = run
        return made


def prepared(run: Callable[[], Any], reason: str | None) -> Prepared:
    """Return what a kernel makes of a call that `run` would run, if there is no reason against it.

    Parameters
    ----------
    run : callable
    reason : str or None
        Why not; where it is only `Slower`, forcing the backend runs the call.
    """
    if reason is None:
        return run
    return Slower(reason, run) if isinstance(reason, Slower) else reason


def run(call: Any) -> Any:
    """Run a record of any operator in the dtype of its tensors, whatever surrounds it: what a gradient is made of."""
    return _OF[type(call)].without_autocast(call)


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run every operator on one backend inside a `with` block.

    Parameters
    ----------
    name : {"cuda", "triton", "cpu", "reference"} or None
        None returns to the choice by order. The environment variable `FASTVOC_BACKEND` sets the same for a process.

    Raises
    ------
    ValueError
        If there is no backend of that name.
    NotImplementedError
        By the operators called inside, with the reason, where the backend cannot run the call.
    """
    token = _forced.set(None if name is None else known_backend(name, "use_backend"))
    try:
        yield
    finally:
        _forced.reset(token)


def forced_backend() -> str | None:
    """Return the backend on which every operator must run here and now, or None for the choice by order."""
    return _forced.get()


def explain(op: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Say which backends can run a call, and why the others cannot.

    Parameters
    ----------
    op : callable or str
        A public operator, such as `fastvoc.ops.conv1d`, or its name, or an `Op`.
    *args, **kwargs
        The arguments of the call; of an `Op` its record.

    Returns
    -------
    dict of str to (str or None)
        Backend to the reason why it cannot run this call; the first with None runs it.
    """
    chosen = next((known for known in OPS.values() if op in (known, known.name, known.function)), None)
    if chosen is None:
        name = op if isinstance(op, str) else getattr(op, "__name__", repr(op))
        raise ValueError(f"explain: {name!r} is not an operator; known: {', '.join(sorted(OPS))}")
    token = _explaining.set(True)
    try:
        (chosen.function if isinstance(op, str) else op)(*args, **kwargs)
        raise RuntimeError(f"explain: {chosen.name} was not called by its public function")
    except _Reached as reached:
        call = reached.call
    finally:
        _explaining.reset(token)
    call.check()
    return chosen.explain(call)


def last_backends() -> dict[str, str]:
    """Return, for each operator that has run in this process, the backend of its latest call."""
    return {name: op.last for name, op in OPS.items() if op.last is not None}


def known_backend(name: str, where: str) -> str:
    """Return the name of a backend, or raise in the name of `where` if there is none of it."""
    if name in (*availability.NAMES, "reference"):
        return name
    raise ValueError(f"{where}: {name!r} is not a backend; known: {', '.join((*availability.NAMES, 'reference'))}")


class _Reached(Exception):
    """A public function has reached its operator while somebody only asks what would run."""

    def __init__(self, call: Any) -> None:
        super().__init__("explain: an operator was reached")
        self.call = call


def _arguments(kind: Any) -> Iterator[str]:
    """Yield the arguments of a schema, as `torch.library` writes them."""
    hints, settings = _hints(kind), False
    for number, field in enumerate(kind._fields):
        hint, allowed = hints[field], [Tensor] if number == 0 else list(_TYPES)
        if hint not in allowed:
            known = ", ".join(map(_named, allowed))
            raise TypeError(f"Op: field {field} of {kind.__name__} is a {_named(hint)}; expected {known}")
        tensor = hint in (Tensor, Tensor | None)
        if hasattr(kind, "differentiate") and (hint == list[Tensor] or (tensor and settings)):
            raise TypeError(
                f"Op: field {field} of {kind.__name__} is a {_named(hint)}, which a formula cannot save there; "
                "expected tensors, one by one, before all else"
            )
        settings = settings or not tensor
        yield f"{_TYPES[hint]} {field}"


def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, kind.empty.__globals__)


def _named(hint: Any) -> str:
    return str(hint).replace("torch.", "") if get_args(hint) else str(hint.__name__)


def _results(kind: Any) -> str:
    hint = get_type_hints(kind.empty)["return"]
    return "Tensor" if hint is Tensor else f"({', '.join('Tensor' for _ in hint.__args__)})"


def _autocasts(device: str) -> bool:
    return device != "meta" and torch.is_autocast_enabled(device)


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

"""Puts something in the place of a module's forward, and takes it out again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fastvoc.acceleration.counterpart import Counterpart
from fastvoc.engine.surroundings import uncompiled

_PLACE = "_fastvoc_counterpart"
"""The attribute of an accelerated module that holds what runs in its place."""


def put_in_place(module: nn.Module, counterpart: Counterpart) -> None:
    """Let a module's forward go to its counterpart."""
    kind: Any = type(module)
    module.__dict__[_PLACE] = counterpart
    module.__class__ = _accelerated(kind)


def counterpart_of(module: nn.Module) -> Counterpart | None:
    """Return what runs in the place of a module, or None."""
    found: Counterpart | None = vars(module).get(_PLACE)
    return found


@functools.cache
def _accelerated(kind: Any) -> Any:
    """Return a class of the same name whose forward goes to what is held at `_PLACE`."""

    @functools.wraps(kind.forward)
    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        if _exporting():
            return kind.forward(self, *arguments, **named)
        return _call(self, arguments, named)

    def __reduce_ex__(self: Any, _: Any) -> Any:
        plain = kind.__new__(kind)
        plain.__dict__.update({name: value for name, value in vars(self).items() if name != _PLACE})
        return _itself, (plain,)

    def __prepare_scriptable__(self: Any) -> Any:  # asked for by torch.jit.script
        raise RuntimeError(
            f"accelerate: torch.jit.script compiles the code of {kind.__name__}.forward, in whose place fastvoc runs; "
            "give it a copy, which is a plain one (copy.deepcopy), or undo() first"
        )

    own = {"forward": forward, "__reduce_ex__": __reduce_ex__, "__prepare_scriptable__": __prepare_scriptable__}
    described = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (kind,), own | described)


def _itself(module: nn.Module) -> nn.Module:
    """Return a module: that of a copy or a pickle of an accelerated one."""
    return module


@uncompiled
def _call(module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    return vars(module)[_PLACE](module, arguments, named)


def _exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", None)  # PyTorch has it since 2.7
    return torch.onnx.is_in_onnx_export() or (exporting is not None and exporting())


def put_back(module: nn.Module) -> None:
    """Give a module its own forward back.

    Raises
    ------
    RuntimeError
        If something else has changed its class since.
    """
    counterpart: Counterpart = vars(module)[_PLACE]
    kind: Any = counterpart.kind
    if type(module) is not _accelerated(kind):
        raise RuntimeError(
            f"accelerate: the class of {counterpart.kind.__name__} has been changed since; undo that first"
        )
    module.__class__ = kind
    del module.__dict__[_PLACE]

"""Tells PyTorch's counter of operations what our operators compute: what their definitions do.

The counter is imported by whoever counts, since it brings Triton, which takes longer than this package.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.op import OPS, Op, use_backend

COUNTER = "torch.utils.flop_counter"


def register() -> None:
    """Register every operator with the counter, as soon as it is imported."""
    if COUNTER in sys.modules:
        _register(sys.modules[COUNTER])
    else:
        sys.meta_path.insert(0, _Finder())


def _register(counter: Any) -> None:
    for op in OPS.values():
        counter.register_flop_formula(op.overload.overloadpacket, get_raw=True)(_formula(counter, op))


def _formula(counter: Any, op: Op[Any]) -> Callable[..., int]:
    def count(*arguments: Any, out_val: Any = None, **named: Any) -> int:
        """Count the operations of the definition, on tensors without values."""
        call = op.kind(*_on_meta(arguments), **{name: _on_meta(value) for name, value in named.items()})
        with torch.device("meta"), use_backend("reference"), counter.FlopCounterMode(display=False) as counted:
            call.reference()
        return int(counted.get_total_flops())

    return count


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    return type(value)(map(_on_meta, value)) if isinstance(value, list | tuple) else value


class _Finder(MetaPathFinder):
    """Waits for the counter."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find the counter without this one, and let its import end with our registration."""
        if name != COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loads a module, and registers."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make the module as its own loader does."""
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, and register the operators with it."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module)

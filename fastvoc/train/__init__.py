"""A run becomes weights. The package is callable: ``fastvoc.train(config)`` is its function `train`."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc.faces.vocoder import Vocoder
    from fastvoc.train.run import train

__all__ = ["train"]


class _Callable(ModuleType):
    """A module that can be called, because a package and a function cannot share the name ``fastvoc.train``."""

    @property
    def train(self) -> Any:  # loaded when it is first used, since it brings PyTorch
        from fastvoc.train.run import train

        return train

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.train)

    def __call__(self, *arguments: Any, **named: Any) -> Vocoder:
        vocoder: Vocoder = self.train(*arguments, **named)
        return vocoder

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *__all__]  # where `help` looks


sys.modules[__name__].__class__ = _Callable

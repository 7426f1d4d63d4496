"""A run becomes weights. The room is callable: ``fastvoc.train(config)`` is `fastvoc.train.run.train`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc.vocoder import Vocoder


class _Room(ModuleType):
    """A module that can be called, because a package and a function cannot share the name ``fastvoc.train``."""

    def __call__(self, *arguments: Any, **named: Any) -> Vocoder:
        from fastvoc.train.run import train

        return train(*arguments, **named)


sys.modules[__name__].__class__ = _Room

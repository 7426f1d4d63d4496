"""Steps of optimisers: fused ones change weights, and PyTorch does not count what they write."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


class OptimiserSteps:
    """Steps of all optimisers of the process, counted from the first look on."""

    taken = 0
    latest: ClassVar[weakref.WeakKeyDictionary[torch.optim.Optimizer, int]] = weakref.WeakKeyDictionary()

    gone = 0
    """What was taken when the last of those that had made a step went; its weights are not known any more."""

    @staticmethod
    @functools.cache
    def count() -> None:
        """Begin to count."""
        register_optimizer_step_post_hook(OptimiserSteps._took)

    @staticmethod
    def _took(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        number = OptimiserSteps.taken + 1
        if optimiser not in OptimiserSteps.latest:
            weakref.finalize(optimiser, OptimiserSteps._went).atexit = False
        # before it counts, so that whoever sees the count finds whose step it was
        OptimiserSteps.latest[optimiser] = number
        OptimiserSteps.taken = number

    @staticmethod
    def _went() -> None:
        OptimiserSteps.gone = OptimiserSteps.taken

    @staticmethod
    def since(number: int) -> list[torch.optim.Optimizer]:
        """Return the optimisers that have made a step after this one."""
        # the references are listed at once, since other threads may add to them meanwhile
        known = [reference() for reference in OptimiserSteps.latest.keyrefs()]
        return [one for one in known if one is not None and OptimiserSteps.latest.get(one, 0) > number]

    @staticmethod
    def reached(tensors: Iterable[Tensor], number: int) -> bool:
        """Tell whether an optimiser of one of the tensors, or one that is no more, may have made a step after this."""
        own = {*map(id, tensors)}
        return OptimiserSteps.gone > number or any(
            id(weight) in own
            for optimiser in OptimiserSteps.since(number)
            for group in optimiser.param_groups
            for weight in group["params"]
        )

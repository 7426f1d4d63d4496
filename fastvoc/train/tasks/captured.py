"""A training step as a CUDA graph: recorded once, then asked for in one call.

A step of HiFi-GAN launches thousands of kernels, and a GPU that is fast enough waits for its host to do so. What the
host decides at a step, learning rates and which phase the adversary is in, stays outside: rates lie on the device, and
every phase has a graph of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.train.tasks.task import Batch, Numbers, Task, own_defaults

WARM_UP = 3
"""Steps of a phase that are made kernel by kernel first: they compile kernels and fill tables."""

Make = Callable[[], Numbers]
Record = Callable[[Make], tuple[Callable[[], Any], Numbers]]


class _Graph(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], Any]
    numbers: Numbers


class CapturedStep:
    """Makes the steps of a task, as `Task.step` does.

    Parameters
    ----------
    task : Task
        Whose configuration has `graph`, so that all that changes from step to step is on the device.
    record : callable, optional
        Returns how to run a function again, and what it returns: it writes to the same memory each time. By default a
        CUDA graph; it runs nothing while it records.
    """

    def __init__(self, task: Task, record: Record | None = None) -> None:
        self.task = task
        self._record = partial(_record, task.device) if record is None else record
        self._made: Counter[Any] = Counter()
        self._graphs: dict[Any, _Graph] = {}

    def __call__(self, batch: Batch, *, step: int, epoch: int = 0) -> Numbers:
        """Let all networks make an update; the numbers are overwritten by the next call.

        Raises
        ------
        RuntimeError
            If a step of this run cannot be recorded.
        """
        turn = self.task.turn(step)
        tensors = [batch] if isinstance(batch, Tensor) else list(batch)
        phase = (turn, *(tensor.shape for tensor in tensors))
        self._made[phase] += 1
        if self._made[phase] <= WARM_UP:
            return self.task.step(batch, step=step, epoch=epoch)
        if phase not in self._graphs:
            inputs = [tensor.to(self.task.device, copy=True) for tensor in tensors]
            own = inputs[0] if len(inputs) == 1 else (inputs[0], inputs[1])
            try:
                replay, numbers = self._record(own_defaults()(lambda: self.task.update(own, turn)))
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise RuntimeError(
                    f"train: step {step} cannot be recorded as a CUDA graph ({reason}); leave out graph"
                ) from error
            self._graphs[phase] = _Graph(inputs, replay, numbers)
        graph = self._graphs[phase]
        for own_tensor, tensor in zip(graph.inputs, tensors, strict=True):
            own_tensor.copy_(tensor, non_blocking=True)
        self.task.schedule(turn, epoch)
        graph.replay()
        self.task.follow(step)
        return graph.numbers


def _record(device: torch.device, make: Make) -> tuple[Callable[[], Any], Numbers]:
    graph = torch.cuda.CUDAGraph()
    # thread_local: the loader's thread, too, asks the driver for memory meanwhile
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        numbers = make()
    return graph.replay, numbers

"""What a run looks at while it goes on: whether its numbers are finite, and whether it is asked to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType

import torch
from torch import Tensor
from typing_extensions import Self

from fastvoc.train import parallel


class NotFinite(ValueError):
    """A loss or a gradient that is infinite or not a number."""


class Numbers:
    """The numbers of the latest steps, left on the device until somebody asks.

    Parameters
    ----------
    gradients_may_overflow : bool
        With losses scaled for half precision an infinite gradient is part of the plan: the scale is lowered.
    """

    def __init__(self, *, gradients_may_overflow: bool = False) -> None:
        self._overflow = gradients_may_overflow
        self._steps: list[tuple[int, list[str], Tensor]] = []
        self._begun = time.monotonic()

    def add(self, step: int, numbers: Mapping[str, Tensor]) -> None:
        """Remember scalars, without waiting for the device."""
        self._steps.append((step, list(numbers), torch.stack([value.float() for value in numbers.values()])))

    def check(self) -> None:
        """Raise one sentence if a number since the last `take` is not finite; waits for the device."""
        for step, names, values in self._steps:
            finite = values.isfinite().tolist()
            for name, value, good in zip(names, values.tolist(), finite, strict=True):
                if not good and not (self._overflow and name.endswith("_gradient")):
                    what = "the loss term" if not name.endswith("_gradient") else "the norm of"
                    raise NotFinite(f"train: step {step}: {what} {name!r} is {value}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens in a `with` block out of the steps per second."""
        before = time.monotonic()
        yield
        self._begun += time.monotonic() - before

    def take(self) -> dict[str, float]:
        """Return means over the steps and the processes since the last call, and the steps per second."""
        sums: dict[str, list[float]] = {}
        for _, names, values in self._steps:
            for name, value in zip(names, values.tolist(), strict=True):
                sums.setdefault(name, []).append(value)
        means = torch.tensor([sum(values) / len(values) for values in sums.values()], dtype=torch.float64)
        device = self._steps[-1][2].device if self._steps else means.device
        means = means.float().to(device)  # where the processes can meet
        parallel.average([means])
        now = time.monotonic()
        speed = len(self._steps) / (now - self._begun)
        self._steps, self._begun = [], now
        return {**dict(zip(sums, means.tolist(), strict=True)), "steps_per_second": speed}


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; the second one stops at once."""

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # only the main thread can listen
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def agreed(self, *, ask: bool) -> bool:
        """Whether to stop after this step: several processes stop at the same one, which they find when all ask."""
        return parallel.any_of(self.wished) if ask or parallel.world_size() == 1 else False

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True

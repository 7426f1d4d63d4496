"""What a run looks at while it goes on: whether its numbers are sane, and whether it is asked to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

import torch
from torch import Tensor
from typing_extensions import Self

from fastvoc.train.learning import parallel

LARGEST = 1e5
"""Loss terms of healthy runs are of the order of 0.01 to 100; a larger one than this is of a run that explodes."""

_GRADIENT = "_gradient"

_IMPATIENCE = 3.0
"""Seconds after which another Ctrl-C is a second wish: a launcher and the terminal send the first one twice."""


class NotFinite(ValueError):
    """A loss or a gradient that is infinite or not a number."""


class RunFailed(RuntimeError):
    """What ended a run between its first step and its last one: `__cause__`; the message says what is saved."""


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
        self._checked = 0
        self._exploding = ""

    def add(self, step: int, numbers: Mapping[str, Tensor]) -> None:
        """Remember scalars, without waiting for the device.

        Raises
        ------
        TypeError
            If one is something else.
        """
        for name, value in numbers.items():
            if not isinstance(value, Tensor) or value.ndim:
                what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
                raise TypeError(f"what the task returns as {name!r} is {what}; expected a tensor with one number")
        values = [value.detach().float() for value in numbers.values()]
        self._steps.append((step, list(numbers), torch.stack(values) if values else torch.zeros(0)))

    def check(self) -> None:
        """Raise one sentence if a number since the last `take` is not finite; waits for the device."""
        for step, names, values in self._steps[self._checked :]:
            finite = values.isfinite().tolist()
            for name, value, good in zip(names, values.tolist(), finite, strict=True):
                gradient = name.endswith(_GRADIENT)
                if not good and not (self._overflow and gradient):
                    what = "the norm of" if gradient else "the loss term"
                    raise NotFinite(f"train: step {step}: {what} {name!r} is {value}; {_updates(names, finite)}")
                if not self._exploding and not gradient and good and abs(value) > LARGEST:
                    self._exploding = f"step {step}: the loss term {name!r} is {value:.3g}"
        self._checked = len(self._steps)

    def exploding(self) -> str:
        """Say which loss term was the first beyond `LARGEST` in steps checked since the last call; empty for none."""
        said, self._exploding = self._exploding, ""
        return said

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
        self._steps, self._checked, self._begun = [], 0, now
        return {**dict(zip(sums, means.tolist(), strict=True)), "steps_per_second": speed}


class Interruption:
    """Turns Ctrl-C and SIGTERM into a wish to stop, however many of them come at once.

    Another Ctrl-C stops at once, if it comes seconds later: a launcher hands on the signals that its processes get too.

    Parameters
    ----------
    told : bool
        Say on standard error that the wish is known.
    """

    def __init__(self, *, told: bool = False) -> None:
        self.wished = False
        self._told = told
        self._since = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        # only the main thread gets signals
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def alone(self) -> bool:
        """Whether a single process may stop where it is, without asking others."""
        return self.wished and parallel.world_size() == 1

    def agreed(self, *, ask: bool) -> bool:
        """Whether to stop after this step: several processes stop at the same one, which they find when all ask."""
        return parallel.any_of(self.wished) if ask or parallel.world_size() == 1 else False

    def _wish(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.wished:
            self.wished, self._since = True, now
            if self._told:
                # past any buffer, which a handler must not enter twice
                with suppress(OSError, ValueError, AttributeError):
                    os.write(sys.stderr.fileno(), b"stopping as soon as a step is complete, which is saved then\n")
        elif number == signal.SIGINT and now - self._since > _IMPATIENCE:
            raise KeyboardInterrupt


def _updates(names: list[str], finite: list[bool]) -> str:
    """Say which networks were updated in a step: one whose gradient is not finite is left as it is."""
    gradients = {
        name.removesuffix(_GRADIENT): good for name, good in zip(names, finite, strict=True) if _GRADIENT in name
    }
    left = [name for name, good in gradients.items() if not good]
    made = [name for name, good in gradients.items() if good]
    if left and made:
        return f"the update of the {' and the '.join(left)} was left out, not that of the {' and the '.join(made)}"
    return "the update was left out" if left else "the update was made"

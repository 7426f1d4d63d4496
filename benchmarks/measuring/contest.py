"""Runs that train side by side for equal times, and are judged on the same recordings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fastvoc.train.report.validation import validate
from fastvoc.train.start import Run

TURN = 10.0
"""Seconds that a run trains before the next one does, so that whatever else the machine does meets all."""


@dataclass(eq=False)
class Contestant:
    """A run by its name, what it has used of its time, and how many steps that was."""

    name: str
    run: Run
    device: str
    used: float = 0.0
    steps: int = 0

    def train(self, until: float) -> None:
        """Train until so many seconds are used: on a CPU those that the process computed, on a GPU those of a clock."""
        task, loader = self.run.task, self.run.loader
        while self.used < until:
            begin = self._now()
            self.steps += 1
            task.step(next(loader), step=self.steps, epoch=loader.epoch)
            self.used += self._now() - begin

    def judged(self) -> dict[str, Any]:
        """Return how good the vocoder is now, and after how many steps."""
        [clips] = self.run.clips.values()
        numbers = validate(self.run.task.plain_generator(), clips, self.run.config.convention)
        return {"steps": self.steps} | {name: round(value, 4) for name, value in numbers.items()}

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def compete(contestants: Sequence[Contestant], minutes: float, marks: Sequence[float]) -> Iterator[float]:
    """Train in turn, and yield the minutes that all have used, at shares of the whole."""
    for mark in marks:
        end = 60 * minutes * mark
        while (until := min(contestant.used for contestant in contestants)) < end:
            for contestant in contestants:
                contestant.train(min(until + TURN, end))
        yield round(minutes * mark, 2)

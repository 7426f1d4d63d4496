"""What a recipe reaches in a given time: the official HiFi-GAN recipe beside our own, from the same first weights.

`FASTVOC_SPEECH=folder pytest benchmarks/test_recipes.py --minutes 20 --results benchmarks/results` trains each recipe
for so many minutes, in turns of a few seconds, so that whatever else the machine does meets both. Time on the CPU is
what the process computed, on a GPU what a clock shows. Four recordings are kept for judging.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.train.config import load_config
from fastvoc.train.report.validation import validate
from fastvoc.train.start import Run, start

RECIPES = ("hifigan-v2", "hifigan-best")
BATCH = {"cpu": 1, "cuda": 16}
CHANNELS = {"cpu": 128, "cuda": 512}
"""Of both generators: V2's where V1's would take a minute a step."""

CLIPS = 4

TURN = 10.0
"""Seconds."""

MARKS = (0.25, 0.5, 1.0)
"""Shares of the time after which recipes are judged."""


@dataclass(eq=False)
class Contestant:
    """A recipe, what it has used of its time, and how many steps that was."""

    recipe: str
    run: Run
    device: str
    used: float = 0.0
    steps: int = 0

    def train(self, until: float) -> None:
        """Train until so many seconds are used."""
        task, loader = self.run.task, self.run.loader
        while self.used < until:
            begin = self._now()
            self.steps += 1
            task.step(next(loader), step=self.steps, epoch=loader.epoch)
            self.used += self._now() - begin

    def judged(self) -> dict[str, Any]:
        """Return how good the vocoder is now, as a row."""
        [clips] = self.run.clips.values()
        numbers = validate(self.run.task.plain_generator(), clips, self.run.config.mel)
        return {
            "suite": "recipes",
            "recipe": self.recipe,
            "channels": CHANNELS[self.device],
            "batch": BATCH[self.device],
            "minutes": round(self.used / 60, 1),
            "steps": self.steps,
        } | {name: round(value, 4) for name, value in numbers.items()}

    def _now(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def test_recipes_at_equal_time(
    device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    minutes, speech = request.config.getoption("--minutes"), os.environ.get("FASTVOC_SPEECH")
    if not minutes or speech is None:
        pytest.skip("give --minutes, and a folder of speech in FASTVOC_SPEECH")
    contestants = []
    for recipe in RECIPES:
        changes = {
            "generator.channels": CHANNELS[device],
            "batch": BATCH[device],
            "data.recordings": speech,
            "data.held_out": CLIPS,
            "data.validation_clips": CLIPS,
            "data.workers": 0,  # time is counted in this process
            "folder": str(tmp_path / recipe),
        }
        run = start(load_config(recipe, changes), torch.device(device))
        contestants.append(Contestant(recipe, run, device))
    for mark in MARKS:
        end = 60 * minutes * mark
        while (until := min(contestant.used for contestant in contestants)) < end:
            for contestant in contestants:
                contestant.train(min(until + TURN, end))
        rows += [contestant.judged() for contestant in contestants]
    assert all(math.isfinite(row["mel_l1"]) for row in rows)

"""What a recipe reaches in a given time: the official HiFi-GAN recipe beside our own, from the same first weights.

`FASTVOC_SPEECH=folder pytest benchmarks/test_recipes.py --minutes 20 --results benchmarks/results` trains each recipe
for so many minutes, in turns of a few seconds, so that whatever else the machine does meets both. Time on the CPU is
what the process computed, on a GPU what a clock shows. Four recordings are kept for judging.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.measuring.contest import Contestant, compete
from fastvoc.train.config import load_config
from fastvoc.train.start import start

RECIPES = ("hifigan-v2", "hifigan-best")
BATCH = {"cpu": 1, "cuda": 16}
CHANNELS = {"cpu": 128, "cuda": 512}
"""Of both generators: V2's where V1's would take a minute a step."""

CLIPS = 4

MARKS = (0.25, 0.5, 1.0)
"""Shares of the time after which recipes are judged."""


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
    sizes = {"channels": CHANNELS[device], "batch": BATCH[device]}
    for used in compete(contestants, minutes, MARKS):
        same = {"suite": "recipes", "minutes": used} | sizes
        rows += [same | {"recipe": one.name} | one.judged() for one in contestants]
    assert all(math.isfinite(row["mel_l1"]) for row in rows)

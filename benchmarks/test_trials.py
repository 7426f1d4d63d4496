"""What each part of our recipe does: every switch of `hifigan-best` flipped alone, for equal times of training.

`FASTVOC_SPEECH=folder pytest benchmarks/test_trials.py --minutes 0.5 --results benchmarks/results` trains each trial
for so many minutes from the same first weights, and the recipe itself with three seeds: a difference counts only if it
is larger than what these differ by. Time is that of `test_recipes.py`. Networks are small, so that a minute on a
core is hundreds of steps. Four recordings are kept for judging: as they are, 12 dB quieter, and from smoothed mels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring.contest import Contestant, compete
from benchmarks.peers.prior import PriorHiFiGANConfig
from fastvoc.audio import MelConfig, mel_l1, mel_spectrogram
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.report.validation import generate
from fastvoc.train.start import start
from fastvoc.train.tasks.smoothing import smooth

RECIPE = "hifigan-best"

SIZES: dict[str, dict[str, Any]] = {
    "cpu": {
        "generator.channels": 32,
        "adversary.discriminators.0.channels": 4,
        "adversary.discriminators.1.channels": 4,
        "optimiser.schedule.warm_up": 50,
        "adversary.optimiser.schedule.warm_up": 50,
        "batch": 1,
    },
    "cuda": {"generator.channels": 512},
}
"""On a CPU a sixteenth of V1's channels, an eighth of the discriminators', and a tenth of the warm-up, which would else
last as long as the trial."""

SECOND = "adversary.discriminators.1"
WIDE = {"cpu": {f"{SECOND}.channels": 16}, "cuda": {}}
"""The scale discriminators have four times as many channels as the others."""

TRIALS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "the recipe, second seed": {"seed": 1},
    "the recipe, third seed": {"seed": 2},
    "scale discriminators": {SECOND: {"kind": "scale"}},
    "band discriminators": {SECOND: {"kind": "band"}},
    "one mel ×45": {"losses.multi_scale_mel": 0, "losses.mel": 45, "loss_mel": "hifigan-loss"},
    "spectrum from the mel": {},
    "no clipping": {"optimiser.clip": None, "adversary.optimiser.clip": None},
    "no average": {"ema": 0},
    "no warm-up": {"optimiser.schedule.warm_up": 0, "adversary.optimiser.schedule.warm_up": 0},
    "mels alone for 200 steps": {"adversary.starts_at": 200},
    "equal levels": {"data.gain": [0, 0]},
    "smoothed mels": {"data.smoothing": 2},
}
"""What is changed in each; the first three are the recipe, and one has another generator."""

CLIPS = 4
QUIET = -12.0
"""dB."""
REACH = 2
"""Bands and frames on either side that mels are smoothed over for judging."""
MARKS = (1 / 3, 2 / 3, 1.0)
"""Shares of the time after which trials are judged, and rows are on disk."""


def settings(trial: str, device: str, speech: str, folder: Path) -> TrainConfig:
    """Return the settings of a trial."""
    changes = {
        "data.recordings": speech,
        "data.held_out": CLIPS,
        "data.validation_clips": CLIPS,
        "data.workers": 0,  # time is counted in this process
        "folder": str(folder / trial),
    }
    wide = WIDE[device] if trial == "scale discriminators" else {}
    config = load_config(RECIPE, changes | SIZES[device] | TRIALS[trial] | wide)
    if trial == "spectrum from the mel":
        config = replace(config, generator=PriorHiFiGANConfig(channels=SIZES[device]["generator.channels"]))
    return config


def heard(contestant: Contestant) -> dict[str, float]:
    """Judge a vocoder on what its recipe does not measure: quiet speech, and smooth mels."""
    [clips] = contestant.run.clips.values()
    mel = contestant.run.config.convention
    generator = contestant.run.task.plain_generator()
    quiet = generate(generator, {name: 10 ** (QUIET / 20) * clip for name, clip in clips.items()}, mel)
    generator.input_of = _smoothed
    smoothed = generate(generator, clips, mel)
    return {
        f"{name}_mel_l1": round(mean(float(mel_l1(made, wave, mel)) for wave, made in pairs.values()), 4)
        for name, pairs in (("quiet", quiet), ("smoothed", smoothed))
    }


def _smoothed(wave: Tensor, mel: MelConfig) -> Tensor:
    """(1, T) → (1, bands, frames)."""
    return smooth(mel_spectrogram(wave, mel), torch.full((len(wave), 2), REACH), REACH)


@pytest.fixture(scope="module")
def contest(
    device: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Contestant], Iterator[float]]:
    """Begin all trials, and return them with what lets them train up to the next mark."""
    minutes, speech = request.config.getoption("--minutes"), os.environ.get("FASTVOC_SPEECH")
    if not minutes or speech is None:
        pytest.skip("give --minutes, and a folder of speech in FASTVOC_SPEECH")
    folder = tmp_path_factory.mktemp("trials")
    contestants = []
    for trial in TRIALS:
        config = settings(trial, device, speech, folder)
        contestants.append(Contestant(trial, start(config, torch.device(device)), device))
    return contestants, compete(contestants, minutes, MARKS)


@pytest.mark.parametrize("share", MARKS)  # in this order: each goes on where the one before has stopped
def test_switches_of_our_recipe(
    contest: tuple[list[Contestant], Iterator[float]], share: float, device: str, rows: list[dict[str, Any]]
) -> None:
    contestants, marks = contest
    sizes = {name.rpartition(".")[2]: SIZES[device].get(name) for name in ("generator.channels", "batch")}
    same = {"suite": "trials", "minutes": next(marks)} | sizes
    rows += [same | {"trial": one.name} | one.judged() | heard(one) for one in contestants]
    assert all(math.isfinite(row["mel_l1"]) for row in rows)

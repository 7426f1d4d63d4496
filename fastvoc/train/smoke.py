"""A run of three steps on tones that it makes itself: shows that a recipe works on a machine, not that it sounds."""

from __future__ import annotations

import shutil
from dataclasses import replace

from fastvoc.checkpoints import save_native
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.learning import parallel
from fastvoc.train.material import material_of

STEPS = 3
TONES = "tones"


def smoke_config(config: TrainConfig) -> TrainConfig:
    """Return a run like another one, on tones in a folder of its own within that run's; `prepare` writes them."""
    folder = config.folder / state.SMOKE
    tones = str(folder / TONES)
    adversary = config.adversary
    if adversary is not None:
        # every phase of the adversary within three steps
        phases = {name: min(1, getattr(adversary, name)) for name in ("starts_at", "listens_for", "frozen_for")}
        adversary = replace(adversary, **phases)
    data = material_of(config).on_tones(tones)
    hastened = getattr(config.task, "hastened", None)  # of a task that has phases
    return replace(
        config,
        data=data,
        task=config.task if hastened is None else hastened(),
        adversary=adversary,
        start_from=None if config.start_from is None else folder / "beginning",
        start_adversary_from=None,
        continue_from=None,
        steps=STEPS,
        batch=2 * config.accumulate * parallel.launched(),
        report_every=1,
        validate_every=STEPS,
        save_every=STEPS,
        folder=folder,
    )


def prepare(config: TrainConfig) -> None:
    """Write tones, and what else `smoke_config` wants to find, and remove what an earlier one has trained."""
    if parallel.rank() == 0:
        shutil.rmtree(config.folder / state.CHECKPOINTS, ignore_errors=True)
        tones = config.folder / TONES
        tones.mkdir(parents=True, exist_ok=True)
        material = material_of(config)
        material.write_tones(tones)
        if config.start_from is not None:
            save_native(config.start_from, material.settings_of(), config.generator.build().state_dict())
    parallel.wait()

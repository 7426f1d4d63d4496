"""A run of three steps on tones that it makes itself: shows that a recipe works on a machine, not that it sounds."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fastvoc.audio import mel_spectrogram, write_audio
from fastvoc.checkpoints import save_native, settings_of_run
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.learning import parallel

STEPS = 3
TONES = "tones"
COUNT = 5
SECONDS = 1.2


def smoke_config(config: TrainConfig) -> TrainConfig:
    """Return a run like another one, on tones in a folder of its own within that run's; `prepare` writes them."""
    folder = config.folder / state.SMOKE
    tones = str(folder / TONES)
    adversary = config.adversary
    if adversary is not None:
        # every phase of the adversary within three steps
        phases = {name: min(1, getattr(adversary, name)) for name in ("starts_at", "listens_for", "frozen_for")}
        adversary = replace(adversary, **phases)
    data = replace(
        config.data,
        recordings=(tones,),
        weights=(),
        root=None,
        validation=(),
        unseen=(),
        held_out=1,
        mels=None if config.data.mels is None else tones,
        workers=0,
    )
    return replace(
        config,
        data=data,
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
        _write_tones(config, tones)
        if config.start_from is not None:
            saved = settings_of_run(config.generator, config.mel)
            save_native(config.start_from, saved, config.generator.build().state_dict())
    parallel.wait()


def _write_tones(config: TrainConfig, folder: Path) -> None:
    mel = config.mel
    # whole frames, and room for a segment
    length = math.ceil(max(SECONDS * mel.sample_rate, config.segment + mel.fft_size) / mel.hop) * mel.hop
    time = torch.arange(length) / mel.sample_rate
    for number in range(COUNT):
        pitch = 110 * 2 ** (number / 3)
        partials = [torch.sin(2 * math.pi * k * pitch * time + number) / k for k in range(1, 6)]
        wave = 0.2 * torch.stack(partials).sum(dim=0) * (1 + torch.sin(2 * math.pi * 3 * time)) / 2
        write_audio(folder / f"tone-{number}.wav", wave, mel.sample_rate)
        if config.data.mels is not None:
            frames = mel_spectrogram(wave, mel)[:, : length // mel.hop]
            np.save(folder / f"tone-{number}.npy", frames.numpy())

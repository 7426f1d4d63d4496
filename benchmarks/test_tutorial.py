"""What the Keras tutorial of MelGAN measures: 128 mels of 50 frames and 80 bands, in batches of 32.

It states 8 to 10 ms per mel on an NVIDIA K80, which is about 66 times real time (keras.io, "MelGAN-based spectrogram
inversion using feature matching").
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.measuring.gate import FACTORS
from benchmarks.measuring.networks import MEL, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import interleaved
from fastvoc.models.melgan import KERAS

MELS, FRAMES, BATCH = 128, 50, 32


def test_tutorial(device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]]) -> None:
    ours, plain, exact = (
        seeded_vocoder(KERAS, device=device, dtype=dtype, backend=backend)
        for dtype, backend in ((torch.float32, None), (torch.float32, "reference"), (torch.float64, "reference"))
    )
    mels = some_mel(FRAMES, batch=MELS, device=device)
    expected = exact(mels[:1])
    off, allowed = ((vocoder(mels[:1]) - expected).abs().max() for vocoder in (ours, plain))
    assert off <= FACTORS["float32"] * allowed, "no number for a wrong result"

    def in_batches(run: Callable[[torch.Tensor], Any]) -> None:
        for begin in range(0, MELS, BATCH):
            run(mels[begin : begin + BATCH])

    option = request.config.getoption
    runs = [partial(in_batches, ours), partial(in_batches, plain)]
    columns = interleaved(runs, device, rounds=option("--rounds"), budget=option("--budget"))
    taken = [median(column) for column in columns]
    seconds = FRAMES * MEL.hop / MEL.sample_rate
    for engine, time in zip(("fastvoc", "PyTorch"), taken, strict=True):
        rows.append(
            {
                "suite": "tutorial",
                "engine": engine,
                "mels": MELS,
                "frames": FRAMES,
                "batch": BATCH,
                "milliseconds_per_mel": round(1e3 * time / MELS, 3),
                "times_real_time": round(MELS * seconds / time, 2),
                "tutorial_milliseconds_per_mel": [8, 10],
                "tutorial_device": "NVIDIA K80",
            }
        )

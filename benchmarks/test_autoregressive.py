"""Samples per second of WaveNets, ours and the original's cached generation, in turn, in one process.

The original's is re-created in plain PyTorch (`benchmarks.cached_wavenet`), with the same weights and the same random
numbers, and both make the same classes, but where a number lies at a boundary, before anything is timed. Times are of
the process, not of the clock, since one sample waits for the other and nothing else does.
`pytest benchmarks/test_autoregressive.py --results benchmarks/results` keeps the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.cached_wavenet import CachedWaveNet
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import WaveNetConfig
from fastvoc.models.wavenet import MU_LAW, NV_WAVENET

MELS = {
    "wavenet": CONVENTIONS["wavenet"],
    "nv-wavenet": replace(
        CONVENTIONS["tacotron2"], sample_rate=16000, fft_size=800, window_size=800, hop=200, high=8000
    ),
}
NETWORKS: dict[str, WaveNetConfig] = {"wavenet": replace(MU_LAW, preemphasis=0.0, gain=1.0), "nv-wavenet": NV_WAVENET}


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_per_second(
    name: str, batch: int, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest, benchmark: Any
) -> None:
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    config = NETWORKS[name]
    torch.manual_seed(0)
    checkpoint = Checkpoint(VocoderConfig(generator=config, mel=MELS[name]), config.build().state_dict(), "a benchmark")
    ours = {kind: Vocoder(checkpoint, dtype=kind) for kind in ("float32", "bfloat16")}
    cached = CachedWaveNet(ours["float32"].generator)  # type: ignore[arg-type]
    mel = torch.rand(batch, 80, 16) * 6 - 8
    seeds = torch.arange(batch)
    draws = ours["float32"].draws
    assert draws is not None
    numbers = draws(seeds, 0, 1)[:, 0]
    with torch.inference_mode():
        classes = cached(mel[..., :1], numbers)
        wave = ours["float32"](mel[..., :1], seed=0)
    different = float((config.distribution.decode(classes) != wave).float().mean())
    assert different <= 0.02, "other classes than the original's: no number for a wrong result"

    def originals() -> int:
        with torch.inference_mode():
            return cached(mel[..., :1], numbers).numel()

    runs: dict[str, Callable[[], int]] = {
        "float32": lambda: ours["float32"](mel, seed=0).numel(),
        "bfloat16": lambda: ours["bfloat16"](mel, seed=0).numel(),
        "original": originals,
    }
    rates: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(request.config.getoption("--rounds")):
        for key, run in runs.items():
            begin = time.process_time()
            count = run()
            rates[key].append(count / (time.process_time() - begin))
    benchmark.pedantic(runs["float32"], rounds=1)
    found = {key: median(values) for key, values in rates.items()}
    row = {
        "suite": "autoregressive",
        "network": name,
        "batch": batch,
        "dtype": "float32",
        "ways": ours["float32"].explain(),
        "samples_per_cpu_second": {key: round(value) for key, value in found.items()},
        "ratio": round(found["float32"] / found["original"], 1),
        "bfloat16_ratio": round(found["bfloat16"] / found["original"], 1),
        "times_real_time": round(found["float32"] / MELS[name].sample_rate, 2),
        "bfloat16_times_real_time": round(found["bfloat16"] / MELS[name].sample_rate, 2),
    }
    rows.append(row)
    benchmark.extra_info.update(row)

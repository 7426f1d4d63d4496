"""The vocoder that comes with the package: as a user calls it, and by its definition in PyTorch.

Both run in turn on the same mel, in one process. Beside the clock, processor time is taken, which other programs on the
machine hardly change.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.measuring.networks import MEL, frames_of, runs_on, some_mel
from benchmarks.measuring.stopwatch import interleaved
from fastvoc import Vocoder


@pytest.mark.parametrize("length", [1.0, 10.0], ids=lambda length: f"{length:g} s")
@pytest.mark.parametrize("threads", [1, 2], ids=lambda count: f"threads{count}")
def test_default(
    device: str, threads: int, length: float, rows: list[dict[str, Any]], request: pytest.FixtureRequest, benchmark: Any
) -> None:
    if device != "cpu":
        pytest.skip("on other devices both are the definition")
    ours, plain = Vocoder.from_pretrained(), Vocoder.from_pretrained(backend="reference")
    exact = Vocoder.from_pretrained(dtype=torch.float64)
    mel, option, before = some_mel(frames_of(length))[0], request.config.getoption, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        # rounds make much of single roundings, here and there; what two ways have in common is the mean over hops, of
        # the logarithm
        expected = exact(mel.double())
        off, allowed = (_hops(made(mel) - expected) for made in (ours, plain))
        assert off <= 2 * allowed, "no number for a wrong result"
        runs = [partial(ours, mel), partial(plain, mel)]
        taken = interleaved(runs, device, rounds=option("--rounds"), budget=option("--budget"))
        work = [_processor_seconds(run) for run in runs]
        benchmark.pedantic(runs[0], rounds=1)
    finally:
        torch.set_num_threads(before)
    sound = mel.shape[-1] * MEL.hop / MEL.sample_rate
    fast, slow = (median(column) for column in taken)
    row = {
        "suite": "default",
        "seconds": length,
        "threads": threads,
        "backend": runs_on(ours),
        "rounds": len(taken[0]),
        "milliseconds": round(1e3 * fast, 3),
        "plain_milliseconds": round(1e3 * slow, 3),
        "processor_milliseconds": round(1e3 * work[0], 3),
        "plain_processor_milliseconds": round(1e3 * work[1], 3),
        "times_real_time": round(sound / fast, 2),
        "ratio": round(slow / fast, 3),
        "ratio_of_processor_time": round(work[1] / work[0], 3),
    }
    rows.append(row)
    benchmark.extra_info.update(row)


def _hops(x: torch.Tensor) -> float:
    return float(x.unflatten(0, (-1, MEL.hop)).square().mean(dim=-1).sqrt().log().mean().exp())


def _processor_seconds(run: Any, rounds: int = 9) -> float:
    def once() -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    return median(once() for _ in range(rounds))

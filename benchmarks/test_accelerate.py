"""The official HiFi-GAN as its own code builds it: plain PyTorch beside the same module after `fastvoc.accelerate`.

Weight norm is folded, as the original's inference does it. One second of sound; modules run in turn, round after round.
"""

from __future__ import annotations

import copy
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch
from torch.nn.utils.parametrize import remove_parametrizations

import fastvoc
from benchmarks.measuring.gate import FACTORS
from benchmarks.measuring.networks import frames_of, some_mel
from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers.official_hifigan import OfficialGenerator
from fastvoc.models.hifigan import V1, V2, V3

NETWORKS = {"hifigan-v1": V1, "hifigan-v2": V2, "hifigan-v3": V3}


@pytest.mark.parametrize("official", NETWORKS)
def test_accelerate(official: str, device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    plain = OfficialGenerator(NETWORKS[official]).requires_grad_(False).eval()
    for layer in list(plain.modules()):
        if hasattr(layer, "parametrizations"):
            remove_parametrizations(layer, "weight")
    plain = plain.to(device)
    faster, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    accelerated = fastvoc.accelerate(faster)
    option = request.config.getoption
    threads = int(str(option("--threads")).split(",")[0])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            mel = some_mel(frames_of(1.0), batch=1, device=device)
            expected = exact(mel.double())
            off, allowed = (float((run(mel) - expected).abs().max()) for run in (faster, plain))
            assert accelerated.latest is None
            assert off <= FACTORS["float32"] * allowed, "no number for a wrong result"
            runs = [partial(faster, mel), partial(plain, mel)]
            taken = interleaved(runs, device, rounds=option("--rounds"), budget=option("--budget"))
            running = next(way for way, reason in accelerated.explain().items() if reason is None)
    finally:
        torch.set_num_threads(before)
    ours, theirs = (median(column) for column in taken)
    rows.append(
        {
            "suite": "accelerated",
            "network": official,
            "precision": "float32",
            "threads": threads,
            "seconds": 1.0,
            "backend": running,
            "rounds": len(taken[0]),
            "milliseconds": round(1e3 * ours, 3),
            "plain_milliseconds": round(1e3 * theirs, 3),
            "ratio": round(theirs / ours, 3),
        }
    )

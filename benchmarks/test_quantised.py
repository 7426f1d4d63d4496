"""Vocoders of which layers multiply in 8 bits, beside float32 and bfloat16: how fast, and how near.

Generators are seeded, the mels random; those that are measured are not those that the vocoder was calibrated on::

    pytest benchmarks/test_quantised.py --results benchmarks/results
"""

from __future__ import annotations

import math
from functools import partial
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring.networks import MEL, NETWORKS, frames_of, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import interleaved
from fastvoc.engine import Plan

SMALLEST_SNR = 35.0


def test_quantised(network: str, device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]]) -> None:
    exact = seeded_vocoder(NETWORKS[network], device=device)
    reason = exact.explain()["plan"] or Plan.refuses_int8(exact.generator)
    if reason is not None:
        pytest.skip(reason)
    mels = some_mel(frames_of(2))[0]
    heard, mel = mels.chunk(2, dim=-1)
    fast = exact.quantise([heard], smallest_snr=SMALLEST_SNR)
    vocoders = {
        "float32": exact,
        "bfloat16": seeded_vocoder(NETWORKS[network], device=device, dtype=torch.bfloat16),
        "int8": fast,
    }
    expected = exact(mel)
    ratios = {name: snr(vocoder(mel).float(), expected) for name, vocoder in vocoders.items() if name != "float32"}
    # the promise is kept for what was heard; the half that was not has the same statistics
    assert ratios["int8"] > SMALLEST_SNR - 2, "no number for a wrong result"
    option = request.config.getoption
    columns = interleaved(
        [partial(vocoder, mel) for vocoder in vocoders.values()],
        device,
        rounds=option("--rounds"),
        budget=option("--budget"),
    )
    seconds = mel.shape[-1] * MEL.hop / MEL.sample_rate
    for (name, _), column in zip(vocoders.items(), columns, strict=True):
        rows.append(
            {
                "suite": "quantised",
                "network": network,
                "precision": name,
                "layers_in_int8": len(fast.config.int8) if name == "int8" else 0,
                "milliseconds": round(1e3 * median(column), 3),
                "times_real_time": round(seconds / median(column), 2),
                "snr_to_float32": round(ratios[name], 1) if name in ratios else None,
            }
        )


def snr(wave: Tensor, expected: Tensor) -> float:
    """Return the energy of a wave over that of its error, in dB."""
    return 10 * math.log10(float(expected.square().sum() / (wave - expected).square().sum()))

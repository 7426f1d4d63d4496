"""A training step of HiFi-GAN: ours against the official one in plain PyTorch, in turn, in one process.

Correctness comes first: from equal weights and an equal batch, the losses of both must agree. On CUDA the batch is the
official 16 segments, and a second peer runs under bfloat16 autocast; on a CPU one segment is enough to see the ratio.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from official_hifigan import OfficialGenerator, official_step

from fastvoc.audio import mel_spectrogram
from fastvoc.checkpoints import hifigan
from fastvoc.train.config import load_config
from fastvoc.train.gan import GanTask

RELATIVE = 1e-3
"""Single-precision sums over eight networks in another order: the losses of two steps agree to this."""


@pytest.mark.parametrize("recipe", ["hifigan-v1", "hifigan-v2", "hifigan-v3"])
def test_training_step(recipe: str, device: str, clock: Callable[..., list[float]], rows: list[dict[str, Any]]) -> None:
    batch = 16 if device == "cuda" else 1
    precision = "bfloat16" if device == "cuda" else "float32"
    config = load_config(recipe, {"batch": batch, "precision": precision, "data.recordings": "tones"})
    wave = 0.3 * torch.randn(batch, config.segment, generator=torch.Generator().manual_seed(0)).to(device)

    task = GanTask(config, torch.device(device))
    assert task.adversary is not None
    generator = OfficialGenerator(config.generator).to(device)
    state = hifigan.write(config.generator, task.plain_generator().state_dict())["generator"]
    generator.load_state_dict(state)
    discriminators = copy.deepcopy(task.adversary.network)
    settings = {"lr": 2e-4, "betas": (0.8, 0.99)}
    step = official_step(
        generator,
        discriminators,
        (
            torch.optim.AdamW(generator.parameters(), **settings),
            torch.optim.AdamW(discriminators.parameters(), **settings),
        ),
        lambda wave: mel_spectrogram(wave, config.mel),
        lambda wave: mel_spectrogram(wave, config.loss_mel or config.mel),
    )

    ours = task.step(wave, step=1)
    theirs = step(wave)
    weights = config.losses
    total = sum(float(getattr(weights, name) * ours[name]) for name in ("adversarial", "features", "mel"))
    tolerance = RELATIVE if precision == "float32" else 30 * RELATIVE
    assert float(ours["discriminators"]) == pytest.approx(theirs[0], rel=tolerance)
    assert total == pytest.approx(theirs[1], rel=tolerance)

    def official_autocast() -> None:
        with torch.autocast(device, torch.bfloat16):
            step(wave)

    peers = {"official, eager": lambda: step(wave)} | (
        {"official, bfloat16": official_autocast} if device == "cuda" else {}
    )
    taken = clock(lambda: task.step(wave, step=2), *peers.values())
    memory = [_peak(run, device) for run in (lambda: task.step(wave, step=2), *peers.values())]
    for n, name in enumerate(["fastvoc", *peers]):
        rows.append(
            {
                "suite": "training",
                "recipe": recipe,
                "maker": name,
                "precision": precision if name == "fastvoc" else "bfloat16" if "bfloat16" in name else "float32",
                "batch": batch,
                "segment": config.segment,
                "milliseconds": round(taken[n] * 1e3, 1),
                "steps_per_second": round(1 / taken[n], 3),
                "ratio_to_fastvoc": round(taken[n] / taken[0], 2),
                "peak_gbytes": memory[n],
            }
        )


def _peak(run: Callable[[], Any], device: str) -> float | None:
    """Return the most memory of the device that a run holds; a CPU does not tell it for one run."""
    if device != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return round(torch.cuda.max_memory_allocated() / 1e9, 2)

"""A training step: ours against the official one in plain PyTorch, in turn, in one process.

Correctness comes first: from equal weights and an equal batch, the losses of every maker's first step must be those of
the official one in single precision. On CUDA the batch is the official 16 segments; on a CPU one is enough to see the
ratio. WaveNet and WaveGlow, which have no adversary, are measured against what their originals compute, too. What
torch.compile makes is measured with the smallest network, or all with ``--thorough``: most of its minutes are the
discriminators', which are the same.

    pytest benchmarks/test_training.py --rounds 5 --results benchmarks/results
    pytest benchmarks/test_training.py -k likelihood --rounds 5 --threads 1 --clock processor
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.measuring.first import FIRST
from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers.steps import LIKELIHOOD, Maker, Step, makers

REPOSITORY = Path(__file__).resolve().parents[1]

SMALLEST = "hifigan-v2"

RELATIVE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Sums over eight networks in another order, and in numbers of eight bits: the losses of two steps agree to this."""


@pytest.mark.parametrize("recipe", ["hifigan-v1", "hifigan-v2", "hifigan-v3"])
def test_training_step(recipe: str, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest) -> None:
    option = request.config.getoption
    compiles = option("--thorough") or (recipe == SMALLEST and not request.config.stash[FIRST].chooses)
    names = {name: maker for name, maker in makers(device).items() if compiles or not maker.compiled}
    _measure(recipe, names, "official, eager", device, rows, request)


@pytest.mark.parametrize("recipe", ["wavenet-mulaw", "waveglow-small", "waveglow"])
def test_likelihood_step(recipe: str, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest) -> None:
    _measure(recipe, LIKELIHOOD, "plain PyTorch", device, rows, request)


def _measure(
    recipe: str,
    names: dict[str, Maker],
    peer: str,
    device: str,
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    option = request.config.getoption
    steps, memory, losses = {}, {}, {}
    for name, maker in names.items():
        if reason := maker.missing(device):
            warnings.warn(f"{name} is left out: {reason}", stacklevel=1)
            continue
        held = torch.cuda.memory_allocated() if device == "cuda" else 0
        steps[name] = Step(recipe, maker, device)
        losses[name] = [float(loss) for loss in steps[name]()]
        steps[name].warm_up()
        memory[name] = _peak(recipe, name, steps[name], device, held)
    for name, found in losses.items():
        relative = RELATIVE[names[name].precision]
        assert found == pytest.approx(losses[peer], rel=relative), name

    rounds, budget = option("--rounds"), option("--budget")
    columns = interleaved(list(steps.values()), device, rounds=rounds, budget=budget)
    taken = {name: median(column) for name, column in zip(steps, columns, strict=True)}
    for name, step in steps.items():
        rows.append(
            {
                "suite": "training",
                "recipe": recipe,
                "maker": name,
                "precision": names[name].precision,
                "batch": step.config.batch,
                "segment": step.config.segment,
                "rounds": len(columns[0]),
                "milliseconds": round(taken[name] * 1e3, 1),
                "steps_per_second": round(1 / taken[name], 3),
                "ratio_to_fastvoc": round(taken[name] / taken["fastvoc"], 2),
                "peak_gbytes": memory[name],
                "shares": None
                if names[name].compiled or names[name].graph
                else step.shares(rounds=rounds, budget=budget / len(steps)),
            }
        )


def _peak(recipe: str, name: str, step: Step, device: str, held: int) -> float:
    """Return the gigabytes that a maker's training takes: on CUDA of tensors, on a CPU resident, in its own process."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return round((torch.cuda.max_memory_allocated() - held) / 1e9, 2)
    command = [sys.executable, "-m", "benchmarks.peers.steps", recipe, name, device, str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return round(float(done.stdout) / 1e3, 2)

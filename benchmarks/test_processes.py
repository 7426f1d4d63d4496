"""Engines in processes of their own: start-up, memory and files; and how costs grow with length, batch and threads.

`pytest benchmarks/test_processes.py -k cpu --results benchmarks/results` keeps the rows; `--longest 3600` goes to an
hour of sound.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.networks import MEL, frames_of, some_mel
from benchmarks.measuring.provenance import REPOSITORY
from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers.engines import ENGINES, Setting
from benchmarks.test_vocoders import arithmetic

GROWTH = 1.5
"""What a second of sound may cost in a long sound, as a multiple of the least that it costs in any."""

LONG = 600
"""Seconds of sound from which one run says enough."""

STREAM_MBYTES = 64
"""By which a stream's memory may vary over its length: what allocators keep."""

IMPORTS = {
    "fastvoc": ["torch", "fastvoc.faces.vocoder"],
    "ONNX Runtime": ["onnxruntime"],
    "OpenVINO": ["openvino"],
    "transformers": ["torch", "transformers.models.speecht5.modeling_speecht5"],
}
"""What a process imports for an engine; torch for any other."""

STARTS = 3
"""Processes of which the median start counts."""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["hifigan-v1", "hifigan-v2"])
def test_process(
    name: str,
    engine: str,
    device: str,
    files: Callable[[str], Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    kind, folder = ENGINES[engine], files(name)
    precisions = [one for one in kind.precisions.get(device, ()) if one in ("float32", "bfloat16")]
    reason = kind.missing(folder, device) if precisions else f"it does not run on {device}"
    if reason is None and kind.patient and not request.config.getoption("--thorough"):
        reason = "it takes long to start; --thorough waits for it"
    if reason is not None:
        pytest.skip(f"{engine}: {reason}")
    size = sum(_size(folder / file) for file in kind.files)
    for precision in precisions:
        asked = {"engine": engine, "files": str(folder), "precision": precision, "device": device, "threads": 1}
        asked["import"] = IMPORTS.get(engine, ["torch"])
        # how long a start takes varies, how much memory a call takes does not
        for length, starts in ((1.0, STARTS), (10.0, 1)):
            mel = tmp_path / f"{length:g}.npy"
            np.save(mel, some_mel(frames_of(length)).numpy())
            runs = [probe(asked | {"mel": str(mel)}) for _ in range(starts)]
            found = {key: round(median(run[key] for run in runs), 3) for key in runs[0] if key != "peak_of"}
            row = {"suite": "processes", "network": name, "engine": engine, "precision": precision, "threads": 1}
            row |= {"seconds": length, "file_mbytes": round(size / 1e6, 2), "peak_of": runs[0]["peak_of"]}
            rows.append(row | found)


@pytest.mark.parametrize("engine", ["fastvoc", "PyTorch"])
def test_a_second_costs_the_same_in_any_length(
    engine: str, device: str, files: Callable[[str], Path], rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    network, longest = "hifigan-v2", request.config.getoption("--longest")
    # plain PyTorch keeps every activation of an hour: tens of gigabytes
    longest = min(longest, 60) if engine == "PyTorch" else longest
    lengths = [length for length in (1, 10, 60, 600, 3600) if length <= longest]
    costs = [_cost(engine, network, device, length, 1, 1, files) for length in lengths]
    for length, cost in zip(lengths, costs, strict=True):
        rows.append(_scaling("length", engine, network, cost, seconds=length, batch=1, threads=1))
    assert engine != "fastvoc" or costs[-1] <= GROWTH * min(costs), f"{costs[-1]:.4f} s for a second, after {costs}"


@pytest.mark.parametrize("engine", ["fastvoc", "PyTorch"])
def test_batch_and_threads(
    engine: str, device: str, files: Callable[[str], Path], rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    network = "hifigan-v2"
    for batch in (1, 2, 4, 8):
        cost = _cost(engine, network, device, 1, batch, 1, files)
        rows.append(_scaling("batch", engine, network, cost, seconds=1, batch=batch, threads=1))
    for threads in (
        {int(count) for count in request.config.getoption("--threads").split(",")} if device == "cpu" else ()
    ):
        cost = _cost(engine, network, device, 10, 1, threads, files)
        rows.append(_scaling("threads", engine, network, cost, seconds=10, batch=1, threads=threads))


def test_a_stream_takes_the_same_memory_at_any_length(
    device: str, files: Callable[[str], Path], rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    if device != "cpu":
        pytest.skip("resident memory is the CPU's")
    network = "hifigan-v2"
    asked = {"engine": "stream", "files": str(files(network)), "frames": 64, "threads": 1}
    found = [probe(asked | {"seconds": length}) for length in (10, request.config.getoption("--longest"))]
    for one in found:
        rows.append(
            _scaling("stream", "fastvoc", network, one["cost"], seconds=round(one["seconds"], 1), batch=1, threads=1)
            | {"peak_mbytes": one["peak_mbytes"]}
        )
    assert found[1]["peak_mbytes"] <= found[0]["peak_mbytes"] + STREAM_MBYTES


def probe(asked: dict[str, Any]) -> dict[str, Any]:
    """Run `benchmarks.peers.probe` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers.probe", json.dumps(asked | {"begun": time.monotonic()})]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr.strip().splitlines()[-1]}\n{done.stderr[-2000:]}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _cost(
    engine: str, network: str, device: str, length: float, batch: int, threads: int, files: Callable[[str], Path]
) -> float:
    """Measure the seconds that a second of sound takes."""
    mel = some_mel(frames_of(length), batch=batch)
    with arithmetic("float32", threads):
        run = ENGINES[engine].start(Setting(files=files(network), mel=mel.numpy(), device=device, threads=threads))
        if length < LONG:
            run()
        [taken] = interleaved([run], device, rounds=15 if length < LONG else 1, budget=2)
    return median(taken) / (mel.shape[-1] * MEL.hop / MEL.sample_rate * batch)


def _scaling(axis: str, engine: str, network: str, cost: float, **where: float) -> dict[str, Any]:
    return {
        "suite": "scaling",
        "axis": axis,
        "engine": engine,
        "network": network,
        **where,
        "milliseconds_per_second": round(cost * 1e3, 3),
    }


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )

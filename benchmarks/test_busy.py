"""Whole vocoders on cores that others want too, in one process: what is left of the speed that they have to themselves.

Engines run in turn, round after round, each in four situations: after a pause; at once after a call of an engine whose
threads go on spinning, ONNX Runtime as it is by default or OpenVINO; and while another process computes all the time.
That one is stopped while it is not wanted. Medians count; without two cores there is nothing to see::

    pytest benchmarks/test_busy.py --networks hifigan-v2 --results benchmarks/results
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.measuring.gate import Gate
from benchmarks.measuring.networks import MEL, NETWORKS, frames_of, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import FEWEST, seconds
from benchmarks.peers.engines import ENGINES, Run, Setting, onnx_runtime
from benchmarks.peers.plain import PlainGenerator
from benchmarks.test_vocoders import arithmetic, start
from fastvoc import Vocoder

PEERS = ("fastvoc", "PyTorch", "PyTorch, channels-last", "ONNX Runtime", "OpenVINO")
SPINNERS = ("ONNX Runtime", "OpenVINO")

PAUSE = 0.1
"""Seconds, in which threads that spin give up."""

SETTLED = 0.02
"""Seconds that the scheduler has to get used to another process."""

SHORT = 8
"""Frames of the call that leaves threads spinning."""


def test_busy(
    network: str,
    device: str,
    precision: str,
    threads: int,
    files: Callable[[str], Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    skip_unless_shared(device, threads)
    length = longest(request)
    mel, short = some_mel(frames_of(length)), some_mel(SHORT)
    vocoder = seeded_vocoder(NETWORKS[network])
    common = {"files": files(network), "device": device, "precision": precision, "threads": threads}
    setting = Setting(mel=mel.numpy(), **common)
    with arithmetic(precision, threads), torch.inference_mode():
        gate = Gate(PlainGenerator(vocoder.generator), mel, vocoder.hop, vocoder.receptive_field, device)
        started = start(setting, gate, thorough=False, names=PEERS)
        runs = {name: engine["run"] for name, engine in started.items() if "run" in engine}
        assert "fastvoc" in runs, started["fastvoc"]["left_out"]
        spinners = spinning(Setting(mel=short.numpy(), **(common | {"precision": "float32"})))
        taken = in_situations(runs, spinners, request)
    case = {"suite": "busy", "network": network, "precision": precision, "seconds": length, "threads": threads}
    rows += rows_of(case, taken, mel.shape[-1] * MEL.hop / MEL.sample_rate)


def test_default_vocoder_busy(
    device: str,
    voice_threads: int,
    files: Callable[[str], Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    """The vocoder that comes with the package, which has no peer among the engines."""
    skip_unless_shared(device, voice_threads)
    length = longest(request)
    vocoder = Vocoder.from_pretrained()
    frames = max(1, round(length * vocoder.sample_rate / vocoder.hop))
    mel, short = some_mel(frames)[:, : vocoder.generator.mel_bands], some_mel(SHORT)
    with arithmetic("float32", voice_threads), torch.inference_mode():
        spinners = spinning(Setting(files=files("hifigan-v2"), mel=short.numpy(), threads=voice_threads))
        taken = in_situations({"fastvoc": lambda: vocoder(mel)}, spinners, request)
    case = {"suite": "busy", "network": "griffin-lim-net", "precision": "float32", "seconds": length}
    rows += rows_of(case | {"threads": voice_threads}, taken, frames * vocoder.hop / vocoder.sample_rate)


def skip_unless_shared(device: str, threads: int) -> None:
    """Skip where no core is shared by the threads of a vocoder and somebody else."""
    if device != "cpu":
        pytest.skip("it is the cores of the CPU that others want")
    if threads < 2:
        pytest.skip("one thread has a core to itself")


def longest(request: pytest.FixtureRequest) -> float:
    """Return the longest of the sounds that are asked for, in seconds."""
    return max(float(number) for number in request.config.getoption("--seconds").split(","))


def spinning(setting: Setting) -> dict[str, Run]:
    """Start engines whose threads go on spinning behind a call; those that are there."""
    makers = {
        "ONNX Runtime": lambda: onnx_runtime(setting, spins=True),
        "OpenVINO": lambda: ENGINES["OpenVINO"].start(setting),
    }
    there = {name: make() for name, make in makers.items() if ENGINES[name].missing(setting.files, "cpu") is None}
    for run in there.values():
        run()
    return there


def in_situations(
    runs: Mapping[str, Run], spinners: Mapping[str, Run], request: pytest.FixtureRequest
) -> dict[str, dict[str, list[float]]]:
    """Time every engine in every situation, in turn: engine → situation → seconds."""
    rounds, budget = request.config.getoption("--rounds"), request.config.getoption("--budget")
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in runs}
    begin = time.perf_counter()
    with other_process() as working:
        for done in range(rounds):
            if done >= FEWEST and time.perf_counter() - begin > budget * len(runs):
                break
            for name, run in runs.items():
                for situation in ("quiet", *spinners, "beside"):
                    time.sleep(PAUSE)
                    if situation in spinners:
                        spinners[situation]()
                    if situation == "beside":
                        with working():
                            spent = seconds(run, "cpu")
                    else:
                        spent = seconds(run, "cpu")
                    taken[name].setdefault(situation, []).append(spent)
    return taken


@contextmanager
def other_process() -> Iterator[Callable[[], Any]]:
    """Start a process that computes without end, but only inside what is given."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    process.send_signal(signal.SIGSTOP)

    @contextmanager
    def working() -> Iterator[None]:
        process.send_signal(signal.SIGCONT)
        time.sleep(SETTLED)
        yield
        process.send_signal(signal.SIGSTOP)

    try:
        yield working
    finally:
        process.kill()
        process.wait()


def rows_of(case: dict[str, Any], taken: dict[str, dict[str, list[float]]], sound: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each engine and situation."""
    for engine, situations in taken.items():
        quiet = median(situations["quiet"])
        for situation, column in situations.items():
            middle = median(column)
            yield case | {
                "engine": engine,
                "situation": situation,
                "cores": os.cpu_count(),
                "rounds": len(column),
                "milliseconds": round(middle * 1e3, 3),
                "least_milliseconds": round(min(column) * 1e3, 3),
                "times_real_time": round(sound / middle, 2),
                "share_of_quiet": round(quiet / middle, 3),
            }

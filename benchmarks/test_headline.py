"""The figures that are asked for first: a batch of long sounds and one of a second, in float16, in a minute of a GPU.

Ours twice: the recorded graph played again and again, which is the GPU alone, and `vocoder(mel)` by the clock on the
wall, which is what a user waits for. The peers by the same clock: plain PyTorch with narrow weights, the same in
channels-last memory, its kernels as one CUDA graph, and what `torch.compile` makes of it with its longest search, which
also plays CUDA graphs. The last one takes minutes, so that it comes after everything else::

    pytest benchmarks/test_headline.py --device cuda -k eager
    pytest benchmarks/test_headline.py --device cuda -k compiled
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from benchmarks.measuring.ceilings import peak_flops
from benchmarks.measuring.gate import Gate
from benchmarks.measuring.networks import MEL, NETWORKS, runs_on, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import interleaved, on_device
from benchmarks.peers.engines import Setting
from benchmarks.peers.plain import PlainGenerator
from benchmarks.test_vocoders import arithmetic, start
from fastvoc import Vocoder
from fastvoc.cli.checkpoint.info import multiply_accumulates

PUBLISHED = ("hifigan-v1", "hifigan-v2", "melgan")
PEERS = {
    "eager": ("PyTorch, narrow weights", "PyTorch, channels-last", "PyTorch, CUDA graph"),
    "compiled": ("torch.compile, max-autotune",),
}
WARM_UP = 3
"""Calls after the first, in which `torch.compile` records and plays its graphs."""

FEW = 3
"""Rounds of runs in a row."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spread the networks and sounds over the options; what takes long to start comes last."""
    option = metafunc.config.getoption
    sounds = [tuple(map(int, sound.split("x"))) for sound in option("--sounds").split(",")]
    metafunc.parametrize("peers", PEERS)
    metafunc.parametrize("name", (option("--networks") or ",".join(PUBLISHED)).split(","))
    metafunc.parametrize("batch,frames", sounds, ids=[f"{batch} x {frames}" for batch, frames in sounds])


def test_headline(
    peers: str,
    name: str,
    batch: int,
    frames: int,
    device: str,
    files: Callable[..., Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
) -> None:
    option, precision = request.config.getoption, "float16" if device == "cuda" else "float32"
    threads, rounds = torch.get_num_threads(), option("--rounds")
    vocoder = seeded_vocoder(NETWORKS[name], device=device, dtype=getattr(torch, precision))
    mel = some_mel(frames, batch=batch)
    there = mel.to(device)
    setting = Setting(
        files=files(name, PEERS[peers]), mel=mel.numpy(), device=device, precision=precision, threads=threads
    )
    with arithmetic(precision, threads):
        plain = PlainGenerator(seeded_vocoder(NETWORKS[name]).generator)
        gate = Gate(plain, mel, vocoder.hop, vocoder.receptive_field, device)
        off, allowed = gate.error(vocoder(there)), gate.allowed(precision)
        assert off <= allowed, f"off by {off:.2e} where {allowed:.2e} is allowed: no number for a wrong result"
        started = start(setting, gate, thorough=True, names=PEERS[peers])
        runs = {"fastvoc": lambda: vocoder(there)}
        runs |= {peer: found["run"] for peer, found in started.items() if "run" in found}
        for run in runs.values():
            for _ in range(WARM_UP):
                run()
        taken = interleaved(list(runs.values()), device, rounds=rounds, budget=option("--budget"))
        busy = {peer: on_device(run, device, rounds=FEW) for peer, run in runs.items()}
        replay = replay_of(vocoder)
        alone = None if replay is None else on_device(replay, device, rounds=rounds)
        peak = peak_flops(device, threads, precision)

    sound = batch * frames * MEL.hop / MEL.sample_rate
    flops = 2 * multiply_accumulates(vocoder) * sound
    case = {"suite": "headline", "network": name, "precision": precision, "batch": batch, "frames": frames}
    case |= {"peers": peers, "threads": threads}

    def row(engine: str, seconds: float) -> dict[str, Any]:
        speed = {"milliseconds": round(seconds * 1e3, 4), "times_real_time": round(sound / seconds, 1)}
        return case | {"engine": engine} | speed | {"share_of_peak": round(flops / seconds / peak, 4)}

    walls = {peer: median(column) for peer, column in zip(runs, taken, strict=True)}
    for peer, seconds in walls.items():
        found = {key: value for key, value in started.get(peer, {}).items() if key != "run"}
        extra = {"milliseconds_in_a_row": round(busy[peer] * 1e3, 4), "rounds": len(taken[0])}
        rows.append(row(peer, seconds) | extra | {"ratio_to_fastvoc": round(seconds / walls["fastvoc"], 3)} | found)
    rows[0] |= {"backend": runs_on(vocoder), "error": off, "error_allowed": allowed, "peak_gflops": round(peak / 1e9)}
    if alone is not None:
        rows.append(row("fastvoc, replay", alone))
    rows += [case | {"engine": peer} | found for peer, found in started.items() if "run" not in found]


def replay_of(vocoder: Vocoder) -> Callable[[], Any] | None:
    """Return what plays the graph that the latest call has played, or None if calls run without one."""
    graphs = getattr(vocoder._runner.fastest(), "graphs", None)
    return next(reversed(graphs.values())).replay if graphs else None

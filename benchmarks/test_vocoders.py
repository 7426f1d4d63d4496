"""Whole vocoders: fastvoc as a user calls it against everything else that runs the same weights, in one process.

Engines run in turn on the same mel, round after round; medians count. One whose wave is off is not timed, and one that
is not installed is left out; the row of either says why. Five networks, a second of sound and every precision and
number of threads take a few minutes::

    pytest benchmarks/test_vocoders.py -k cpu
    pytest benchmarks/test_vocoders.py -k cpu --thorough --seconds 0.2,1,10 --results benchmarks/results
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest
import torch
from torch import _dynamo

from benchmarks.measuring.ceilings import peak_flops
from benchmarks.measuring.gate import Gate
from benchmarks.measuring.networks import NETWORKS, frames_of, runs_on, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import interleaved, seconds
from benchmarks.peers.engines import ENGINES, Run, Setting
from benchmarks.peers.plain import PlainGenerator
from fastvoc.cli.checkpoint.info import multiply_accumulates


def test_vocoder(
    network: str,
    device: str,
    precision: str,
    threads: int,
    length: float,
    batch: int,
    files: Callable[[str], Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    benchmark: Any,
) -> None:
    option = request.config.getoption
    vocoder = seeded_vocoder(NETWORKS[network])
    convention = vocoder.config.mel
    mel = some_mel(frames_of(length, convention), batch=batch, mel=convention)
    setting = Setting(files=files(network), mel=mel.numpy(), device=device, precision=precision, threads=threads)
    case = {"suite": "vocoders", "network": network, "precision": precision, "seconds": length, "batch": batch}
    with arithmetic(precision, threads):
        gate = Gate(PlainGenerator(vocoder.generator), mel, vocoder.hop, vocoder.receptive_field, device)
        started = start(setting, gate, thorough=option("--thorough"))
        runs = {name: engine["run"] for name, engine in started.items() if "run" in engine}
        assert "fastvoc" in runs, started["fastvoc"]["left_out"]
        with torch.inference_mode():
            columns = interleaved(list(runs.values()), device, rounds=option("--rounds"), budget=option("--budget"))
            benchmark.pedantic(runs["fastvoc"], rounds=1)
        peak = peak_flops(device, threads, precision)

    dtype = getattr(torch, "float32" if precision == "tf32" else precision)
    ran = runs_on(seeded_vocoder(NETWORKS[network], device=device, dtype=dtype))
    taken = dict(zip(runs, columns, strict=True))
    peers = {name: median(column) for name, column in taken.items() if name != "fastvoc"}
    best = min(peers, key=peers.__getitem__, default=None)
    sound = mel.shape[-1] * vocoder.hop / vocoder.sample_rate * batch
    flops = 2 * multiply_accumulates(vocoder) * sound
    for name, engine in started.items():
        row = case | {"threads": threads, "engine": name, "rounds": len(columns[0])}
        row |= {key: value for key, value in engine.items() if key != "run"}
        if name in taken:
            middle = median(taken[name])
            low, _, high = quantiles(taken[name])
            row |= {
                "milliseconds": round(middle * 1e3, 3),
                "milliseconds_quartiles": [round(low * 1e3, 3), round(high * 1e3, 3)],
                "times_real_time": round(sound / middle, 2),
                "samples_per_second": round(sound * vocoder.sample_rate / middle),
                "ratio_to_fastvoc": round(middle / median(taken["fastvoc"]), 3),
                "share_of_peak": round(flops / middle / peak, 3),
                "peak_gflops": round(peak / 1e9, 1),
            }
        if name == "fastvoc":
            row["backend"] = ran
        if name == "fastvoc" and best is not None:
            row |= {"best_peer": best, "ratio_to_best_peer": round(peers[best] / median(taken[name]), 3)}
        rows.append(row)
    benchmark.extra_info.update(next(row for row in rows if row["engine"] == "fastvoc"))


def start(
    setting: Setting, gate: Gate, *, thorough: bool, names: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Start every engine that can run a setting, and keep those whose wave is right.

    Parameters
    ----------
    setting : Setting
    gate : Gate
        Of its mel.
    thorough : bool
        Whether to wait for those that take long to start.
    names : collection of str, optional
        Of engines; by default all.

    Returns
    -------
    dict of str to dict
        Name → ``run`` with ``first_call_seconds``, ``error`` and ``error_allowed``; or why it is ``left_out``.
    """
    _dynamo.reset()
    allowed = gate.allowed(setting.precision)
    found: dict[str, dict[str, Any]] = {}
    for name, engine in ENGINES.items():
        if (names is not None and name not in names) or setting.precision not in engine.precisions.get(
            setting.device, ()
        ):
            continue
        reason = engine.missing(setting.files, setting.device)
        if reason is None and engine.patient and not thorough:
            reason = "it takes long to start; --thorough waits for it"
        if reason is not None:
            found[name] = {"left_out": reason}
            continue
        try:
            run, wave, first = first_call(partial(engine.start, setting), setting.device)
        except Exception as error:
            # whatever other people's software raises is told in its row, and the others go on
            found[name] = {"left_out": f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
            continue
        error = gate.error(wave)
        found[name] = {"first_call_seconds": round(first, 3), "error": error, "error_allowed": allowed}
        found[name] |= (
            {"run": run}
            if error <= allowed
            else {"left_out": f"off by {error:.2e} where {allowed:.2e} is allowed: no number for a wrong result"}
        )
    return found


def first_call(start: Callable[[], Run], device: str) -> tuple[Run, Any, float]:
    """Start an engine and run it once: what runs it again, its wave, and the seconds of both."""
    results: list[Any] = []

    def both() -> None:
        results.append(start())
        results.append(results[0]())

    taken = seconds(both, device)
    return results[0], results[1], taken


@contextmanager
def arithmetic(precision: str, threads: int) -> Iterator[None]:
    """Set the threads, and whether a GPU may round single precision to ten bits, for all engines alike."""
    kinds = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before, rounded = torch.get_num_threads(), [kind.allow_tf32 for kind in kinds]
    torch.set_num_threads(threads)
    for kind in kinds:
        kind.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for kind, allowed in zip(kinds, rounded, strict=True):
            kind.allow_tf32 = allowed

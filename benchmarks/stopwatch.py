"""One way to take the time of a run, on a CPU or a GPU, and one way to compare runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

FEWEST = 3
"""Rounds that are timed whatever they take; a median needs as many."""


def seconds(run: Callable[[], Any], device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a run takes, until the device is done with it, by a clock that counts seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def on_device(run: Callable[[], Any], device: str, *, rounds: int, runs: int = 20) -> float:
    """Return how long a device takes for a run when the next one is always waiting, in seconds.

    Parameters
    ----------
    run : callable
        It has run before.
    device : {"cpu", "cuda"}
    rounds : int
        The median of so many counts.
    runs : int
        In a row, between two events of the device.
    """

    def row() -> None:
        for _ in range(runs):
            run()

    def between_events() -> float:
        if device != "cuda":
            return seconds(row, device)
        before, behind = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        row()
        behind.record()
        torch.cuda.synchronize()
        return before.elapsed_time(behind) / 1e3

    return median(between_events() for _ in range(rounds)) / runs


def interleaved(
    runs: Sequence[Callable[[], Any]],
    device: str,
    *,
    rounds: int,
    budget: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Time callables in turn, round after round, so that a machine that drifts drifts for all of them.

    Parameters
    ----------
    runs : sequence of callable
        Each has run before.
    device : {"cpu", "cuda"}
    rounds : int
        At most so many.
    budget : float
        No further round begins after so many seconds, if there have been `FEWEST`.
    clock : callable
        As in `seconds`: `time.process_time` is what the processor spent on it, whoever else it served meanwhile.

    Returns
    -------
    list of list of float
        For each callable its times, in seconds.
    """
    begin = time.perf_counter()
    taken: list[list[float]] = [[] for _ in runs]
    for done in range(rounds):
        if done >= FEWEST and time.perf_counter() - begin > budget:
            break
        for run, column in zip(runs, taken, strict=True):
            column.append(seconds(run, device, clock))
    return taken

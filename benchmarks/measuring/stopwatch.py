"""One way to take the time of a run, on a CPU or a GPU, and one way to compare runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

FEWEST = 3
"""Rounds that are timed whatever they take; a median needs as many."""

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
"""What tells the time on a CPU: that of the world, or what the process had of processors, all threads together. For one
thread both are the same on a machine that is free, and the latter hardly changes where other work shares it."""

clock = "wall"
"""The one in use, of `CLOCKS`."""


def seconds(run: Callable[[], Any], device: str) -> float:
    """Return how long a run takes, until the device is done with it."""
    if device == "cuda":
        torch.cuda.synchronize()
    now = CLOCKS[clock if device == "cpu" else "wall"]
    start = now()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - start


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
    runs: Sequence[Callable[[], Any]], device: str, *, rounds: int, budget: float = float("inf")
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
            column.append(seconds(run, device))
    return taken

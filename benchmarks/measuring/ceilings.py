"""What the machine itself can do at best, measured in the run that is compared with it."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring.stopwatch import seconds
from fastvoc import native
from fastvoc.ops import backends

RUNS = 7

SUSTAINED = 0.5
"""Seconds that a GPU is kept busy for a ceiling: clocks that it holds for a moment are not what it can do."""


def ceilings(device: str, threads: int) -> dict[str, float]:
    """Measure the most FLOP/s in single precision, and bytes/s, that the machine gives to so many threads."""
    return {"flops": peak_flops(device, threads, "float32"), "bytes": _bytes(device)}


@functools.cache
def peak_flops(device: str, threads: int, precision: str) -> float:
    """Measure the most floating-point operations per second in a precision.

    On a CPU it is what one core does in registers, times the threads. On a GPU, and in precisions in which the CPU's
    instructions do not multiply, it is the fastest of several products of matrices of random numbers.
    """
    if device == "cpu" and backends()["cpu"] is None and (flops := _in_registers(precision)):
        return flops * threads
    dtype = getattr(torch, "float32" if precision == "tf32" else precision)
    return max(_product(device, size, dtype) for size in ((512, 1024, 2048) if device == "cpu" else (4096, 8192)))


def multiply_add(precision: str, rounds: int = 1_000_000) -> int:
    """Multiply and add in the registers of one core, with the CPU kernels' instruction set.

    Returns
    -------
    int
        The operations done: 0 in precisions in which these instructions do not multiply, or without a C++ compiler.
    """
    instrument = _instrument()
    if instrument is None:
        return 0
    isa = next(name for name, number in native.isas().items() if number == native.isa())
    return int(instrument(isa.encode(), precision.encode(), rounds, (ctypes.c_float * 16)()))


@functools.cache
def _instrument() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(__file__).with_name("multiply_add.cpp"), Path(folder) / "multiply_add.so"
        options = ["-O3", "-ffp-contract=fast", "-Wno-psabi", "-shared", "-fPIC"]
        try:
            subprocess.run([os.environ.get("CXX") or "c++", *options, source, "-o", library], check=True)
        except OSError:
            return None
        function = ctypes.CDLL(str(library)).multiply_add
    function.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p]
    function.restype = ctypes.c_int64
    return function


def _in_registers(precision: str) -> float:
    def multiply() -> int:
        return multiply_add(precision)

    return float(multiply()) / min(seconds(multiply, "cpu") for _ in range(RUNS))


def _product(device: str, size: int, dtype: torch.dtype) -> float:
    # of random numbers: a GPU multiplies equal ones faster, since fewer of its wires change
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best(lambda: one @ other, device)


def _bytes(device: str) -> float:
    size = 1 << 26 if device == "cpu" else 1 << 30
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device)


def _best(run: Callable[[], Any], device: str) -> float:
    """Return the seconds of a run: on a CPU of the fastest, on a GPU on average while it is kept busy."""
    run()
    if device == "cpu":
        return min(seconds(run, device) for _ in range(RUNS))
    count = math.ceil(SUSTAINED / min(seconds(run, device) for _ in range(RUNS)))

    def often() -> None:
        for _ in range(count):
            run()

    return seconds(often, device) / count

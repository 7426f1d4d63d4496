"""What the machine itself can do at best, measured in the run that is compared with it."""

from __future__ import annotations

import functools

import torch

from benchmarks.stopwatch import seconds
from fastvoc.ops import _native, backends

RUNS = 7


def ceilings(device: str, threads: int) -> dict[str, float]:
    """Measure the most FLOP/s in single precision, and bytes/s, that the machine gives to so many threads."""
    return {"flops": peak_flops(device, threads, "float32"), "bytes": _bytes(device)}


@functools.cache
def peak_flops(device: str, threads: int, precision: str) -> float:
    """Measure the most floating-point operations per second in a precision.

    On a CPU in single precision it is what one core does in registers, times the threads. Elsewhere it is the fastest
    of several products of matrices.
    """
    if device == "cpu" and precision == "float32" and backends()["cpu"] is None:
        return _in_registers() * threads
    dtype = getattr(torch, "float32" if precision == "tf32" else precision)
    return max(_product(device, size, dtype) for size in ((512, 1024, 2048) if device == "cpu" else (4096, 8192)))


def _in_registers() -> float:
    ffi, library = _native.library()
    scratch, rounds = ffi.new("float[16]"), 2_000_000
    done = library.fastvoc_multiply_add(_native.isa(), rounds, scratch)
    fastest = min(
        seconds(lambda: library.fastvoc_multiply_add(_native.isa(), rounds, scratch), "cpu") for _ in range(RUNS)
    )
    return float(done / fastest)


def _product(device: str, size: int, dtype: torch.dtype) -> float:
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(seconds(lambda: matrix @ matrix, device) for _ in range(RUNS))


def _bytes(device: str) -> float:
    size = 1 << 26 if device == "cpu" else 1 << 30
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(RUNS))

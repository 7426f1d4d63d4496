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

    On a CPU it is what one core does in registers, times the threads. On a GPU, and in precisions in which the CPU's
    instructions do not multiply, it is the fastest of several products of matrices.
    """
    if device == "cpu" and backends()["cpu"] is None and (flops := _in_registers(precision)):
        return flops * threads
    dtype = getattr(torch, "float32" if precision == "tf32" else precision)
    return max(_product(device, size, dtype) for size in ((512, 1024, 2048) if device == "cpu" else (4096, 8192)))


def _in_registers(precision: str) -> float:
    ffi, library = _native.library()
    kind, scratch, rounds = getattr(library, f"FASTVOC_{precision.upper()}"), ffi.new("float[16]"), 1_000_000

    def multiply() -> int:
        return int(library.fastvoc_multiply_add(_native.isa(), kind, rounds, scratch))

    return float(multiply()) / min(seconds(multiply, "cpu") for _ in range(RUNS))


def _product(device: str, size: int, dtype: torch.dtype) -> float:
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / min(seconds(lambda: matrix @ matrix, device) for _ in range(RUNS))


def _bytes(device: str) -> float:
    size = 1 << 26 if device == "cpu" else 1 << 30
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source), device) for _ in range(RUNS))

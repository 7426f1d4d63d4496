"""Every op on the shapes of real models: fastvoc's choice against plain PyTorch, in turn, in one process.

A row is only written for a result that passes the contract; slower cases are shown like the others.
`pytest benchmarks/test_ops.py --results benchmarks/results` keeps the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring.ceilings import peak_flops
from fastvoc.ops import OPS, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.contract import backend_of, errors
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.op import Op

GATE_FRAMES = 256  # float64 on the whole second would take longer than the benchmark

CASES = [
    pytest.param(op, case, id=f"{op.name}: {case.name}")
    for op in OPS.values()
    for case in op.cases()
    if case.model and (op.kernels or op.composed)
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("memory", ["channels-first", "channels-last"])
@pytest.mark.parametrize(("op", "case"), CASES)
def test_op(
    op: Op[Any],
    case: Case[Any],
    memory: str,
    dtype: str,
    device: str,
    clock: Callable[..., list[float]],
    ceilings: dict[str, float],
    rows: list[dict[str, Any]],
    benchmark: Any,
) -> None:
    kind = getattr(torch, dtype)
    short = case.call(dtype=kind, device=device, frames=min(case.frames, GATE_FRAMES))
    for worst, allowed in errors(short, op(short)):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed: no number for a wrong result"

    plain = case.call(dtype=kind, device=device)
    call = op.kind(*(_in_memory(value, memory) for value in plain))

    def ours() -> Any:
        return op(call)

    def theirs() -> Any:
        with use_backend("reference"):
            return op(plain)

    with torch.inference_mode():
        seconds, torch_seconds = clock(ours, theirs)
        ours()
        backend = backend_of(op)
        benchmark.pedantic(ours, rounds=3)
    flops, size = case.flops(case.frames), case.elements(case.frames) * kind.itemsize
    peak = peak_flops(device, torch.get_num_threads(), dtype)
    floor = max(flops / peak, size / ceilings["bytes"])
    row = {
        "suite": "ops",
        "op": op.name,
        "case": case.name,
        "memory": memory,
        "dtype": dtype,
        "backend": backend,
        "microseconds": round(seconds * 1e6, 1),
        "torch_microseconds": round(torch_seconds * 1e6, 1),
        "ratio": round(torch_seconds / seconds, 2),
        "gflops": round(flops / seconds / 1e9, 1),
        "torch_gflops": round(flops / torch_seconds / 1e9, 1),
        "flops_per_byte": round(flops / size, 2),
        "share_of_arithmetic": round(flops / seconds / peak, 3),
        "share_of_bandwidth": round(size / seconds / ceilings["bytes"], 3),
        "share_of_floor": round(floor / seconds, 3),
        "ceiling_gflops": round(peak / 1e9, 1),
        "ceiling_gbytes": round(ceilings["bytes"] / 1e9, 1),
    }
    rows.append(row)
    benchmark.extra_info.update(row)


def _in_memory(value: Any, memory: str) -> Any:
    if isinstance(value, Tensor) and value.dim() == 3 and memory == "channels-last" and _is_activation(value):
        return to_channels_last(value)
    return value


def _is_activation(value: Tensor) -> bool:
    """Tell an activation, whose batch is one in every model's case, from a weight."""
    return value.shape[0] == 1 and value.shape[2] > 16

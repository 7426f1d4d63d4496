"""The kernels of plans alone: what share of the core's own multiply-adds each width and precision reaches.

Eight equal convolutions in a row, as in residual blocks, as one plan over ten thousand frames, on one thread; rounds of
the plans and of multiply-adds in registers alternate. Toom and Cook's method is counted by the multiplications of plain
sums, so that it can exceed 1. `pytest benchmarks/test_kernels.py --results benchmarks/results` keeps the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring.ceilings import multiply_add
from benchmarks.measuring.stopwatch import interleaved
from fastvoc import native, ops
from fastvoc.ops import backends
from fastvoc.ops.network import INPUT, Layer, describe, with_weights

FRAMES, LAYERS, SLOPE = 10_000, 8, 0.1
WIDTHS = (8, 16, 32, 64, 128, 256)


@pytest.mark.parametrize("taps", [3, 7, 11])
@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_kernels(
    kind: str, channels: int, taps: int, device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]]
) -> None:
    if device != "cpu" or (absent := backends()["cpu"]):
        pytest.skip(f"plans run on the CPU{'' if device != 'cpu' else f': {absent}'}")
    if kind == "bfloat16" and not native.multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    if multiply_add(kind, 1) == 0:
        pytest.skip("there is no C++ compiler, to measure what the core does at best")
    torch.manual_seed(0)
    weights = torch.randn(LAYERS, channels, channels, taps) / (channels * taps) ** 0.5
    x = torch.randn(1, FRAMES, channels).transpose(1, 2)
    methods = {"direct": _plan(weights, kind, in_order=True)}
    if kind == "float32":
        methods["Toom-Cook"] = _plan(weights, kind, in_order=False)
    expected = _plain(x.double(), weights.double())
    for method, run in methods.items():
        off = float((run(x) - expected).norm() / expected.norm())
        assert off < LAYERS * (2e-2 if kind == "bfloat16" else 2e-6), (
            f"{method} is wrong by {off:.1e}: no number for it"
        )

    def multiply() -> int:
        return multiply_add(kind)

    runs = [multiply, *(lambda run=run: run(x) for run in methods.values())]
    option = request.config.getoption
    taken = [
        median(column) for column in interleaved(runs, device, rounds=option("--rounds"), budget=option("--budget"))
    ]
    peak = multiply() / taken[0]
    flops = 2 * LAYERS * channels * channels * taps * FRAMES
    for method, seconds in zip(methods, taken[1:], strict=True):
        rows.append(
            {
                "suite": "kernels",
                "isa": next(name for name, n in native.isas().items() if n == native.isa()),
                "precision": kind,
                "method": method,
                "channels": channels,
                "taps": taps,
                "gflops": round(flops / seconds / 1e9, 1),
                "ceiling_gflops": round(peak / 1e9, 1),
                "share_of_arithmetic": round(flops / seconds / peak, 3),
            }
        )


def _plain(x: Tensor, weights: Tensor) -> Tensor:
    for weight in weights:
        x = ops.conv1d(x, weight, padding=_padding(weight), slope=SLOPE)
    return x


def _padding(weight: Tensor) -> tuple[int, int]:
    return ((weight.shape[-1] - 1) // 2,) * 2


def _plan(weights: Tensor, kind: str, *, in_order: bool) -> Callable[[Tensor], Tensor]:
    """Compile convolutions in a row; weights (layers, C, C, K)."""
    ffi, library = native.library()
    layers = with_weights(
        [
            Layer(
                kind="conv1d",
                input=number - 1 if number else INPUT,
                weight=weight,
                bias=None,
                padding=_padding(weight),
                slope=SLOPE,
            )
            for number, weight in enumerate(weights)
        ],
        torch.float32,
    )
    described = describe(layers, precision=kind.upper(), isa=native.isa(), in_order=in_order)
    plan = _memory(library.fastvoc_plan_size(described.pointer))
    native.check("plan", library.fastvoc_plan_make(described.pointer, _pointer(plan)))
    packed = _memory(library.fastvoc_plan_packed_size(_pointer(plan)))
    library.fastvoc_plan_pack(described.pointer, _pointer(plan), 1, _pointer(packed))
    state = _memory(library.fastvoc_plan_state_size(_pointer(plan)))
    workspace = _memory(library.fastvoc_plan_workspace_size(_pointer(plan), 1))
    channels = weights.shape[1]
    y = torch.empty(1, FRAMES, channels).transpose(1, 2)

    def run(x: Tensor) -> Tensor:
        library.fastvoc_plan_begin(_pointer(plan), _pointer(state))
        code = library.fastvoc_plan_run(
            _pointer(plan),
            _pointer(packed),
            _pointer(state),
            _pointer(workspace),
            1,
            ffi.cast("float *", x.data_ptr()),
            (0, 1, channels),
            FRAMES,
            True,
            ffi.cast("float *", y.data_ptr()),
            (0, 1, channels),
        )
        native.check("plan", code)
        return y

    return run


def _memory(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

"""What the host does for an operator of a GPU: the time until the call returns, of a signature that has run before.

Where there is a GPU, calls are enqueued and not waited for. Without one the driver is played: kernels are compiled for
compute capability 9.0 and never launched (``triton``), or, with a library of ``FASTVOC_CUDA_ON_CPU``, native calls that
would launch any return at once (``cuda``); tensors are then the CPU's, whose allocations take about as long. Beside it
stand the same calls described anew each time, and plain PyTorch's, which on a CPU include the work, of a convolution so
small that there is hardly any. Processor time, since another processor computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from statistics import median
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc import native
from fastvoc.ops import OPS, availability, conv1d, strided_conv1d, use_backend

CALLS = 100
Call = Callable[[], Any]


@pytest.mark.parametrize("backend", ["triton", "cuda"])
@pytest.mark.parametrize("op", ["conv1d", "strided_conv1d"])
def test_host_time(
    op: str, backend: str, device: str, request: pytest.FixtureRequest, rows: list[dict[str, Any]]
) -> None:
    if backend == "cuda" and op == "strided_conv1d":
        pytest.skip("the CUDA kernels have none")
    if device == "cpu" and backend == "cuda" and native.hosted() is None:
        pytest.skip("FASTVOC_CUDA_ON_CPU names no library")
    if backend == "triton":
        pytest.importorskip("triton", reason="the package triton is not installed")
    torch.manual_seed(0)
    groups = 4 if op == "strided_conv1d" else 1
    x, weight, bias = (
        torch.randn(shape, device=device).to(torch.bfloat16).requires_grad_()
        for shape in ((1, 32, 64), (64, 32 // groups, 5), (64,))
    )

    def ours() -> Tensor:
        if op == "conv1d":
            return conv1d(x, weight, bias, padding=(2, 2), slope=0.1)
        return strided_conv1d(x, weight, bias, stride=3, padding=(2, 2), groups=groups, slope=0.1)

    def plain() -> Tensor:
        if op == "conv1d":
            return F.conv1d(F.leaky_relu(x, 0.1), weight, bias, padding=2)
        return F.leaky_relu(F.conv1d(x, weight, bias, stride=3, padding=2, groups=groups), 0.1)

    def step(call: Callable[[], Tensor]) -> Call:
        grad = torch.ones_like(call())
        return lambda: torch.autograd.grad(call(), (x, weight, bias), grad)

    def anew(call: Call) -> Call:
        def run() -> None:
            OPS[op].forget()
            OPS[f"{op}_backward"].forget()
            call()

        return run

    with _driver(device, backend), use_backend(backend):
        forward = torch.no_grad()(ours)
        runs = [forward, step(ours), anew(step(ours)), torch.no_grad()(plain), step(plain)]
        for run in runs:
            run()
        taken = _interleaved(runs, request.config.getoption("--rounds"))
    names = ("forward", "step", "step_described_anew", "plain_forward", "plain_step")
    rows.append(
        {
            "suite": "host-time",
            "op": op,
            "dtype": "bfloat16",
            "backend": backend,
            "driver": "played" if device == "cpu" else "real",
            **{f"{name}_microseconds": round(1e6 * value, 1) for name, value in zip(names, taken, strict=True)},
        }
    )


def _interleaved(runs: list[Call], rounds: int) -> list[float]:
    columns: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, column in zip(runs, columns, strict=True):
            begin = time.process_time()
            for _ in range(CALLS):
                run()
            column.append((time.process_time() - begin) / CALLS)
    return [median(column) for column in columns]


@contextmanager
def _driver(device: str, backend: str) -> Iterator[None]:
    """Play the driver where there is no GPU."""
    if device == "cuda":
        yield
    elif backend == "triton":
        with _played_triton():
            yield
    else:
        ffi, library = native.library()
        with patch.object(native, "library", lambda: (ffi, _Quiet(library))):
            yield


class _Quiet:
    """A native library of which what would launch kernels returns at once."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._library, name)
        launches = name.startswith("fastvoc_cuda") and name.endswith(("_run", "_pack"))
        value = (lambda *_: 0) if launches else found
        setattr(self, name, value)
        return value


class _Driver:
    """What Triton asks of a driver, of a GPU of capability 9.0."""

    def __init__(self) -> None:
        self.utils = self
        self.launcher_cls = lambda source, metadata: lambda *arguments: None

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 << 10}

    def load_binary(self, *arguments: Any) -> tuple[int, ...]:
        return (0, 0, 32, 0, 1024)

    def unload_module(self, module: Any) -> None:
        pass


@contextmanager
def _played_triton() -> Iterator[None]:
    from triton.runtime import driver

    from fastvoc.ops.triton import launch, tiles, weight_gradient

    refuses = launch.refuses

    def refuses_elsewhere(*arguments: Any, **named: Any) -> str | None:
        reason = refuses(*arguments, **named)
        return None if reason == "x is on cpu" else reason

    with ExitStack() as stack:
        stack.enter_context(patch.object(availability, "missing", lambda backend: None))
        stack.enter_context(patch.object(tiles, "_capability", lambda device: 90))
        stack.enter_context(patch.object(weight_gradient, "_multiprocessors", lambda device: 132))
        for name in ("conv1d", "strided_conv1d"):
            module = import_module(f"fastvoc.ops.{name}.triton")
            stack.enter_context(patch.object(module, "refuses", refuses_elsewhere))
        driver.set_active(_Driver())
        try:
            yield
        finally:
            driver._active = None

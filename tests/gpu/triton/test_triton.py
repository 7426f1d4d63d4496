"""The Triton kernels under Triton's interpreter, in processes of their own: it is switched on before triton loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from fastvoc.ops import (
    availability,
    conv1d,
    convnext,
    explain,
    gated,
    residual,
    smooth_snake,
    strided_conv1d,
    upsample,
)
from fastvoc.ops.triton import launch


def uninterpretable() -> str | None:
    """Return why Triton's interpreter cannot run here, or None."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    if triton < (3, 6) and numpy >= (2, 4):
        return "the interpreter of Triton before 3.6 needs NumPy before 2.4"
    if triton < (3, 7) and numpy >= (2, 5):
        return "the interpreter of Triton 3.6 needs NumPy before 2.5"
    return None


needs_triton = pytest.mark.skipif(uninterpretable() is not None, reason=str(uninterpretable()))


def interpret(*arguments: str) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize(
    "ops",
    [
        "conv1d: or upsample: or residual:",
        "conv1d_backward: or upsample_backward:",
        # 41 taps of 1024 channels take the interpreter a minute, and take no path that the others leave out.
        "(strided_conv1d: or strided_conv1d_backward:) and not (scale and (5-triton or 6-triton))",
        "gate: or gate_backward: or gated: or convnext: or smooth_snake: or smooth_snake_backward:",
    ],
)
def test_kernels_keep_the_contract(ops: str) -> None:
    test = "tests/ops/test_ops.py::test_every_backend_computes_the_definition"
    interpret(test, "-k", f"triton and not bfloat16 and ({ops})")


@pytest.mark.slow
@needs_triton
def test_kernels_do_what_the_contract_does_not_say() -> None:
    interpret("tests/gpu/triton/interpreted.py")


@pytest.mark.slow
@needs_triton
def test_kernels_take_no_notice_of_what_surrounds_them() -> None:
    interpret(
        "tests/ops/test_ambient.py",
        "-k",
        "not test_defaults_of_torch_change_no_bit or (triton and bfloat16-meta)",
    )


@pytest.fixture
def backend() -> Iterator[None]:
    """Ask the machine again."""
    availability.missing.cache_clear()
    yield
    availability.missing.cache_clear()


def gpu(monkeypatch: pytest.MonkeyPatch, *capability: int) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(availability, "find_spec", lambda name: object())
    monkeypatch.setattr(availability, "version", lambda name: "3.9.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capability))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capability) // 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


def test_the_reason_why_triton_is_missing_is_told(backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch)
    assert availability.missing("triton") == "torch sees no CUDA device"
    availability.missing.cache_clear()
    monkeypatch.setattr(availability, "version", lambda name: "3.2.1")
    assert availability.missing("triton") == "triton 3.2.1 is installed; the kernels need 3.4 or newer"
    availability.missing.cache_clear()
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    assert availability.missing("triton") == "the package triton is not installed"


def test_a_gpu_whose_matrix_units_triton_cannot_use_is_refused(backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, 7, 5)
    reason = "the GPU is sm_75; Triton uses the matrix units of sm_80 and newer only"
    assert availability.missing("triton") == reason
    assert launch.too_old_for_triton(0) == reason
    availability.missing.cache_clear()
    gpu(monkeypatch, 8, 0)
    assert availability.missing("triton") is None


def test_tensors_elsewhere_are_refused(backend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, 9, 0)
    x, weight = torch.ones(1, 2, 16), torch.ones(2, 2, 3)
    assert explain(conv1d, x, weight)["triton"] == "x is on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    reason = explain(conv1d, x, weight)["triton"]
    assert reason is not None and "for tests, not for speed" in reason


@pytest.mark.parametrize(
    "name", ["conv1d", "upsample", "residual", "strided_conv1d", "gated", "convnext", "smooth_snake"]
)
def test_what_the_grid_and_32_bit_offsets_do_not_reach_is_refused(name: str) -> None:
    def refuses(x: torch.Tensor, beside: torch.Tensor | None = None) -> str | None:
        weight = torch.empty(4, 4, 1, device=x.device)
        ones = [weight[:, 0, 0]]
        calls: dict[str, Any] = {
            "conv1d": (conv1d, (x, weight), {"residual": beside}),
            "upsample": (upsample, (x, weight), {"stride": 1}),
            "residual": (residual, (x, [weight] * 4, [weight[:, 0, 0]] * 4, [1] * 4), {"branches": 2}),
            "strided_conv1d": (strided_conv1d, (x, weight), {}),
            "gated": (gated, (x, weight, weight[:, :2]), {"skip_channels": 4, "condition": beside}),
            "convnext": (convnext, (x, weight[:, :1], *ones * 3, weight[..., 0], *ones, weight[..., 0], *ones * 2), {}),
            "smooth_snake": (smooth_snake, (x, *ones), {}),
        }
        op, arguments, named = calls[name]
        return explain(op, *arguments, **named)["triton"]

    with patch.object(availability, "missing", lambda backend: None):
        many = torch.empty(65536, 4, 9, device="meta")
        fits = "x is on meta"
        expected = fits if name == "strided_conv1d" else "a launch has more than 65535 items"
        assert refuses(many) == expected
        assert refuses(many[:32768]) == (expected if name == "residual" else fits)
        rows = torch.empty_strided((2, 4, 9), (1, 2, 2**28), device="meta")  # (time, batch, channel) in memory
        apart = f"the elements of an item are {2**31} or more apart in memory"
        assert refuses(rows) == apart and refuses(rows[..., :8]) == fits
        if name in ("conv1d", "gated"):
            assert refuses(torch.empty(rows.shape, device="meta"), rows) == apart


def test_more_channels_than_a_program_normalises_are_refused() -> None:
    wide, square = torch.empty(4097, device="meta"), torch.empty(1, 4097, device="meta")
    x, depthwise = torch.empty(1, 4097, 9, device="meta"), torch.empty(4097, 1, 7, device="meta")
    with patch.object(availability, "missing", lambda backend: None):
        table = explain(convnext, x, depthwise, wide, wide, wide, square, wide[:1], square.T, wide, wide)
    assert table["triton"] == "x has 4097 channels; a program normalises 4096 at most"


def test_training_keeps_one_tensor_for_each_convolution() -> None:
    x, up = torch.randn(1, 6, 16, requires_grad=True), torch.randn(6, 4, 4, requires_grad=True)
    weights = [torch.randn(4, 4, 3, requires_grad=True) for _ in range(8)]
    biases = [torch.zeros(4, requires_grad=True) for _ in range(8)]
    kept = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 3 and tensor.shape[-1] >= 16:
            kept.add((tensor.data_ptr(), tensor.dtype))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        y = upsample(x, up, stride=2, crop=(1, 1), slope=0.1)
        y = residual(y, weights, biases, [1, 1, 3, 1] * 2, branches=2)
    # The input of the upsampling, the input that both branches share, and three more in each of them.
    assert len(kept) == 1 + 1 + 2 * 3 and {dtype for _, dtype in kept} == {torch.bfloat16}

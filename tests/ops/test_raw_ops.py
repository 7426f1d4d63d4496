"""The registered operators believe nothing: whatever they are given, they are right or say one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hosting import library, unhostable
from test_ops import RUNS
from test_triton import needs_triton

from fastvoc.ops import OPS, use_backend

PROGRAM = Path(__file__).with_name("raw_calls.py")
RAW = torch.ops.fastvoc


def mutate(run: str, rounds: int, seed: int = 0, **environment: str) -> None:
    """Make mutated calls in another process, which may crash."""
    command = [sys.executable, str(PROGRAM), run, str(rounds), str(seed)]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-3000:]}"


@pytest.mark.parametrize("run", ["any", *(name for name in RUNS if name.startswith(("cpu", "reference")))])
def test_mutated_calls_are_right_or_refused(run: str) -> None:
    mutate(run, 600)


@pytest.mark.slow
@needs_triton
def test_mutated_calls_of_triton_kernels_are_right_or_refused() -> None:
    mutate("triton", 100, TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.skipif(unhostable() is not None, reason=str(unhostable()))
def test_mutated_calls_of_cuda_kernels_are_right_or_refused() -> None:
    mutate("cuda", 300, FASTVOC_CUDA_ON_CPU=str(library()))


X, W, B = torch.ones(1, 512, 50), torch.ones(512, 512, 3), torch.ones(512)
Y = torch.ones(1, 512, 50)


def conv1d(x: Any = X, w: Any = W, b: Any = B, r: Any = None, *rest: Any) -> Any:
    return RAW.conv1d(x, w, b, r, *(rest or (1, 1, 1, "zero", 1.0, False)))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: conv1d(torch.ones(1, 4096, 500), W[:, :1]), ValueError, "x has 4096 channels"),
        (lambda: conv1d(b=B[:1]), ValueError, r"conv1d: bias has shape \(1,\); expected \(512,\)"),
        (lambda: conv1d(r=torch.ones(1)), ValueError, r"conv1d: residual has shape \(1,\); expected \(1, 512, 50\)"),
        (lambda: conv1d(w=W.half()), TypeError, "weight is torch.float16 but x is torch.float32"),
        (lambda: conv1d(b=B.to("meta")), ValueError, "bias is on meta but x is on cpu"),
        (
            lambda: conv1d(X, W, B, None, 1, 1, 1, "circular", 1.0, False),
            ValueError,
            "padding_mode is 'circular'; known",
        ),
        (lambda: conv1d(X, W, B, None, 2**24 + 1, 1, 1, "zero", 1.0, False), ValueError, "and at most 16777216"),
        (lambda: conv1d(X, W, B, None, 1, 2**31, 1, "zero", 1.0, False), ValueError, "and at most 2147483647"),
        (lambda: conv1d(X, W, B, None, 1, 1, 1, "zero", float("nan"), False), ValueError, "slope is nan; expected"),
        (lambda: conv1d(X[:, :0], W[:, :0]), ValueError, r"\(512, 0, 3\); expected at least one channel on each side"),
        (lambda: conv1d(w=W[..., :0]), ValueError, "and one tap"),
        (lambda: conv1d(X.to_sparse()), TypeError, "x is a tensor of layout sparse_coo; expected a dense one"),
        (lambda: conv1d(X.to(torch.float8_e4m3fn)), TypeError, "x is torch.float8_e4m3fn; expected a floating point"),
        (
            lambda: RAW.conv1d_backward(Y[..., :10], X, W, 1, 1, 1, "zero", 1.0, [True] * 3),
            ValueError,
            r"conv1d_backward: grad has shape \(1, 512, 10\); expected \(1, 512, 50\)",
        ),
        (
            lambda: RAW.upsample(X, W, B[:1], 2, 0, 0, 1.0),
            ValueError,
            r"upsample: bias has shape \(1,\); expected \(512,\)",
        ),
        (
            lambda: RAW.upsample_backward(Y, X, W, 2, 0, 0, 1.0, [True] * 3),
            ValueError,
            r"upsample_backward: grad has shape \(1, 512, 50\); expected \(1, 512, 101\)",
        ),
        (lambda: RAW.strided_conv1d(X, W, None, 1, 1, 1, -1, 1.0), ValueError, "in -1 groups"),
        (
            lambda: RAW.strided_conv1d_backward(Y, X, W, Y[..., :1], 1, 1, 1, 1, 0.5, [True] * 3),
            ValueError,
            r"strided_conv1d_backward: y has shape \(1, 512, 1\); expected \(1, 512, 50\)",
        ),
        (
            lambda: RAW.residual(X, [W, W], [B], [1, 1], 1, 2, False, 0.1, "zero", False, True),
            ValueError,
            "2 weights, 1 biases and 2 dilations",
        ),
        (
            lambda: RAW.residual(X, [W, W], [B, B[:1]], [1, 1], 1, 2, False, 0.1, "zero", False, True),
            ValueError,
            r"biases\[1\] has shape \(1,\)",
        ),
        (
            lambda: RAW.residual(X, [W, W], [B, B], [1, 50], 1, 2, False, 0.1, "reflect", False, True),
            ValueError,
            "residual: x has 50 frames; needs at least 51 to reflect 50 of them",
        ),
    ],
)
@pytest.mark.parametrize("backend", [None, "reference", *{name.split(" ")[0] for name in RUNS if name[:3] == "cpu"}])
def test_every_backend_says_the_same_of_a_call_that_does_not_fit(
    call: Callable[[], Any], error: type[Exception], sentence: str, backend: str | None
) -> None:
    with use_backend(backend), pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize("name", list(OPS))
def test_tracers_get_the_same_sentence(name: str) -> None:
    op = OPS[name]
    case = next(case for case in op.cases() if not case.model)
    args = list(case.call(device="meta"))
    place = 0 if name.startswith("gate_") else 2 if "backward" in name else 1
    if name == "gate":
        args[0] = args[0][:, :1]  # half of a gate
    else:
        args[place] = [] if isinstance(args[place], list) else args[place][..., :0]
    with pytest.raises(ValueError, match=f"^{name}: "):
        op.overload(*args)


def test_gradients_say_of_which_tensors_they_are() -> None:
    x, alpha = torch.zeros(1, 2, 9), torch.zeros(2)
    with pytest.raises(ValueError, match=r"smooth_snake_backward: needs has 2 values; .* x, alpha and beta"):
        OPS["smooth_snake_backward"].overload(x, x, alpha, None, True, [True, True])

"""The CUDA kernels executed by the CPU, in processes of their own: it stands in for the GPU before anything loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hosting import REPOSITORY, library, unhostable

from fastvoc import Vocoder
from fastvoc.ops import availability, backends, conv1d, explain

needs_compiler = pytest.mark.skipif(unhostable() is not None, reason=str(unhostable()))


def host(*arguments: str, **environment: str) -> None:
    environment = os.environ | {"FASTVOC_CUDA_ON_CPU": str(library()), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout.splitlines()[-1]


@pytest.mark.slow
@needs_compiler
def test_kernels_keep_the_contract() -> None:
    test = "tests/ops/test_ops.py::test_every_backend_computes_the_definition"
    host(test, "-k", "cuda and (conv1d or upsample or residual or gated or smooth_snake or convnext)")


@pytest.mark.slow
@needs_compiler
def test_kernels_do_what_the_contract_does_not_say() -> None:
    host("tests/gpu/cuda/hosted.py")


@pytest.mark.slow
@needs_compiler
def test_gradients_do_what_the_contract_does_not_say() -> None:
    host("tests/gpu/cuda/hosted_gradients.py")


@pytest.mark.slow
@needs_compiler
def test_gates_do_what_the_contract_does_not_say() -> None:
    host("tests/gpu/cuda/hosted_gated.py")


@pytest.mark.slow
@needs_compiler
def test_wavenets_are_made_as_they_are_defined() -> None:
    host("tests/gpu/cuda/hosted_recurrent.py")


@pytest.mark.slow
@needs_compiler
def test_activations_and_blocks_do_what_the_contract_does_not_say() -> None:
    host("tests/gpu/cuda/hosted_activations.py")


@pytest.mark.slow
@needs_compiler
def test_kernels_take_no_notice_of_what_surrounds_them() -> None:
    host(
        "tests/ops/test_ambient.py",
        "-k",
        "not test_defaults_of_torch_change_no_bit or (cuda and bfloat16-meta and not (strided_conv1d or convnext))",
    )


@pytest.fixture
def backend() -> Iterator[None]:
    """Ask the machine again."""
    availability.missing.cache_clear()
    yield
    availability.missing.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_everything_says_so(backend: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FASTVOC_CUDA_ON_CPU", raising=False)
    reason = backends()["cuda"]
    assert reason is not None and (reason == "torch sees no CUDA device" or "native library" in reason)
    assert explain(conv1d, torch.ones(1, 2, 16), torch.ones(2, 2, 3))["cuda"] == reason
    ways = Vocoder.from_pretrained().explain()
    assert ways["cuda plan in float16"] == "its weights are on cpu"
    after = ["cuda plan in float16", "graphs", "cuda", "triton", "cpu", "reference"]
    assert list(ways) == ["plan", "plan in parts", *after]

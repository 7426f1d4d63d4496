"""What the CUDA kernels of gradients owe beside the contract, executed by the CPU; `test_cuda.py` runs this file."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from fastvoc.ops import OPS, _native, conv1d, last_backends, upsample, use_backend
from fastvoc.ops._contract import errors
from fastvoc.ops._cuda import device
from fastvoc.ops._layout import to_channels_last
from fastvoc.ops._op import Slower

pytestmark = pytest.mark.skipif(_native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

A100, T4 = device.IN_PLACE, device.Gpu(75, 40, 64 << 10, 64 << 10)
H100, RTX4090 = device.Gpu(90, 132, 227 << 10, 228 << 10), device.Gpu(89, 128, 99 << 10, 100 << 10)

CALLS: dict[str, Any] = {
    # dilation, left, right, mode; stride, left, right
    "conv1d, zeros": ("conv1d_backward", (2, 24, 40, 101), (40, 24, 3), (5, 5, 5, "zero")),
    "conv1d, reflection": ("conv1d_backward", (2, 40, 72, 83), (72, 40, 7), (1, 3, 3, "reflect")),
    "conv1d, more zeros than taps": ("conv1d_backward", (1, 8, 8, 21), (8, 8, 2), (3, 5, 4, "zero")),
    "conv1d, a single tap": ("conv1d_backward", (1, 3, 80, 40), (80, 3, 1), (1, 0, 0, "zero")),
    "upsample": ("upsample_backward", (2, 40, 24, 37), (40, 24, 16), (8, 4, 4)),
    "upsample, taps between": ("upsample_backward", (1, 8, 3, 29), (8, 3, 2), (3, 1, 0)),
}


def in_tf32(x: Tensor) -> Tensor:
    """Round float32 to the 10 bits that TF32 has behind the point."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def arguments(name: str, dtype: torch.dtype) -> tuple[Any, tuple[Any, ...]]:
    """Return an op and arguments of which TF32 loses nothing; neither does a slope of a quarter."""
    op, (batch, inner, out, frames), weight, settings = CALLS[name]
    torch.manual_seed(0)
    taps = weight[2]
    if op == "conv1d_backward":
        made = frames + settings[1] + settings[2] - settings[0] * (taps - 1)
    else:
        made = (frames - 1) * settings[0] + taps - settings[1] - settings[2]
    shapes = (batch, out, made), (batch, inner, frames), weight
    tensors = [in_tf32(torch.randn(shape)).to(dtype) for shape in shapes]
    return OPS[op], (*tensors, *settings, 0.25, [True, True, True])


@pytest.mark.parametrize("gpu", [A100, H100, RTX4090], ids=["sm_80", "sm_90", "sm_89"])
@pytest.mark.parametrize("name", CALLS)
def test_sums_of_tf32_are_those_of_float32(name: str, gpu: device.Gpu) -> None:
    op, args = arguments(name, torch.float32)
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        got = op(*args)
    for worst, allowed in errors(op, args, got):
        assert worst <= 2 * allowed, f"off by {worst:.2e}; {allowed:.2e} is what plain PyTorch may be off"


@pytest.mark.parametrize("gpu", [T4, H100], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("name", CALLS)
def test_every_gpu_is_as_exact_as_plain_pytorch(name: str, gpu: device.Gpu) -> None:
    op, args = arguments(name, torch.float16)
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        got = op(*args)
    for worst, allowed in errors(op, args, got):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_the_same_bits_again_and_in_any_memory_order(name: str, dtype: torch.dtype) -> None:
    op, (grad, x, weight, *settings) = arguments(name, dtype)
    with use_backend("cuda"):
        first = op(grad, x, weight, *settings)
        for others in ((grad, x), (to_channels_last(grad), to_channels_last(x)), (to_channels_last(grad), x)):
            again = op(*others, weight, *settings)
            assert all(map(torch.equal, again, first))


def test_nothing_is_wanted_of_what_is_not_needed() -> None:
    op, (*args, _) = arguments("conv1d, zeros", torch.float16)
    with use_backend("cuda"):
        everything = op(*args, [True, True, True])
        for number in range(3):
            alone = op(*args, [place == number for place in range(3)])
            assert torch.equal(alone[number], everything[number])
            assert [tensor.numel() for tensor in alone].count(0) == 2


def test_zero_passes_by_the_slope() -> None:
    x, weight = torch.zeros(1, 4, 9, dtype=torch.float16), torch.ones(4, 4, 1, dtype=torch.float16)
    op = OPS["conv1d_backward"]
    with use_backend("cuda"):
        grad_x, *_ = op(torch.ones_like(x), x, weight, 1, 0, 0, "zero", 0.5, [True, False, False])
    assert torch.equal(grad_x, torch.full_like(x, 2.0))


def test_training_runs_them() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(8, 16, 4).half().requires_grad_(), torch.randn(8, 16, 3).half().requires_grad_()]
    x = torch.randn(2, 8, 12).half()
    with use_backend("cuda"):
        y = upsample(x, weights[0], stride=2, crop=(1, 1), slope=0.1)
        loss = conv1d(y, weights[1], padding=(1, 1), slope=0.1).float().square().mean()
        grads = torch.autograd.grad(loss, weights)
    assert all(grad.isfinite().all() and grad.any() for grad in grads)
    assert last_backends()["conv1d_backward"] == last_backends()["upsample_backward"] == "cuda"


def test_what_they_cannot_do_is_one_sentence() -> None:
    op, args = arguments("conv1d, zeros", torch.bfloat16)
    assert isinstance(op.explain(*args)["cuda"], Slower)
    with patch.object(device, "IN_PLACE", T4):
        assert "multiplies torch.float16 only" in str(op.explain(*args)["cuda"])
    grad, x, *rest = args
    longer = x.new_empty(1).expand(1, x.shape[1], 2**26), grad.new_empty(1).expand(1, grad.shape[1], 2**26)
    assert op.explain(longer[1], longer[0], *rest)["cuda"] == f"an item has {2**30} elements or more"
    assert "65535" in str(op.explain(grad[:1].expand(2**16, -1, -1), x[:1].expand(2**16, -1, -1), *rest)["cuda"])
    empty = op.explain(grad, x[:, :, :0], *rest)["cuda"]
    assert empty == "x has no frames"

"""What the CUDA kernels of gradients owe beside the contract, executed by the CPU; `test_cuda.py` runs this file."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from fastvoc import native
from fastvoc.ops import OPS, conv1d, last_backends, upsample, use_backend
from fastvoc.ops.contract import errors, in_tf32
from fastvoc.ops.cuda import device, gradients
from fastvoc.ops.cuda.device import Template
from fastvoc.ops.cuda.network import Packing
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.op import Slower

pytestmark = pytest.mark.skipif(native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

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


def operator_and_call(name: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return an op and a call of whose tensors TF32 loses nothing; neither does a slope of a quarter."""
    op, (batch, inner, out, frames), weight, settings = CALLS[name]
    torch.manual_seed(0)
    taps = weight[2]
    if op == "conv1d_backward":
        made = frames + settings[1] + settings[2] - settings[0] * (taps - 1)
    else:
        made = (frames - 1) * settings[0] + taps - settings[1] - settings[2]
    shapes = (batch, out, made), (batch, inner, frames), weight
    tensors = [in_tf32(torch.randn(shape)).to(dtype) for shape in shapes]
    return OPS[op], OPS[op].kind(*tensors, *settings, 0.25, (True, True, True))


@pytest.mark.parametrize("gpu", [A100, H100, RTX4090], ids=["sm_80", "sm_90", "sm_89"])
@pytest.mark.parametrize("name", CALLS)
def test_sums_of_tf32_are_those_of_float32(name: str, gpu: device.Gpu) -> None:
    op, call = operator_and_call(name, torch.float32)
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        got = op(call)
    for worst, allowed in errors(call, got):
        assert worst <= 2 * allowed, f"off by {worst:.2e}; {allowed:.2e} is what plain PyTorch may be off"


@pytest.mark.parametrize("gpu", [T4, H100], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("name", CALLS)
def test_every_gpu_is_as_exact_as_plain_pytorch(name: str, gpu: device.Gpu) -> None:
    op, call = operator_and_call(name, torch.float16)
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        got = op(call)
    for worst, allowed in errors(call, got):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_gradients_are_the_same_bits_again_and_in_any_memory_order(name: str, dtype: torch.dtype) -> None:
    op, call = operator_and_call(name, dtype)
    grad, x = call.grad, call.x
    with use_backend("cuda"):
        first = op(call)
        for other, inner in ((grad, x), (to_channels_last(grad), to_channels_last(x)), (to_channels_last(grad), x)):
            again = op(call._replace(grad=other, x=inner))
            assert all(map(torch.equal, again, first))


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_one_signature_are_looked_at_once(name: str) -> None:
    op, first = operator_and_call(name, torch.float16)
    torch.manual_seed(1)
    second = op.kind(*(torch.randn(tensor.shape).half() for tensor in first[:3]), *first[3:])
    again = pytest.fail
    with use_backend("cuda"):
        op(first)
        with (
            patch.object(op.kind, "check", lambda call: again("it is checked again")),
            patch.object(gradients, "network_for", lambda *_: again("its kernels are chosen again")),
            patch.object(Template, "__init__", lambda *_, **__: again("its sizes are described again")),
            patch.object(Packing, "__init__", lambda *_: again("its weights are described again")),
        ):
            got = op(second)
    for worst, allowed in errors(second, got):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"


def test_nothing_is_wanted_of_what_is_not_needed() -> None:
    op, call = operator_and_call("conv1d, zeros", torch.float16)
    with use_backend("cuda"):
        everything = op(call)
        for number in range(3):
            alone = op(call._replace(needs=[place == number for place in range(3)]))
            assert torch.equal(alone[number], everything[number])
            assert [tensor.numel() for tensor in alone].count(0) == 2


def test_zero_passes_by_the_slope() -> None:
    x, weight = torch.zeros(1, 4, 9, dtype=torch.float16), torch.ones(4, 4, 1, dtype=torch.float16)
    op = OPS["conv1d_backward"]
    with use_backend("cuda"):
        grad_x, *_ = op(op.kind(torch.ones_like(x), x, weight, 1, 0, 0, "zero", 0.5, (True, False, False)))
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
    op, call = operator_and_call("conv1d, zeros", torch.bfloat16)
    grad, x = call.grad, call.x

    def reason(**others: torch.Tensor) -> str:
        return str(op.explain(call._replace(**others))["cuda"])

    assert isinstance(op.explain(call)["cuda"], Slower)
    with patch.object(device, "IN_PLACE", T4):
        assert "multiplies torch.float16 only" in reason()
    longer = x.new_empty(1).expand(1, x.shape[1], 2**26), grad.new_empty(1).expand(1, grad.shape[1], 2**26)
    assert reason(grad=longer[1], x=longer[0]) == f"an item has {2**30} elements or more"
    assert "65535" in reason(grad=grad[:1].expand(2**16, -1, -1), x=x[:1].expand(2**16, -1, -1))
    assert reason(x=x[:, :, :0]) == "x has no frames"

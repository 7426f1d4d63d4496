"""What torch was told to take by default, and what surrounds a call, changes no bit of an operator and of its gradient.

`test_cuda.py` runs this file on the CUDA kernels, and `test_triton.py` on Triton's.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import torch
from test_ops import DEVICES, RUNS, cases_of, forced
from torch import Tensor

from fastvoc import native
from fastvoc.ops import OPS, conv1d, last_backends, residual, strided_conv1d, upsample, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.contract import results
from fastvoc.ops.op import Slower

FORWARDS = ["conv1d", "strided_conv1d", "upsample", "residual"]
EDGES = ["prime sizes", "reflected", "odd stride", "three groups", "causal", "two branches", "another memory order"]


def edges_of(*names: str) -> list[Any]:
    """A few cases of each op that no network is made of: they take every path of the kernels, and little time."""
    return [
        parameter
        for parameter in cases_of(*names, model=False)
        if any(edge in parameter.values[1].name for edge in EDGES)
    ]


@pytest.fixture(params=["float64", "float16", "bfloat16"])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    yield getattr(torch, request.param)
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=["cpu", "meta"])
def default_device(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    torch.set_default_device(None)


def run(op: Any, call: Any) -> list[Tensor]:
    """Return the results of an op and, of a forward one, the gradients of all that it takes; in fresh memory."""
    vars(native._scratch).clear()
    flat = [tensor for value in call for tensor in (value if isinstance(value, list) else [value])]
    tensors = [tensor for tensor in flat if isinstance(tensor, Tensor)]
    got = list(results(op(call)))
    if op.name in FORWARDS:
        for tensor in tensors:
            tensor.requires_grad_()
        y = op(call)
        got += [y.detach(), *torch.autograd.grad(y, tensors, torch.ones_like(y))]
    return got


@pytest.mark.parametrize("backend", RUNS)
@pytest.mark.parametrize(("op", "case"), edges_of(*OPS))
def test_defaults_of_torch_change_no_bit(
    op: Any, case: Case, backend: str, default_dtype: torch.dtype, default_device: str
) -> None:
    call, again = (case.call(frames=min(case.frames, 67), device=DEVICES.get(backend, "cpu")) for _ in range(2))
    with forced(backend) as name:
        reason = op.explain(call)[name]
        if reason is not None and not isinstance(reason, Slower) and not op.composed:
            pytest.skip(reason)
        expected = run(op, call)
        torch.set_default_dtype(default_dtype)
        torch.set_default_device(default_device)
        got = run(op, again)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)


def test_memory_for_native_code_says_what_it_is(default_dtype: torch.dtype, default_device: str) -> None:
    vars(native._scratch).clear()
    torch.set_default_dtype(default_dtype)
    torch.set_default_device(default_device)
    for memory in (native.scratch(1000), native.host_memory(10, 100, dtype=torch.float32)):
        assert memory.dtype == torch.float32 and memory.device.type == "cpu" and memory.nbytes >= 4000
    assert native.host_memory(7, dtype=torch.uint8).nbytes == 7


@pytest.mark.parametrize(("op", "case"), edges_of(*FORWARDS))
def test_a_gradient_taken_inside_autocast_is_the_one_taken_outside(op: Any, case: Case) -> None:
    def gradients(dtype: torch.dtype | None) -> list[Tensor]:
        call = case.call(frames=min(case.frames, 67))
        flat = [tensor for value in call for tensor in (value if isinstance(value, list) else [value])]
        tensors = [tensor.requires_grad_() for tensor in flat if isinstance(tensor, Tensor)]
        y = op(call)
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            return list(torch.autograd.grad(y, tensors, torch.ones_like(y)))

    expected = gradients(None)
    for dtype in (torch.bfloat16, torch.float16):
        for one, other in zip(gradients(dtype), expected, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("surrounding", [None, "reference"])
def test_a_forced_backend_runs_the_gradient_too_in_any_thread(surrounding: str | None) -> None:
    name = RUNS[-1].split(" ")[0]
    device = DEVICES.get(name, "cpu")
    # Of a single frame, plain PyTorch would be chosen on a CPU.
    x, weight = (torch.randn(shape, device=device, requires_grad=True) for shape in ((1, 4, 1), (4, 4, 3)))
    with use_backend(name):
        y = conv1d(upsample(x, weight, stride=2), weight)
    OPS["conv1d_backward"].last = OPS["upsample_backward"].last = None

    def differentiate() -> None:
        with use_backend(surrounding):
            y.sum().backward()

    thread = Thread(target=differentiate)
    thread.start()
    thread.join()
    assert last_backends()["conv1d_backward"] == last_backends()["upsample_backward"] == name


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: conv1d(x, w, w[:, 0, 0], residual=x, padding=(1, 1)),
        lambda x, w: upsample(x, w, w[0, :, 0], stride=2),
        lambda x, w: strided_conv1d(x, w, w[:, 0, 0], stride=2),
        lambda x, w: residual(x, [w, w], [w[:, 0, 0]] * 2, [1, 3]),
    ],
    ids=FORWARDS,
)
def test_what_a_tensor_stands_for_is_computed_with(call: Any) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 5, 40), torch.randn(5, 5, 3)
    assert torch.equal(call(torch._neg_view(x), torch._neg_view(w)), call(-x, -w))
    zero = torch._efficientzerotensor(x.shape)
    assert torch.equal(call(zero, w), call(torch.zeros_like(x), w))
    meta = call(x.to("meta"), w.to("meta"))
    assert meta.is_meta and meta.shape == call(x, w).shape


def test_memory_that_was_given_back_is_not_read() -> None:
    x, w = torch.randn(1, 2, 40), torch.randn(2, 2, 3)
    w.untyped_storage().resize_(0)
    with use_backend("cpu"), pytest.raises(ValueError, match=r"memory of a tensor of shape \(2, 2, 3\) was given back"):
        conv1d(x, w)

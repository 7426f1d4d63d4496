"""What the host does for a Triton kernel that a call of the same signature has launched before: hand tensors over."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="the package triton is not installed")

from fastvoc.ops import OPS, availability, conv1d, strided_conv1d, upsample, use_backend
from fastvoc.ops.availability import interpreted
from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.ragged import ragged
from fastvoc.ops.triton import gradients, kernels, launch, tiles, weight_gradient

pytestmark = pytest.mark.skipif(interpreted(), reason="Triton interprets its kernels in this process")

Values = dict[str, Any]


class Kernel:
    """In the place of one that Triton compiles for a GPU: it writes down what it is launched with, and how."""

    def __init__(self, name: str, real: Any, log: list[tuple[str, str, tuple[int, ...], Values]]) -> None:
        self.name, self.arg_names, self.log = name, real.arg_names, log

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def specialise(**arguments: Any) -> _Compiled:
            self.log.append(("specialised", self.name, grid, {name: arguments[name] for name in self.arg_names}))
            return _Compiled(self)

        return specialise


class _Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def run(*values: Any) -> None:
            named = dict(zip(self.kernel.arg_names, values, strict=True))
            self.kernel.log.append(("ready", self.kernel.name, grid, named))

        return run


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, tuple[int, ...], Values]]]:
    """What is launched on a GPU that is the CPU's memory."""
    written: list[tuple[str, str, tuple[int, ...], Values]] = []
    for module, name in ((kernels, "convolve"), (gradients, "weight_gradient"), (gradients, "add_splits")):
        monkeypatch.setattr(module, name, Kernel(name, getattr(module, name), written))
    monkeypatch.setattr(availability, "missing", lambda backend: None)
    monkeypatch.setattr(tiles, "_capability", lambda device: 90)
    monkeypatch.setattr(weight_gradient, "_multiprocessors", lambda device: 132)
    refuses = launch.refuses

    def refuses_elsewhere(*arguments: Any, **named: Any) -> str | None:
        reason = refuses(*arguments, **named)
        return None if reason == "x is on cpu" else reason

    for op in ("conv1d", "upsample", "strided_conv1d"):
        monkeypatch.setattr(import_module(f"fastvoc.ops.{op}.triton"), "refuses", refuses_elsewhere)
    with use_backend("triton"):
        yield written


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def step(op: str, frames: int = 40) -> None:
    """Run an operator forwards and backwards."""
    x = leaf(2, 16, frames)
    if op == "conv1d":
        y = conv1d(x, leaf(24, 16, 3), leaf(24), padding=(1, 1), slope=0.1)
    elif op == "upsample":
        y = upsample(x, leaf(16, 8, 4), leaf(8), stride=2, crop=(1, 1), slope=0.1)
    else:
        y = strided_conv1d(x, leaf(32, 4, 5), leaf(32), stride=3, padding=(2, 2), groups=4, slope=0.1)
    y.sum().backward()


@pytest.mark.parametrize("op", ["conv1d", "upsample", "strided_conv1d"])
def test_a_call_of_a_signature_that_ran_asks_for_nothing_again(
    op: str, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    step(op)
    first = log[:]
    assert [how for how, *_ in first] == ["specialised"] * 4
    asked = []
    for name in (op, f"{op}_backward"):
        kind, prepare = OPS[name].kind, OPS[name].kernels["triton"]
        monkeypatch.setattr(kind, "check", lambda call: asked.append("check"))
        monkeypatch.setitem(OPS[name].kernels, "triton", lambda call, prepare=prepare: asked.append("prepare"))
    for module in ("convolution", "weight_gradient"):
        monkeypatch.setattr(
            import_module(f"fastvoc.ops.triton.{module}"), "launch_for", lambda *_: asked.append("tile")
        )
    log.clear()
    step(op)
    assert not asked and [how for how, *_ in log] == ["ready"] * 4
    for (_, name, grid, values), (_, again, same, others) in zip(first, log, strict=True):
        assert (name, grid) == (again, same) and list(values) == list(others)
        for argument, value in values.items():
            if isinstance(value, Tensor):
                other = others[argument]
                assert other is not value and other.shape == value.shape and other.stride() == value.stride(), argument
            else:
                assert others[argument] == value and type(others[argument]) is type(value), argument


@pytest.mark.parametrize("change", ["length", "order", "dtype", "setting", "bias", "precision"])
def test_another_signature_is_another_launch(change: str, log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, bias = torch.randn(2, 16, 40), torch.randn(24, 16, 3), torch.randn(24)
    conv1d(x, w, bias)
    log.clear()
    if change == "length":
        conv1d(x[..., :39].contiguous(), w, bias)
    elif change == "order":
        conv1d(x.transpose(1, 2).contiguous().transpose(1, 2), w, bias)
    elif change == "dtype":
        conv1d(x.half(), w.half(), bias.half())
    elif change == "setting":
        conv1d(x, w, bias, slope=0.1)
    elif change == "bias":
        conv1d(x, w)
    else:
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
        conv1d(x, w, bias)
        assert log[-1][3]["PRECISION"] == launch.precision(torch.float32)
    assert [how for how, *_ in log] == ["specialised"]
    log.clear()
    conv1d(x, w, bias)
    assert [how for how, *_ in log] == ["ready"]


def test_a_tensor_that_is_aligned_otherwise_is_specialised_again(log: list[Any]) -> None:
    memory, w = torch.randn(2 * 16 * 40 + 1), torch.randn(24, 16, 3)
    even, odd = (memory[start : start + 1280].view(2, 16, 40) for start in (0, 1))
    for x, how in ((even, "specialised"), (even, "ready"), (odd, "specialised"), (even, "ready")):
        log.clear()
        conv1d(x, w)
        assert [one for one, *_ in log] == [how]


def test_ends_of_items_are_read_at_every_launch(log: list[Any]) -> None:
    x, w = torch.randn(2, 16, 40), torch.randn(24, 16, 3)
    for lengths in (torch.tensor([30, 40]), torch.tensor([20, 10])):
        with ragged(lengths.int(), 40):
            conv1d(x, w)
        how, _, _, values = log[-1]
        assert how == "specialised" and torch.equal(values["lengths"], lengths.int())
    conv1d(x, w)
    assert log[-1][0] == "specialised" and log[-1][3]["lengths"] is None


def test_what_is_kept_holds_no_tensor(log: list[Any]) -> None:
    step("conv1d")
    kept = [weakref.ref(value) for *_, values in log for value in values.values() if isinstance(value, Tensor)]
    assert len(kept) > 9
    log.clear()
    gc.collect()
    assert all(tensor() is None for tensor in kept)


def test_signatures_are_forgotten_before_they_are_too_many(log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvoc.ops.op.MOST_REPEATABLE", 3)
    for frames in range(10, 20):
        conv1d(torch.randn(1, 16, frames), torch.randn(24, 16, 3))
        assert len(OPS["conv1d"]._repeatable) <= 3


def test_a_call_that_does_not_fit_is_refused_beside_one_that_does(log: list[Any]) -> None:
    x, w = torch.randn(1, 16, 40), torch.randn(24, 16, 3)
    OPS["conv1d"](Conv1d(x, w))
    with pytest.raises(ValueError, match=r"conv1d: weight has shape \(24, 15, 3\) but x has 16 channels"):
        OPS["conv1d"](Conv1d(x, w[:, :15]))
    grad = torch.randn(1, 24, 38)
    backward = Conv1dBackward(grad, x, w, 1, 0, 0, "zero", 1.0, (True, True, True))
    OPS["conv1d_backward"](backward)
    log.clear()
    OPS["conv1d_backward"](backward._replace(needs=(True, False, False)))
    assert [name for _, name, *_ in log] == ["convolve"]

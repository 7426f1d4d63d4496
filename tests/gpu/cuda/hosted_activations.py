"""What the CUDA kernels of `smooth_snake` and `convnext` owe beside the contract, executed by the CPU.

`test_cuda.py` runs this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hosted import A100, H100, RTX4090, T4, network, reference
from hosting import REPOSITORY
from test_streaming import BANDS, random_mel
from torch import Tensor
from torch.backends import cudnn

from benchmarks import predicted
from fastvoc import native
from fastvoc.ops import OPS, conv1d, convnext, explain, last_backends, smooth_snake, use_backend
from fastvoc.ops.contract import errors
from fastvoc.ops.convnext import cuda as convnext_cuda
from fastvoc.ops.cuda import device
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.op import Slower
from fastvoc.ops.packing import keep
from fastvoc.ops.ragged import ragged
from fastvoc.ops.smooth_snake import cuda as snake_cuda

pytestmark = pytest.mark.skipif(native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

GPUS = {"sm_75": T4, "sm_80": A100, "sm_89": RTX4090, "sm_90": H100, "few": device.Gpu(80, 1, 163 << 10, 164 << 10)}
"""The last has so little to do at once that each lane makes as many frames as it can."""


def forget() -> None:
    for name in ("smooth_snake", "smooth_snake_backward", "convnext"):
        OPS[name].forget()


@pytest.fixture(autouse=True)
def other_gpus() -> Iterator[None]:
    """Look anew at what runs a call: what was found is of another GPU."""
    forget()
    yield
    forget()


def snake_call(dtype: torch.dtype, *, frames: int = 400, channels: int = 20) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return 1.5 * torch.randn(2, channels, frames).to(dtype), *(0.3 * torch.randn(2, channels)).to(dtype).unbind()


def block_call(dtype: torch.dtype, *, channels: int = 40, frames: int = 30, batch: int = 2) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    hidden = 3 * channels
    shapes: list[tuple[int, ...]] = [(channels, 1, 7), *((channels,),) * 3]
    shapes += [(hidden, channels), (hidden,), (channels, hidden), (channels,), (channels,)]
    weights = [torch.randn(shape) / (shape[-1] ** 0.5 if len(shape) > 1 else 1) for shape in shapes]
    return torch.randn(batch, channels, frames).to(dtype), *(weight.to(dtype) for weight in weights)


def block(*tensors: Tensor) -> Tensor:
    return convnext(*tensors, padding=(3, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_snakes_have_the_same_bits_on_every_gpu_and_in_every_memory_order(dtype: torch.dtype) -> None:
    x, *parameters = snake_call(dtype)
    made = []
    for gpu in GPUS.values():
        forget()
        with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
            made += [smooth_snake(x, *parameters), smooth_snake(to_channels_last(x), *parameters)]
            made.append(torch.cat([smooth_snake(item[None], *parameters) for item in x]))
    assert all(torch.equal(one, made[0]) for one in made)
    assert last_backends()["smooth_snake"] == "cuda"


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_gradients_of_snakes_are_exact_and_the_same_again(gpu: device.Gpu) -> None:
    x, *parameters = snake_call(torch.float16)
    kind: Any = OPS["smooth_snake_backward"].kind
    call = kind(torch.randn(x.shape).half(), x, *parameters, True, (True, True, True))
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        got, again = (OPS["smooth_snake_backward"](call) for _ in range(2))
    assert all(map(torch.equal, got, again))
    for worst, allowed in errors(call, got):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"


def test_training_runs_the_gradients() -> None:
    tensors = [tensor.requires_grad_() for tensor in snake_call(torch.float32, frames=30)]
    with use_backend("cuda"):
        grads = torch.autograd.grad(smooth_snake(*tensors).square().sum(), tensors)
    assert last_backends()["smooth_snake_backward"] == "cuda"
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(smooth_snake(*exact).square().sum(), exact)
    for grad, true in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad.double(), true, rtol=1e-5, atol=1e-5 * float(true.abs().max()))


def test_snakes_in_float32_ask_for_no_tf32() -> None:
    call = snake_call(torch.float32, frames=20)
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = "ieee"
    try:
        assert isinstance(explain(smooth_snake, *call)["cuda"], Slower)
        assert "TF32" in str(explain(conv1d, call[0], torch.ones(1, 20, 3))["cuda"])
    finally:
        cudnn.conv.fp32_precision = before
    with patch.object(device, "IN_PLACE", T4):
        assert isinstance(explain(smooth_snake, *call)["cuda"], Slower)


@pytest.mark.parametrize("gpu", [A100, T4, H100, RTX4090], ids=["sm_80", "sm_75", "sm_90", "sm_89"])
def test_blocks_are_exact_on_every_gpu_and_in_every_memory_order(gpu: device.Gpu) -> None:
    x, *weights = block_call(torch.float16, channels=64)
    with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
        made = [block(x, *weights), block(to_channels_last(x), *weights), block(x[1:], *weights)]
    call = OPS["convnext"].kind(x, *weights, 3, 3)
    ((worst, allowed),) = errors(call, made[0])
    assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"
    assert torch.equal(made[0], made[1]) and torch.equal(made[0][1:], made[2])


def test_many_frames_share_weights_and_have_the_bits_of_few() -> None:
    x, *weights = block_call(torch.bfloat16, channels=24, frames=80)
    made = []
    for gpu in (GPUS["few"], A100):
        forget()
        with patch.object(device, "IN_PLACE", gpu), use_backend("cuda"):
            made.append(block(x, *weights))
    assert torch.equal(*made)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("function", "make"), [(smooth_snake, snake_call), (block, block_call)])
def test_items_of_a_ragged_batch_are_those_of_each_alone(
    function: Callable[..., Tensor], make: Callable[..., Any], last: bool
) -> None:
    bucket, lengths = 30, [21, 1]
    x, *weights = make(torch.float16, frames=bucket)
    packs: dict[Any, Any] = {}
    with use_backend("cuda"):
        alone = [function(x[n : n + 1, :, :length], *weights) for n, length in enumerate(lengths)]
        for n, length in enumerate(lengths):
            x[n, :, length:] = float("nan")
        x = to_channels_last(x) if last else x
        with ragged(torch.tensor(lengths, dtype=torch.int32), bucket), keep(packs):
            together, again = function(x, *weights), function(x, *weights)
    assert len(packs) == (2 if function is block else 0)
    for n, length in enumerate(lengths):
        assert torch.equal(together[n : n + 1, :, :length], alone[n])
        assert torch.equal(again[n : n + 1, :, :length], alone[n])


@pytest.mark.parametrize("name", ["bigvgan", "vocos", "wavenext"])
def test_generators_run_by_these_operators(name: str) -> None:
    generator = network(name, torch.float16)
    mel = random_mel(1, BANDS, 12).half()
    with torch.inference_mode(), use_backend("cuda"):
        made = generator(mel)
    ran = last_backends()
    assert ran["smooth_snake" if name == "bigvgan" else "convnext"] == ran["conv1d"] == "cuda"
    plain = reference(generator, mel)
    exact = reference(generator.double(), mel.double())
    allowed = 2 * (plain.double() - exact).abs().max() + torch.finfo(torch.float16).eps * exact.abs().max()
    assert (made.double() - exact).abs().max() <= allowed


def test_what_they_cannot_do_is_one_sentence() -> None:
    x, alpha, beta = snake_call(torch.bfloat16, frames=9)
    with patch.object(device, "IN_PLACE", T4):
        assert "multiplies torch.float16 only" in str(explain(smooth_snake, x, alpha, beta)["cuda"])
        assert "multiplies torch.float16 only" in str(explain(convnext, *block_call(torch.bfloat16))["cuda"])
    wide = torch.float64
    assert "take torch.float16, bfloat16 and float32" in str(
        explain(smooth_snake, x.to(wide), alpha.to(wide), beta.to(wide))["cuda"]
    )
    many = x[:1].expand(snake_cuda.MOST_ITEMS + 1, -1, -1)
    assert (
        str(explain(smooth_snake, many, alpha, beta)["cuda"]) == "the batch has 65536 items, and a grid 65535 at most"
    )
    long = x.new_empty(1).expand(1, 20, 2**26)
    assert str(explain(smooth_snake, long, alpha, beta)["cuda"]) == f"an item has {snake_cuda.REACH} elements or more"
    with patch.object(snake_cuda, "FARTHEST", 8):
        reason = "neighbouring elements are more than 8 apart in memory"
        assert explain(smooth_snake, x, alpha, beta)["cuda"] == reason
    reason = "x is torch.float32; these kernels take torch.float16 and torch.bfloat16"
    assert explain(convnext, *block_call(torch.float32))["cuda"] == reason
    most = native.library()[1].fastvoc_cuda_normalise_channels()
    tensors = block_call(torch.float16, channels=most + 1, frames=7, batch=1)
    assert str(explain(convnext, *tensors)["cuda"]) == f"x has {most + 1} channels; a warp normalises {most} at most"
    tensors = block_call(torch.float16, channels=8, frames=7, batch=1)
    items = (tensors[0].expand(convnext_cuda.MOST_ITEMS + 1, -1, -1), *tensors[1:])
    assert "the batch has 65536 items" in str(explain(convnext, *items)["cuda"])
    with ragged(torch.tensor([3], dtype=torch.int32), 7):
        reason = explain(convnext, *tensors)["cuda"]
    assert reason == "7 frames become 1; where items end before the tensor does, a block has to keep them"


@pytest.mark.parametrize("name", ["bigvgan-base", "bigvgan-24k", "vocos"])
def test_the_documented_times_are_those_of_the_model(name: str) -> None:
    page = (REPOSITORY / "docs" / "cuda.md").read_text(encoding="utf-8").splitlines()
    rows = predicted.rows(name, launches=False)
    assert len(rows) == 2 and {*rows} <= {*page}
    launches = sum(int(row.split("|")[3]) for row in rows)
    assert len(predicted.rows(name, launches=True)) == 2 + launches

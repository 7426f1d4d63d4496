"""What the CUDA kernels of `gated` owe beside the contract, executed by the CPU; `test_cuda.py` runs this file."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import predicted
from fastvoc import Vocoder, native
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import WaveGlowConfig
from fastvoc.ops import OPS, explain, gated, last_backends, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.contract import MultiplyInTf32, errors
from fastvoc.ops.cuda import device
from fastvoc.ops.gated import cuda
from fastvoc.ops.gated.call import Gated, around
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.op import Slower
from fastvoc.ops.packing import keep
from fastvoc.ops.ragged import ragged

pytestmark = pytest.mark.skipif(native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

PRECISIONS = [torch.float16, torch.bfloat16, torch.float32]
A100, T4 = device.IN_PLACE, device.Gpu(75, 40, 64 << 10, 64 << 10)
H100, RTX4090 = device.Gpu(90, 132, 227 << 10, 228 << 10), device.Gpu(89, 128, 99 << 10, 100 << 10)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(
    channels: int,
    frames: int,
    *,
    gates: int | None = None,
    skips: int = 32,
    taps: int = 3,
    dilation: int = 1,
    batch: int = 1,
    causal: bool = False,
    dtype: torch.dtype = torch.float16,
    **changed: Any,
) -> Gated:
    """A call in the memory order that needs no copies."""
    gates = gates or channels
    left, right = around(taps, dilation, causal=causal)
    made = Gated(
        to_channels_last(draw(batch, channels, frames, dtype=dtype)),
        draw(2 * gates, channels, taps, seed=1, dtype=dtype) / (channels * taps) ** 0.5,
        draw(2 * gates, seed=2, dtype=dtype) * 0.1,
        to_channels_last(draw(batch, 2 * gates, frames, seed=3, dtype=dtype)),
        draw(channels + skips, gates, 1, seed=4, dtype=dtype) / gates**0.5,
        draw(channels + skips, seed=5, dtype=dtype) * 0.1,
        to_channels_last(draw(batch, skips, frames, seed=6, dtype=dtype)),
        skips,
        dilation,
        left,
        right,
        causal,
    )
    return made._replace(**changed)


def run(call: Gated) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(), use_backend("cuda"):
        made: tuple[Tensor, Tensor] = OPS["gated"](call)
    assert last_backends()["gated"] == "cuda"
    return made


def as_exact_as_plain_pytorch(call: Gated) -> None:
    for worst, allowed in errors(call, run(call), "cuda"):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"


CASES = [pytest.param(case, id=case.name) for case in OPS["gated"].cases()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("gpu", "dtype"), [(T4, torch.float16), (H100, torch.float16), (H100, torch.bfloat16)])
def test_every_gpu_keeps_the_contract(
    gpu: device.Gpu, dtype: torch.dtype, case: Case[Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "IN_PLACE", gpu)
    as_exact_as_plain_pytorch(case.call(dtype=dtype, device="cpu", frames=min(case.frames, 67), sliced=True))


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("gpu", [A100, H100, RTX4090], ids=["sm_80", "sm_90", "sm_89"])
@pytest.mark.parametrize(("channels", "taps", "dilation"), [(64, 3, 512), (64, 2, 1024), (32, 3, 128), (32, 5, 64)])
def test_taps_may_lie_far_apart(
    channels: int, taps: int, dilation: int, gpu: device.Gpu, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "IN_PLACE", gpu)
    causal = dilation > 200
    frames = dilation + 150 if causal else 2 * dilation + 40
    call = layer(channels, frames, taps=taps, dilation=dilation, causal=causal, dtype=dtype)
    if gpu is RTX4090 and taps == 5:
        with pytest.raises(NotImplementedError, match="5 taps at dilation 64 do not fit into the shared"):
            run(call)
        return
    as_exact_as_plain_pytorch(call)


def test_a_condition_is_read_where_it_lies() -> None:
    """That of a layer is a slice of the product for all layers; what lies beside it must not matter."""
    call = layer(32, 50)
    assert call.condition is not None
    everything = torch.full((1, 50, 3 * 64), float("nan"), dtype=torch.float16)
    everything[:, :, 64:128] = call.condition.mT
    made = run(call._replace(condition=everything.mT[:, 64:128]))
    assert all(map(torch.equal, made, run(call)))


def test_memory_orders_change_no_bit() -> None:
    call = layer(24, 70, gates=20, skips=12, batch=2)
    expected = run(call)
    for changed in ("x", "condition", "skip"):
        made = run(call._replace(**{changed: getattr(call, changed).contiguous()}))
        assert all(map(torch.equal, made, expected))


@pytest.mark.parametrize("gpu", [A100, H100], ids=["sm_80", "sm_90"])
def test_neither_batch_nor_length_changes_a_bit(gpu: device.Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "IN_PLACE", gpu)
    compiled = cuda.compiled(gpu, torch.float16, **cuda._settings(layer(64, 8, skips=64)))
    assert isinstance(compiled, cuda.Compiled)
    assert len({compiled.launches(*shape)[0][0] for shape in ((1, 300), (30000, 9000))}) == 2  # other tiles
    call = layer(64, 300, batch=3, skips=64, dilation=2)
    together, lengths = run(call), [300, 131, 64]
    tensors = {name: getattr(call, name) for name in ("x", "condition", "skip")}
    for n, length in enumerate(lengths):
        short = call._replace(**{name: tensor[n : n + 1, :, :length] for name, tensor in tensors.items()})
        alone = run(short)
        with ragged(torch.tensor(lengths, dtype=torch.int32), 300):
            for part, whole in zip(alone, run(call), strict=True):
                assert torch.equal(part, whole[n : n + 1, :, :length])
        if length == 300:
            assert all(torch.equal(one, other[n : n + 1]) for one, other in zip(alone, together, strict=True))


def test_weights_are_packed_once_where_they_are_kept() -> None:
    call, kept = layer(32, 20), dict[Any, Any]()
    with keep(kept):
        expected = run(call)
        ((_, weights),) = kept.values()
        with torch.inference_mode():
            weights.zero_()
        made = run(call)
    assert not torch.equal(made[1], expected[1])
    assert call.skip is not None and torch.equal(made[1], call.skip)  # of weights of zeros nothing is left to add


def test_what_is_refused_is_said() -> None:
    x, weight, out = draw(1, 16, 9, dtype=torch.float64), draw(32, 16, 3), draw(48, 16, 1)
    said = explain(gated, x, weight.double(), out.double(), skip_channels=32)["cuda"]
    assert said is not None and "torch.float64" in said
    said = explain(gated, x.half(), weight, out, skip_channels=32)["cuda"]
    assert isinstance(said, Slower)  # nothing but that the CPU executes it
    many = layer(16, 4)._replace(x=draw(1, 16, 4).expand(70000, -1, -1), condition=None, skip=None)
    assert cuda.prepare(many) == "the batch has 70000 items; these kernels take 65535 at most"
    long = layer(16, 4)._replace(x=draw(1, 16, 1).expand(1, 16, 2**27), condition=None, skip=None)
    assert cuda.prepare(long) == f"an item has {2**31} elements or more"


def test_a_prediction_names_the_kernels_of_each_launch() -> None:
    settings = {"residual": 1, "scale": 1.0, "channels": 256, "gates": 256, "skips": 256, "condition": 640}
    settings |= {"multiplied": 1, "taps": 3, "dilation": 128, "left": 128, "right": 128, "before": 128}
    made = cuda.Compiled(H100, torch.float16, **settings)
    (gate, long), (products, short) = made.launches(32, 11008)
    assert gate.startswith("hopper_gated_f16_") and products.startswith("hopper_f16_")
    # the products of 1408 elements with 512 columns, and of 256
    assert 2 < long / short < 6
    assert sum(clocks for _, clocks in made.launches(1, 2752)) < (long + short) / 32


def test_waveglow_is_predicted_to_reach_its_goals() -> None:
    batch, single = predicted.rows("waveglow", launches=False)
    assert [row.split(" | ")[2] for row in (batch, single)] == ["242", "242"]
    assert float(single.split(" | ")[4].strip(" |")) >= 54
    assert float(batch.split(" | ")[4].strip(" |")) >= 300


BANDS, FRAMES = 6, 30
SMALL = WaveGlowConfig(
    mel_bands=BANDS, hop=32, upsample_kernel_size=64, group=8, flows=3, early_every=2, channels=32, layers=4
)


def waveglow(config: WaveGlowConfig = SMALL, dtype: torch.dtype = torch.float16, backend: str = "cuda") -> Vocoder:
    torch.manual_seed(0)
    network = config.build()
    for flow in network.flows:  # else a coupling is the identity
        torch.nn.init.normal_(flow.network.end.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    mel = replace(CONVENTIONS["waveglow"], bands=BANDS, hop=config.hop)
    checkpoint = Checkpoint(VocoderConfig(generator=config, mel=mel), network.state_dict(), "a test")
    return Vocoder(checkpoint, dtype=dtype, backend=backend)


def mel_of(*shape: int) -> Tensor:
    return 8 * torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 9


@pytest.mark.parametrize("gpu", [A100, H100], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_flows_of_waveglow_are_as_exact_as_operators(
    dtype: torch.dtype, gpu: device.Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "IN_PLACE", gpu)
    mel = mel_of(2, BANDS, FRAMES).to(dtype)
    made = waveglow(dtype=dtype)
    assert made.explain()["native layers"] is None
    exact = waveglow(dtype=torch.float64, backend="reference")(mel.double(), seed=1)
    with MultiplyInTf32() if dtype == torch.float32 else nullcontext():
        plain = waveglow(dtype=dtype, backend="reference")(mel, seed=1)
    fast = made(mel, seed=1)
    errors = [float((wave.double() - exact).square().mean().sqrt()) for wave in (fast, plain)]
    assert 0 < errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * float(exact.abs().max())
    assert last_backends()["gated"] != "cuda"  # the layers were not run one by one


def test_streams_of_waveglow_have_the_samples_of_whole_mels() -> None:
    made, mel = waveglow(), mel_of(BANDS, FRAMES).half()
    whole = made(mel, seed=2)
    for length in (1, 7, 30):
        streamer = made.streamer(seed=2)
        pieces = [*map(streamer.push, mel.split(length, dim=-1)), streamer.flush()]
        assert torch.equal(torch.cat(pieces), whole)


def test_weights_of_waveglow_that_change_are_packed_again() -> None:
    made, mel = waveglow(), mel_of(BANDS, 5).half()
    before = made(mel, seed=1)
    with torch.no_grad():
        made.generator.flows[0].network.layers[1].conv.weight *= 2  # type: ignore[index, union-attr, operator]
    assert not torch.equal(made(mel, seed=1), before)
    with torch.no_grad():
        made.generator.flows[0].network.layers[1].conv.weight /= 2  # type: ignore[index, union-attr, operator]
    assert torch.equal(made(mel, seed=1), before)


def test_flows_that_no_kernel_takes_say_so() -> None:
    made = waveglow(replace(SMALL, kernel_size=5, layers=9))
    assert made.explain()["native layers"] == (
        "5 taps at dilation 128 do not fit into the shared memory of the GPU; two or three taps of any dilation do, "
        "beside a condition that is added"
    )
    assert waveglow(dtype=torch.float64).explain()["native layers"] == (
        "its weights are torch.float64; these kernels multiply torch.float16, torch.bfloat16, and torch.float32 in TF32"
    )

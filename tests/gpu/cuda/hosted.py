"""What CUDA kernels owe beside the contract, executed by the CPU; `test_cuda.py` runs this file."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hosting import REPOSITORY
from test_streaming import BANDS, GENERATORS, checkpoint, condition_of, hifigan, melgan, random_mel
from torch import Tensor

from benchmarks import predicted
from fastvoc import Vocoder, native
from fastvoc.audio import PqmfConfig
from fastvoc.checkpoints import Checkpoint
from fastvoc.engine import CudaPlan, synthesizer
from fastvoc.engine.cuda_graphs import CudaGraphs, bucket_of
from fastvoc.engine.runs import layers_of, operands
from fastvoc.models import Generator
from fastvoc.models.bigvgan import BASE_24K, V2_24K, BigVGANConfig
from fastvoc.models.generator import TrunkGenerator
from fastvoc.models.hifigan import V1, V2, V3
from fastvoc.models.istftnet import C8C8I
from fastvoc.models.melgan import DESCRIPT, FULL_BAND, KERAS, MULTI_BAND
from fastvoc.ops import backends, conv1d, explain, last_backends, residual, upsample, use_backend
from fastvoc.ops.contract import MultiplyInTf32
from fastvoc.ops.cuda import device
from fastvoc.ops.cuda.network import Network, compiled
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.network import INPUT, OTHER_INPUT, Layer
from fastvoc.ops.op import Slower
from fastvoc.ops.packing import keep
from fastvoc.ops.ragged import ragged

pytestmark = pytest.mark.skipif(native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

NOT_PLANNED = "griffin-lim-net", "vocos", "wavenext", "waveglow"
"""Made of more than the layers that GPUs have kernels for."""

PLANNED = [name for name in GENERATORS if "conditioned" not in name and not name.startswith(NOT_PLANNED)]

# one or two stages of each published network, in its own widths or narrower
THREE: dict[str, Any] = {"kernel_sizes": (3, 7, 11), "dilations": ((1, 3, 5),) * 3}
SHAPES: dict[str, Any] = {
    "hifigan-v1, widest": hifigan(channels=256, rates=(2,), rate_kernel_sizes=(4,), **THREE),
    "hifigan-v1, narrowest": hifigan(channels=128, rates=(2, 2), rate_kernel_sizes=(4, 4), **THREE),
    "hifigan-v2": hifigan(channels=32, rates=(2, 2), rate_kernel_sizes=(4, 4), **THREE),
    "hifigan-v3": hifigan(
        channels=64, block="2", kernel_sizes=(3, 5, 7), dilations=((1, 2), (2, 6), (3, 12)), rates=(4, 2)
    ),
    "melgan": melgan(channels=64, units=3),
    "bigvgan": BigVGANConfig(mel_bands=BANDS, channels=128, rates=(2, 2), rate_kernel_sizes=(4, 4)),
    "multi-band melgan": melgan(channels=96, rates=(4,), rate_kernel_sizes=(8,), units=4, pqmf=PqmfConfig()),
}

FRAMES = 12
PRECISIONS = [torch.float16, torch.bfloat16, torch.float32]
A100, T4 = device.IN_PLACE, device.Gpu(75, 40, 64 << 10, 64 << 10)
H100, RTX4090 = device.Gpu(90, 132, 227 << 10, 228 << 10), device.Gpu(89, 128, 99 << 10, 100 << 10)


def network(name: str, dtype: torch.dtype = torch.float32) -> TrunkGenerator:
    """A generator whose signal neither dies nor saturates."""
    if name in GENERATORS:
        return Vocoder(checkpoint(name), dtype=dtype).generator  # type: ignore[return-value]
    torch.manual_seed(0)
    generator = SHAPES[name].build().requires_grad_(False)
    for key, weight in generator.named_parameters():
        if key.endswith("weight"):
            weight.mul_(1.5)
    return generator.to(dtype)  # type: ignore[no-any-return]


def reference(generator: Generator, mel: Tensor) -> Tensor:
    with torch.inference_mode(), use_backend("reference"):
        wave: Tensor = generator(mel)
        return wave


def as_exact_as_plain_pytorch(name: str, precision: torch.dtype, gpu: device.Gpu = A100) -> None:
    generator, mel = network(name, precision), random_mel(2, BANDS, FRAMES).to(precision)
    with torch.inference_mode(), patch.object(device, "IN_PLACE", gpu):
        made = CudaPlan(generator)(mel)
    assert made.dtype == precision and made.shape == (2, 1, generator.samples(FRAMES))
    with MultiplyInTf32() if precision == torch.float32 else nullcontext():
        plain = reference(generator, mel)
    exact = reference(generator.double(), mel.double())
    allowed = 2 * (plain.double() - exact).abs().max() + torch.finfo(precision).eps * exact.abs().max()
    error = (made.double() - exact).abs().max()
    assert error <= allowed, f"off by {error:.2e}; {allowed:.2e} is allowed"


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_published_shapes_are_as_exact_as_plain_pytorch(name: str, precision: torch.dtype) -> None:
    as_exact_as_plain_pytorch(name, precision)


@pytest.mark.parametrize("name", PLANNED)
def test_every_generator_is_as_exact_as_plain_pytorch(name: str) -> None:
    as_exact_as_plain_pytorch(name, torch.float16)


@pytest.mark.parametrize("gpu", [T4, H100], ids=["sm_75", "sm_90"])
@pytest.mark.parametrize("name", ["hifigan-v1, widest", "melgan", "bigvgan"])
def test_every_gpu_is_as_exact_as_plain_pytorch(name: str, gpu: device.Gpu) -> None:
    as_exact_as_plain_pytorch(name, torch.float16, gpu)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_waves_keep_the_dtype_of_the_weights(precision: torch.dtype) -> None:
    generator, mel = network("hifigan"), random_mel(1, BANDS, FRAMES)
    with torch.inference_mode():
        plan = CudaPlan(generator, precision=precision)
        made = plan(mel)
    assert plan.precision == precision and made.dtype == torch.float32
    plain, exact = reference(network("hifigan", precision), mel.to(precision)), reference(generator, mel)
    assert (made - exact).abs().max() <= 2 * (plain - exact).abs().max()


RAGGED = ["hifigan", "hifigan, odd rates", "hifigan, causal", "hifigan, standardised", "melgan", "melgan, multi-band"]
RAGGED += ["bigvgan", "bigvgan, block 2, linear"]


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        *((name, A100) for name in (*RAGGED, "hifigan-v3")),
        *((name, H100) for name in ("hifigan-v1, widest", "bigvgan")),
    ],
)
def test_items_of_a_ragged_batch_are_those_of_each_alone(
    name: str, gpu: device.Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "IN_PLACE", gpu)
    generator, lengths = network(name, torch.float16), [21, 13, 17]
    mel = random_mel(3, BANDS, 21).half()
    with torch.inference_mode():
        plan = CudaPlan(generator)
        alone = [plan(mel[n : n + 1, :, :length].contiguous()) for n, length in enumerate(lengths)]
        for n, length in enumerate(lengths):
            mel[n, :, length:] = float("nan")
        together = plan.padded(mel, torch.tensor(lengths, dtype=torch.int32))
    for n, length in enumerate(lengths):
        assert torch.equal(together[n : n + 1, :, : length * generator.hop], alone[n])


@pytest.mark.parametrize("name", ["hifigan", "melgan", "hifigan-v3", "bigvgan"])
def test_a_bucket_gives_a_shorter_mel_the_samples_that_it_has_alone(name: str) -> None:
    def play(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        wave = run()
        return lambda: wave.copy_(run()), wave

    generator, mel = network(name, torch.float16), random_mel(2, BANDS, 19).half()
    graphs = CudaGraphs(generator, CudaPlan, capture=play, unrecorded=0)  # type: ignore[arg-type]
    graphs(random_mel(2, BANDS, bucket_of(19)).half())  # leaves what must not be heard
    with torch.inference_mode():
        assert graphs.explain(2, 19) is None and torch.equal(graphs(mel), CudaPlan(generator)(mel))
    assert len(graphs.graphs) == 1


def test_a_wave_depends_neither_on_the_batch_nor_on_the_memory_order() -> None:
    generator, mel = network("hifigan, reflect", torch.float16), random_mel(3, BANDS, FRAMES).half()
    with torch.inference_mode():
        plan = CudaPlan(generator)
        together = plan(mel)
        assert torch.equal(plan(to_channels_last(mel)), together)
        assert torch.equal(plan(mel[1:2]), together[1:2])
        assert plan(mel[:0]).shape == (0, 1, FRAMES * generator.hop)


def test_threads_may_share_a_plan() -> None:
    generator = network("hifigan", torch.float16)
    mels = [random_mel(1, BANDS, frames).half() for frames in (9, 11, 14, 16)]
    with torch.inference_mode():
        plan = CudaPlan(generator)
        alone = [plan(mel) for mel in mels]
    with ThreadPoolExecutor(2) as pool:
        assert all(map(torch.equal, pool.map(plan, mels), alone))


PUBLISHED: dict[str, Any] = {
    "hifigan-v1": V1,
    "hifigan-v2": V2,
    "hifigan-v3": V3,
    "melgan": DESCRIPT,
    "melgan, keras": KERAS,
    "melgan, full-band": FULL_BAND,
    "melgan, multi-band": MULTI_BAND,
    "istftnet": C8C8I,
    "bigvgan, base": BASE_24K,
    "bigvgan": V2_24K,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_few_launches_on_every_gpu(name: str) -> None:
    layers = layers_of(PUBLISHED[name].build())
    for gpu in (A100, T4, H100, RTX4090):
        for dtype in PRECISIONS[: 1 if gpu is T4 else None]:
            plan = compiled(layers, gpu, dtype)
            assert not isinstance(plan, str), plan
            names = plan.launches(1, 86)
            assert names[0] == "enter" and len(names) <= len(layers)
            kinds = {name.split("_")[0] for name in names[1:]}
            assert ("smooth" in kinds) == name.startswith("bigvgan")
            assert kinds <= {"chain", "convolution", "smooth", *(["hopper"] if gpu is H100 else [])}


LAUNCHES = {"hifigan-v1": 29, "hifigan-v2": 13, "hifigan-v3": 10, "melgan": 19, "melgan, multi-band": 22}
"""How many an H100 needs of the networks of which docs/cuda.md says it."""


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_documented_launches_are_those_of_the_plan(name: str) -> None:
    plan = compiled(layers_of(PUBLISHED[name].build()), H100, torch.float16)
    assert not isinstance(plan, str), plan
    assert len(plan.launches(1, 86)) == len(plan.clocks(1, 86)) == LAUNCHES[name]


@pytest.mark.parametrize("name", ["hifigan-v1", "hifigan-v2", "melgan"])
def test_the_documented_times_are_those_of_the_model(name: str) -> None:
    page = (REPOSITORY / "docs" / "cuda.md").read_text(encoding="utf-8").splitlines()
    rows = predicted.rows(name, launches=False)
    assert len(rows) == 2 and {*rows} <= {*page}
    assert len(predicted.rows(name, launches=True)) == 2 + 2 * LAUNCHES[name]


def convolutions(*taps: int, channels: int = 256) -> list[Layer]:
    """Convolutions of one signal side by side, and the sum of what they make."""

    def conv(input: int, taps: int, before: int | None = None) -> Layer:
        weight = torch.randn(channels, channels, taps, generator=torch.Generator().manual_seed(taps)) / 50
        layer = Layer(kind="conv1d", input=input, weight=weight, bias=None, padding=(taps // 2, taps // 2))
        return layer if before is None else replace(layer, partial=before)

    side = [conv(INPUT, count) for count in taps]
    sums = [conv(n, 3, before=len(taps) + n - 1 if n else None) for n in range(len(taps))]
    return side + sums


def planned(layers: list[Layer], gpu: device.Gpu = H100, dtype: torch.dtype = torch.float16) -> Network:
    plan = compiled(layers, gpu, dtype)
    assert isinstance(plan, Network), plan
    return plan


def test_a_launch_side_by_side_lasts_as_long_as_its_longest_convolution() -> None:
    """Where all have room on the GPU at once: the mean of 3, 7 and 11 taps would be a third less."""
    plan, alone = planned(convolutions(3, 7, 11)), planned(convolutions(11))
    assert len(plan.launches(1, 86)) == len(alone.launches(1, 86)) == 3  # the door, side by side, the sum
    assert plan.clocks(1, 86)[1] >= alone.clocks(1, 86)[1]
    # A large batch fills it anyway, and takes as long as all of them: 21 taps for 11.
    ratio = plan.clocks(32, 2752)[1] / alone.clocks(32, 2752)[1]
    assert 1.7 < ratio < 21 / 11 + 0.1


def test_tiles_are_small_where_there_is_little_to_do_and_else_ask_little_of_the_cache() -> None:
    """The higher a tile, the fewer bytes of weights are read for each product."""
    plan = planned(convolutions(3, 7, 11))
    assert plan.launches(1, 688)[1:] == ["hopper_f16_64x64"] * 2
    assert plan.launches(32, 2752)[1:] == ["hopper_f16_256x128"] * 2
    narrow = planned(convolutions(3, 7, 11, channels=64))
    assert "hopper_f16_256x64" in narrow.launches(32, 44032)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_small_tiles_give_the_bits_of_large_ones(dtype: torch.dtype) -> None:
    layers, x = convolutions(3, 7), torch.randn(2, 256, 150).to(dtype)
    one, many = planned(layers, H100._replace(multiprocessors=1), dtype), planned(layers, H100, dtype)
    kernels = {name.split("_")[2] for plan in (one, many) for name in plan.launches(2, 150) if name != "enter"}
    assert "64x64" in kernels and len(kernels) > 1
    waves = [plan.run(plan.pack(layers), x, dtype=dtype) for plan in (one, many)]
    assert torch.equal(*waves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [64, 256])
def test_warpgroups_in_turn_give_the_bits_of_those_together(channels: int, dtype: torch.dtype) -> None:
    layers, x = convolutions(3, 7, channels=channels), torch.randn(3, channels, 600).to(dtype)
    asked, few = {"hopper": device.HOPPER_CHOICES["in-turn"]}, H100._replace(multiprocessors=2)
    turns, together = planned(layers, few._replace(**asked), dtype), planned(layers, few, dtype)
    in_turn = [name for name in turns.launches(3, 600) if name.startswith("hopper_in_turn_")]
    assert len(in_turn) == 2 and not any("in_turn" in name for name in together.launches(3, 600))
    # Where there is not enough to do for several turns, there are none.
    assert not any("in_turn" in name for name in planned(layers, H100._replace(**asked), dtype).launches(1, 600))
    waves = [plan.run(plan.pack(layers), x, dtype=dtype) for plan in (turns, together)]
    assert torch.equal(*waves)


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["hifigan-v1, narrowest", "hifigan-v2", "hifigan-v3"])
def test_chains_that_multiply_by_warpgroups_are_as_exact_as_plain_pytorch(name: str, precision: torch.dtype) -> None:
    gpu = H100._replace(hopper=device.HOPPER_CHOICES["chains"])
    plan = planned(layers_of(network(name, precision)), gpu, precision)
    assert any(kernel.startswith("hopper_chain_") for kernel in plan.launches(2, FRAMES))
    as_exact_as_plain_pytorch(name, precision, gpu)


def test_hopper_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "hifigan-v1, widest"

    def kinds(gpu: device.Gpu) -> set[str]:
        plan = compiled(layers_of(network(name)), gpu, torch.float16)
        assert not isinstance(plan, str), plan
        return {launch.split("_")[0] for launch in plan.launches(1, FRAMES)}

    properties = SimpleNamespace(
        major=9,
        minor=0,
        multi_processor_count=132,
        shared_memory_per_block_optin=227 << 10,
        shared_memory_per_multiprocessor=228 << 10,
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert "hopper" in kinds(device._gpu.__wrapped__(torch.device("cuda")))
    monkeypatch.setenv("FASTVOC_HOPPER", "off")
    off = device._gpu.__wrapped__(torch.device("cuda"))
    assert off.architecture == 90 and "hopper" not in kinds(off)
    as_exact_as_plain_pytorch(name, torch.float16, off)
    monkeypatch.setenv("FASTVOC_HOPPER", "no")
    known = "on, off, chains, in-turn, clusters"
    with pytest.raises(ValueError, match=f"FASTVOC_HOPPER: 'no' is no choice; known: {known}"):
        device._gpu.__wrapped__(torch.device("cuda"))


def test_too_short_to_reflect_is_refused_as_by_the_operators() -> None:
    generator, mel = network("melgan", torch.float16), random_mel(1, BANDS, 3).half()
    with pytest.raises(ValueError, match="needs at least 4 to reflect 3") as by_operators:
        reference(generator, mel)
    with pytest.raises(ValueError) as by_plan, torch.inference_mode():
        CudaPlan(generator)(mel)
    assert str(by_plan.value) == str(by_operators.value)


def test_what_the_kernels_cannot_do_is_one_sentence() -> None:
    x, weight = torch.ones(1, 2, 16), torch.ones(2, 2, 3)
    assert isinstance(explain(conv1d, x, weight)["cuda"], Slower)
    assert "x is torch.float64; these kernels" in str(explain(conv1d, x.double(), weight.double())["cuda"])
    assert "these kernels pad up to dilation * (taps - 1), 2 frames" in str(
        explain(conv1d, x, weight, padding=(3, 0))["cuda"]
    )
    assert explain(conv1d, x[..., :0], weight, padding=(2, 2))["cuda"] == "x has no frames"
    with patch.object(device, "tf32_allowed", lambda: False):
        assert "does not allow" in str(explain(conv1d, x, weight)["cuda"])
        with use_backend("cuda"), pytest.raises(NotImplementedError, match=r"torch\.float32 is multiplied in TF32"):
            conv1d(x, weight)
    with patch.object(device, "IN_PLACE", T4):
        reason = explain(conv1d, x.bfloat16(), weight.bfloat16())["cuda"]
        assert reason == "the GPU is sm_75, which multiplies torch.float16 only; torch.bfloat16 needs sm_80"
        assert isinstance(explain(conv1d, x.half(), weight.half())["cuda"], Slower)
    assert "amplifies every rounding" in str(CudaPlan.refuses(Vocoder(checkpoint("griffin-lim-net")).generator))
    conditioned = Vocoder(checkpoint("hifigan, conditioned"), dtype=torch.float16)
    assert CudaPlan.refuses(conditioned.generator) == "it is conditioned on a vector per utterance"
    float64 = Vocoder(checkpoint("hifigan"), dtype=torch.float64).generator
    assert "its weights are torch.float64" in str(CudaPlan.refuses(float64))


def test_what_is_conditioned_runs_by_operators() -> None:
    vocoder = Vocoder(checkpoint("hifigan, conditioned"), dtype=torch.float16, backend="cuda")
    mel, condition = random_mel(1, BANDS, FRAMES).half(), condition_of("hifigan, conditioned", 1)
    assert condition is not None
    wave = vocoder(mel, condition=condition.half())
    assert {last_backends()[name] for name in ("conv1d", "upsample", "residual")} == {"cuda"}
    with use_backend("reference"), torch.inference_mode():
        plain = vocoder.generator(mel, condition.half())
        exact = vocoder.generator.double()(mel.double(), condition.double())
    allowed = 2 * (plain.double() - exact).abs().max() + torch.finfo(torch.float16).eps * exact.abs().max()
    assert (wave.double() - exact).abs().max() <= allowed


def test_what_is_conditioned_runs_together_too() -> None:
    vocoder, lengths = Vocoder(checkpoint("hifigan, conditioned"), dtype=torch.float16, backend="cuda"), [9, 21, 13]
    mel, condition = random_mel(3, BANDS, 21).half(), condition_of("hifigan, conditioned", 3)
    assert condition is not None
    waves = vocoder(mel, condition=condition.half(), lengths=lengths)
    for n, length in enumerate(lengths):
        assert torch.equal(waves[n], vocoder(mel[n, :, :length], condition=condition[n].half()))


def louder(factor: float) -> Checkpoint:
    """A generator whose stem makes its signal larger, and whose head takes that back."""
    quiet = checkpoint("hifigan")
    weights = {key: value.clone() for key, value in quiet.weights.items()}
    for part, by in (("stem", factor), ("head", 1 / factor)):
        weights[f"trunk.{part}.weight" if part == "stem" else "head.conv.weight"] *= by
    return Checkpoint(quiet.config, weights, "louder")


def test_float16_gives_way_where_values_may_become_too_large_for_it() -> None:
    mel = random_mel(BANDS, FRAMES)
    quiet, loud = (Vocoder(louder(factor), backend="cuda") for factor in (1.0, 1e6))
    assert quiet.explain()["cuda plan in float16"] is None and "cuda plan in bfloat16" not in quiet.explain()
    ways = loud.explain()
    assert str(ways["cuda plan in float16"]).startswith("values reach ") and ways["cuda plan in bfloat16"] is None
    assert quiet(mel).dtype == loud(mel).dtype == torch.float32
    assert loud(mel).isfinite().all()
    asked = Vocoder(louder(1e6), backend="cuda", dtype=torch.float16)
    assert asked.explain()["cuda plan in float16"] is None


def test_a_vocoder_runs_a_plan_and_says_so() -> None:
    mel = random_mel(2, BANDS, FRAMES)
    vocoder = Vocoder(checkpoint("hifigan"), backend="cuda")
    ways = vocoder.explain()
    assert next(name for name, reason in ways.items() if reason is None) == "cuda plan in float16"
    assert ways["plan"] == ways["graphs"] == "backend 'cuda' was asked for"
    with torch.inference_mode():
        expected = CudaPlan(vocoder.generator, precision=torch.float16)(mel)[:, 0]  # type: ignore[arg-type]
    assert torch.equal(vocoder(mel), expected)
    with use_backend("cuda"):
        assert torch.equal(Vocoder(checkpoint("hifigan"))(mel), expected)
    cpu = Vocoder(checkpoint("hifigan")).explain()
    assert cpu["plan"] is None and "for tests, not for speed" in str(cpu["cuda plan in float16"])
    assert backends()["cuda"] is None


def test_mels_of_different_lengths_run_together_and_sound_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, lengths = Vocoder(checkpoint("hifigan"), backend="cuda"), [9, 21, 13, 17, 12]
    monkeypatch.setattr(synthesizer, "WINDOW", 40)  # the longest alone, then the others two by two
    mel = random_mel(5, BANDS, 21)
    batches = []
    run = CudaPlan.padded
    monkeypatch.setattr(CudaPlan, "padded", lambda self, mel, *rest: batches.append(len(mel)) or run(self, mel, *rest))
    waves = vocoder(mel, lengths=lengths)
    assert batches == [2, 2]
    for n, length in enumerate(lengths):
        assert torch.equal(waves[n], vocoder(mel[n, :, :length]))


def test_new_weights_are_packed_again() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan"), backend="cuda"), random_mel(BANDS, FRAMES)
    before = vocoder(mel)
    with torch.no_grad():
        vocoder.generator.trunk.stem.weight.mul_(2)  # type: ignore[union-attr, operator]
    after = vocoder(mel)
    with torch.inference_mode():
        expected = CudaPlan(vocoder.generator, precision=torch.float16)(mel[None])[0, 0]  # type: ignore[arg-type]
    assert not torch.equal(after, before) and torch.equal(after, expected)


def test_a_stream_runs_by_operators() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan"), dtype=torch.float16, backend="cuda"), random_mel(BANDS, 25).half()
    pieces, others = (torch.cat(list(vocoder.stream(mel.split(size, dim=1)))) for size in (11, 4))
    assert last_backends()["conv1d"] == last_backends()["upsample"] == "cuda"
    assert torch.equal(pieces, others)
    plain, exact = reference(vocoder.generator, mel[None])[0, 0], reference(network("hifigan"), mel[None].float())[0, 0]
    assert (pieces - exact).abs().max() <= 2 * (plain - exact).abs().max()


def test_a_network_takes_only_what_lies_where_its_weights_do() -> None:
    layers = [Layer(kind="conv1d", input=INPUT, weight=torch.randn(5, 4, 3), bias=None, padding=(1, 1))]
    layers[0] = replace(layers[0], residual=OTHER_INPUT)
    made = compiled(layers, A100, torch.float16)
    assert isinstance(made, Network)
    packed, x = made.pack(layers), torch.randn(2, 4, 20)
    other, lengths = torch.randn(2, 5, 20), torch.tensor([20, 7], dtype=torch.int32)
    run = partial(made.run, packed, dtype=torch.float32)
    assert run(x, other=other, lengths=lengths).isfinite()[0].all()
    for sentence, call in {
        "x is on meta but the weights are on cpu; move one of them": lambda: run(x.to("meta"), other=other),
        "the second input is on meta but the weights": lambda: run(x, other=other.to("meta")),
        "lengths is on meta but the weights": lambda: run(x, other=other, lengths=lengths.to("meta")),
        "x is on cpu but the weights are on meta": lambda: made.run(packed.to("meta"), x, dtype=torch.float32),
        "x has shape .2, 3, 20.; expected .batch, 4, frames": lambda: run(x[:, :3], other=other),
        "second input has shape .2, 5, 19.; expected .2, 5, 20.": lambda: run(x, other=other[..., 1:]),
        "lengths have shape .1,. and are torch.int32; expected .2,.": lambda: run(x, other=other, lengths=lengths[:1]),
        "are torch.int64; expected": lambda: run(x, other=other, lengths=lengths.long()),
    }.items():
        with pytest.raises(ValueError, match=sentence):
            call()


def weight(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (draw * (shape[1] * shape[2]) ** -0.5).half()


@pytest.mark.parametrize("mode", ["zero", "reflect", "replicate"])
def test_operators_know_where_the_items_of_a_ragged_batch_end(mode: str) -> None:
    lengths, bucket = [11, 16, 9], 16
    first, up, head = weight(6, 4, 3), weight(6, 5, 6), weight(1, 5, 7)
    units, biases = [weight(5, 5, 3, seed=n) for n in range(4)], [torch.randn(5).half() for _ in range(4)]

    def chain(mel: Tensor) -> Tensor:
        x = conv1d(mel, first, padding=(1, 1), padding_mode=mode)
        x = upsample(x, up, stride=3, crop=(2, 1), slope=0.1)
        x = residual(x, units, biases, [3, 1, 1, 2], branches=2, padding_mode=mode)
        return conv1d(x, head, padding=(3, 3), padding_mode=mode, slope=0.01, tanh=True)

    mel, packs = torch.randn(3, 4, bucket).half(), {}
    with use_backend("cuda"):
        alone = [chain(mel[n : n + 1, :, :length]) for n, length in enumerate(lengths)]
        for n, length in enumerate(lengths):
            mel[n, :, length:] = float("nan")
        with ragged(torch.tensor(lengths, dtype=torch.int32), bucket), keep(packs):
            together, again = chain(mel), chain(mel)
    assert len(packs) == 4
    for n, length in enumerate(lengths):
        assert torch.equal(together[n : n + 1, :, : 3 * length], alone[n])
        assert torch.equal(again[n : n + 1, :, : 3 * length], alone[n])


def test_not_a_number_reaches_all_that_it_touches_and_no_more() -> None:
    x, w = torch.randn(1, 5, 40).half(), weight(21, 5, 3)
    x[0, 2, 20] = float("nan")
    with use_backend("cuda"):
        y = conv1d(x, w, padding=(1, 1), slope=0.1, tanh=True)
    assert y[..., 19:22].isnan().all()
    assert y[..., :19].isfinite().all() and y[..., 22:].isfinite().all()


def test_the_calibration_hears_what_the_layers_multiply() -> None:
    generator, mel = network("hifigan"), random_mel(1, BANDS, FRAMES)
    with torch.inference_mode():
        values = list(operands(layers_of(generator), mel))
    assert len(values) == len(layers_of(generator)) and torch.equal(values[0], mel)

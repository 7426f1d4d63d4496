"""WaveNets by the kernel for GPUs, executed by the CPU; `test_cuda.py` runs this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import torch
from test_wavenet import BANDS, NETWORKS, SMALL, checkpoint, given, inputs_of, mel_config, mel_of, network, vocoder
from torch import Tensor

from fastvoc import Vocoder, native
from fastvoc.blocks.conditioning import RepeatedConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models.wavenet import GAUSSIAN, LOGISTICS, MU_LAW, NV_WAVENET, WaveNet, WaveNetConfig
from fastvoc.ops import use_backend
from fastvoc.ops.cuda import device
from fastvoc.ops.recurrent import CudaWaveNet, Steps

pytestmark = pytest.mark.skipif(native.hosted() is None, reason="FASTVOC_CUDA_ON_CPU names no library")

A100, T4 = device.IN_PLACE, device.Gpu(75, 40, 64 << 10, 64 << 10)
H200 = device.Gpu(90, 132, 227 << 10, 228 << 10)
ONE = device.Gpu(90, 1, 227 << 10, 228 << 10)
"""A GPU of one multiprocessor, on which streams share a block."""
CLUSTERS = H200._replace(hopper=device.HOPPER_CHOICES["clusters"])

PUBLISHED = {"r9y9, mu-law": MU_LAW, "r9y9, logistics": LOGISTICS, "r9y9, gaussian": GAUSSIAN, "nv-wavenet": NV_WAVENET}


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    with use_backend("cuda"):
        yield


def published(name: str) -> WaveNet:
    """A network of a published size, whose signal neither dies nor saturates."""
    torch.manual_seed(0)
    model = PUBLISHED[name].build().requires_grad_(False)
    for key, weight in model.named_parameters():
        if key.endswith("weight") and "rows" not in key:
            weight.mul_(1.5)
    return model


def parameters_given(model: WaveNet, precision: torch.dtype, inputs: Tensor, rows: Tensor, **more: Any) -> Tensor:
    """Return what the kernel says of the sample behind each input: (B, T), (B, bands, T) → (B, outputs, T)."""
    packed, gates = CudaWaveNet(model._as_matrices(), precision), model._gates(more.get("condition"))
    (batch, count), place = inputs.shape, inputs.device
    result = torch.empty(batch, count, packed.sizes["outputs"], device=place)
    packed.run(
        Steps(
            time=torch.zeros(batch, dtype=torch.int64, device=place),
            rings=torch.zeros(batch, packed.rows, packed.sizes["channels"], device=place),
            history=torch.zeros(batch, 1, device=place),
            condition=rows.mT.float().contiguous(),
            gates=None if gates is None else gates.float(),
            noise=None,
            temperature=None,
            forced=inputs.float(),
            parameters=result,
        )
    )
    return result.mT


def inputs_for(config: WaveNetConfig, batch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return config.distribution.encode(torch.rand(batch, count, generator=generator) - 0.5)


def as_exact_as_plain_pytorch(model: WaveNet, precision: torch.dtype, count: int, **more: Tensor) -> None:
    batch, place = 2, model.input.weight.device
    inputs = inputs_for(model.config, batch, count).to(place)
    rows = torch.randn(batch, model.config.mel_bands, count, generator=torch.Generator().manual_seed(4))
    model, rows = model.to(precision), rows.to(place, precision)
    given_rows = {key: value.to(precision) for key, value in more.items()}
    with torch.no_grad(), use_backend("reference"):
        made = parameters_given(model, precision, inputs, rows, **given_rows).double()
        plain = model.parameters_of(inputs, rows, **given_rows).double()
        exact = model.double().parameters_of(
            inputs, rows.double(), **{key: value.double() for key, value in given_rows.items()}
        )
    allowed = 2 * (plain - exact).abs().max() + torch.finfo(precision).eps * exact.abs().max()
    error = (made - exact).abs().max()
    assert error <= allowed, f"off by {error:.2e}; {allowed:.2e} is allowed"
    assert exact.std() > 1e-3


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_as_exact_as_plain_pytorch(name: str, precision: torch.dtype) -> None:
    with patch.object(device, "IN_PLACE", H200):
        as_exact_as_plain_pytorch(published(name), precision, 20)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_as_exact_as_plain_pytorch(name: str) -> None:
    as_exact_as_plain_pytorch(network(vocoder(name)), torch.float16, 40, **given(name, 2))


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("name", ["mu-law", "logistics", "gaussian", "vector"])
def test_numbers_are_those_of_the_seed_and_draw_what_the_definition_draws(name: str, temperature: float) -> None:
    voice, mel, more = vocoder(name), mel_of(2, BANDS, 10), given(name, 2)
    wave = voice(mel, seed=5, temperature=temperature, **more)
    model = network(voice)
    with use_backend("reference"):
        rows = model.rows.between(mel, 0, ended=True)
    inputs = inputs_of(model.config, wave)
    before = torch.full_like(inputs[:, :1], model.config.distribution.silence)
    forced = torch.cat([before, inputs[:, :-1]], dim=1)
    parameters = parameters_given(model, torch.float16, forced, rows, **more).double()
    numbers = voice.draws(torch.tensor([5, 6]), 0, 10).double()  # type: ignore[misc]
    warmth = torch.full(wave.shape[1:], float(temperature), dtype=torch.float64)
    draw = model.config.distribution.draw
    expected = torch.stack([draw(p.T, n.T, warmth) for p, n in zip(parameters, numbers, strict=True)])
    if not model.config.distribution.classes:
        torch.testing.assert_close(inputs.double(), expected, rtol=0, atol=2e-5)
        return
    for item, t in (expected != inputs).nonzero().tolist():  # only where a number lies at a boundary
        sums = (parameters[item, :, t] / temperature).softmax(0).cumsum(0)
        assert float((sums - numbers[item, 0, t]).abs().min()) < 1e-5
    assert len(inputs.unique()) > (20 if temperature else 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_batches_and_lengths_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    voice, mel, more = vocoder(name), mel_of(3, BANDS, 9), given(name, 3)
    own = [{key: value[item] for key, value in more.items()} for item in range(3)]
    alone = [voice(mel[item], seed=20 + item, **own[item]) for item in range(3)]
    short = voice(mel[1, :, :4], seed=21, **own[1])
    monkeypatch.setattr(device, "IN_PLACE", ONE)
    assert torch.equal(voice(mel, seed=20, **more), torch.stack(alone))
    ragged = voice(mel, lengths=[9, 4, 9], seed=20, **more)
    assert all(map(torch.equal, ragged, [alone[0], short, alone[2]]))
    streamed = torch.cat(list(voice.stream(mel[0].split([1, 0, 5, 3], dim=-1), seed=20, **own[0])))
    assert torch.equal(streamed, alone[0]) and bool(streamed.isfinite().all())


@pytest.mark.parametrize("name", PUBLISHED)
def test_clusters_give_the_bits_of_blocks(name: str) -> None:
    model, batch, count = published(name), 2, 12
    inputs, made = inputs_for(model.config, batch, count), []
    rows = torch.randn(batch, model.config.mel_bands, count, generator=torch.Generator().manual_seed(4))
    for gpu, clusters in (H200, 0), (CLUSTERS, 2), (CLUSTERS._replace(multiprocessors=8), 1):
        with patch.object(device, "IN_PLACE", gpu):
            assert CudaWaveNet.clusters(inputs.device, model._sizes, batch) == clusters
            made.append(parameters_given(model, torch.float16, inputs, rows))
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2]) and bool(made[0].isfinite().all())


def test_clusters_draw_stream_and_take_lengths_as_blocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    config = WaveNetConfig(**{**SMALL, "channels": 16, "conditioning": RepeatedConfig(hop=8)})
    torch.manual_seed(0)
    settings = VocoderConfig(generator=config, mel=mel_config(config))
    voice, mel = Vocoder(Checkpoint(settings, config.build().state_dict(), "a test")), mel_of(3, BANDS, 6)
    waves = voice(mel, seed=20)
    monkeypatch.setattr(device, "IN_PLACE", CLUSTERS._replace(multiprocessors=16))
    assert next(way for way, reason in voice.explain().items() if reason is None) == (
        "cuda steps in float16 by clusters"
    )
    assert torch.equal(voice(mel, seed=20), waves)
    ragged = voice(mel, lengths=[6, 2, 5], seed=20)
    assert torch.equal(ragged[0], waves[0]) and torch.equal(ragged[2], waves[2, : 5 * 8])
    streamed = torch.cat(list(voice.stream(mel[1].split([1, 0, 3, 2], dim=-1), seed=21)))
    assert torch.equal(streamed, waves[1])


def test_what_no_cluster_makes_is_made_by_blocks() -> None:
    sizes = network(vocoder("mu-law"))._sizes
    for gpu, channels, batch, clusters in (
        (CLUSTERS, 16, 128, 16),
        (CLUSTERS, 16, 129, 0),  # more than eight streams for each
        (CLUSTERS, 12, 1, 0),  # channels that do not come in eights
        (CLUSTERS._replace(multiprocessors=7), 16, 1, 0),
        (CLUSTERS._replace(architecture=100), 16, 1, 0),
        (CLUSTERS._replace(shared_per_block=16 << 10), 16, 1, 0),
        (H200, 16, 1, 0),
    ):
        with patch.object(device, "IN_PLACE", gpu):
            assert CudaWaveNet.clusters(torch.device("cpu"), sizes | {"channels": channels}, batch) == clusters


def test_weights_that_change_are_packed_again() -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 4)
    before = voice(mel, seed=1)
    with torch.no_grad():
        network(voice).output.weight.mul_(3)
    after = voice(mel, seed=1)
    assert not torch.equal(before, after)
    changed = Checkpoint(checkpoint("mu-law").config, network(voice).state_dict(), "a test")
    assert torch.equal(Vocoder(changed)(mel, seed=1), after)


def test_the_precision_is_that_of_the_weights_or_float16_where_it_suffices() -> None:
    for dtype, way in (
        (torch.float32, "cuda steps in float16"),
        (torch.float16, "cuda steps in float16"),
        (torch.bfloat16, "cuda steps in bfloat16"),
    ):
        ways = vocoder("mu-law", dtype).explain()
        assert next(name for name, reason in ways.items() if reason is None) == way
        assert vocoder("mu-law", dtype)(mel_of(BANDS, 2), seed=1).dtype == dtype
    loud = checkpoint("mu-law").weights | {"layers.2.residual.bias": torch.full((12,), 7e4)}
    voice = Vocoder(Checkpoint(checkpoint("mu-law").config, loud, "a test"))
    ways = voice.explain()
    assert ways["cuda steps in float16"] == "values may reach 7e+04 in it, and float16 ends at 65504"
    assert ways["cuda steps in bfloat16"] is None
    assert bool(voice(mel_of(BANDS, 2), seed=1).isfinite().all())


def test_reach_is_a_bound_of_what_is_multiplied() -> None:
    voice = vocoder("emphasised")
    model, seen = network(voice), []
    reach = model._as_matrices().reach
    parts = [model.hidden, model.output, *(layer.dilated for layer in model._each())]
    hooks = [part.register_forward_pre_hook(lambda _, x: seen.append(float(x[0].abs().max()))) for part in parts]
    inputs = inputs_for(model.config, 1, 50)
    with torch.no_grad(), use_backend("reference"):
        model.parameters_of(inputs, torch.randn(1, BANDS, 50))
    for hook in hooks:
        hook.remove()
    assert seen and max(seen) <= reach < 100 * max(seen)


def test_what_the_kernel_cannot_do_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = mel_of(BANDS, 2)
    with pytest.raises(NotImplementedError, match=r"^WaveNet: its weights are torch.float64; steps on a GPU multiply"):
        vocoder("mu-law", torch.float64)(mel, seed=1)
    with use_backend(None):
        ways = vocoder("mu-law").explain()
    assert ways["native steps"] is None and ways["cuda steps in float16"] == (
        "the CPU executes the kernels here, for tests, not for speed"
    )
    monkeypatch.setattr(device, "IN_PLACE", T4)
    reason = "the GPU is sm_75, which multiplies torch.float16 only; torch.bfloat16 needs sm_80"
    assert vocoder("mu-law", torch.bfloat16).explain()["cuda steps in bfloat16"] == reason
    wide = WaveNetConfig(**{**SMALL, "head_channels": 5000, "conditioning": RepeatedConfig(hop=8)})
    made = Vocoder(Checkpoint(VocoderConfig(generator=wide, mel=mel_config(wide)), wide.build().state_dict(), "a test"))
    with pytest.raises(NotImplementedError, match=r"needs \d+ bytes of shared memory; a block of this GPU has 65536$"):
        made(mel, seed=1)


def test_steps_that_are_none_are_refused() -> None:
    packed = CudaWaveNet(network(vocoder("mu-law"))._as_matrices(), torch.float16)
    steps = Steps(
        time=torch.zeros(1, dtype=torch.int64),
        rings=torch.zeros(1, packed.rows, 12),
        history=torch.zeros(1, 1),
        condition=torch.zeros(1, 3, BANDS),
        gates=None,
        noise=torch.zeros(1, 1, 3),
        temperature=torch.ones(1),
        drawn=torch.zeros(1, 3),
    )
    packed.run(steps)
    for changed, sentence in (
        ({"rings": steps.rings.half()}, "rings is torch.float16"),
        ({"noise": torch.zeros(1, 1, 2)}, r"noise is torch.float32 of shape \(1, 1, 2\)"),
        ({"noise": None}, "noise and temperature are needed"),
        ({"history": torch.zeros(1, 1, device="meta")}, "history is on meta but the weights are on cpu"),
    ):
        with pytest.raises(ValueError, match=sentence):
            packed.run(steps._replace(**changed))  # type: ignore[arg-type]
    hostile = steps._replace(time=torch.tensor([-7]), history=torch.tensor([[float("nan")]]))
    packed.run(hostile)  # reads no memory but its own
    assert float(steps.drawn.min()) >= 0 and float(steps.drawn.max()) < 256  # type: ignore[union-attr]

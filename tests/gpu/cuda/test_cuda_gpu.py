"""What only a GPU can show of the CUDA kernels: no bit that differs from run to run, and graphs that are exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosted_recurrent import PUBLISHED, as_exact_as_plain_pytorch, published
from test_wavenet import mel_config

from fastvoc import Vocoder, native
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.engine import CudaPlan
from fastvoc.engine.cuda_graphs import LONGEST, CudaGraphs, bucket_of
from fastvoc.models import hifigan, melgan
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import OPS, backends, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.contract import results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        backends()["cuda"] is not None or native.hosted() is not None,
        reason=str(backends()["cuda"] or "the CPU executes the kernels"),
    ),
]

MODELS = {
    "hifigan-v1": hifigan.V1,
    "hifigan-v2": hifigan.V2,
    "hifigan-v3": hifigan.V3,
    "melgan": melgan.DESCRIPT,
    "multi-band melgan": melgan.MULTI_BAND,
}
NARROW = [torch.float16, *([torch.bfloat16] if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else [])]


def network(name: str, dtype: torch.dtype) -> TrunkGenerator:
    torch.manual_seed(0)
    return MODELS[name].build().requires_grad_(False).to("cuda", dtype)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize(
    ("op", "case"),
    [
        pytest.param(OPS[name], case, id=f"{name}: {case.name}")
        for name in ("conv1d", "conv1d_backward", "upsample", "upsample_backward", "residual")
        for case in OPS[name].cases()
        if case.model
    ],
)
def test_twenty_five_runs_give_the_same_bits(op: Any, case: Case, dtype: torch.dtype) -> None:
    call = case.call(dtype=dtype, device="cuda", frames=min(case.frames, 2000))
    with use_backend("cuda"):
        first = results(op(call))
        for _ in range(24):
            assert all(torch.equal(one, other) for one, other in zip(first, results(op(call)), strict=True))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_plans_are_as_exact_as_plain_pytorch_and_the_same_each_time(name: str, dtype: torch.dtype) -> None:
    generator, mel = network(name, dtype), torch.randn(2, 80, 120, device="cuda").to(dtype)
    with torch.inference_mode():
        plan = CudaPlan(generator)
        made = plan(mel)
        assert all(torch.equal(plan(mel), made) for _ in range(24))
        assert torch.equal(plan(mel[1:]), made[1:])
        with use_backend("reference"):
            plain, exact = generator(mel), generator.double()(mel.double())
    allowed = 2 * (plain.double() - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
    assert (made.double() - exact).abs().max() <= allowed


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_gives_a_shorter_mel_the_samples_that_it_has_alone(name: str) -> None:
    generator = network(name, torch.float16)
    graphs = CudaGraphs(generator, CudaPlan, unrecorded=0)  # type: ignore[arg-type]
    for frames in (bucket_of(87), 87, 81, 200, 90, LONGEST + 1):
        mel = torch.randn(2, 80, frames, device="cuda").half()
        with torch.inference_mode():
            assert torch.equal(graphs(mel), CudaPlan(generator)(mel))
    assert len(graphs.graphs) == 2


def test_graphs_are_shared_by_streams() -> None:
    graphs = CudaGraphs(network("hifigan-v2", torch.float16), CudaPlan, unrecorded=0)  # type: ignore[arg-type]
    mels = [torch.randn(1, 80, 90, device="cuda").half() for _ in range(8)]
    alone = [graphs(mel) for mel in mels]
    torch.cuda.synchronize()
    waves = []
    for mel in mels:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            waves.append(graphs(mel))
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(waves, alone, strict=True))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
def test_wavenets_are_as_exact_as_plain_pytorch(name: str, dtype: torch.dtype) -> None:
    as_exact_as_plain_pytorch(published(name).cuda(), dtype, 600)


@pytest.mark.parametrize("name", PUBLISHED)
def test_waves_of_wavenets_are_the_same_each_time_alone_in_pieces_and_in_batches(name: str) -> None:
    config = PUBLISHED[name]
    settings = VocoderConfig(generator=config, mel=mel_config(config))
    vocoder = Vocoder(Checkpoint(settings, published(name).state_dict(), "a test"), device="cuda")
    assert next(way for way, reason in vocoder.explain().items() if reason is None) == "cuda steps in float16"
    mels = torch.rand(200, 80, 6, device="cuda") * 6 - 9  # more than there are multiprocessors, so that some share one
    waves = vocoder(mels, seed=3)
    assert bool(waves.isfinite().all())
    assert all(torch.equal(vocoder(mels[:1], seed=3), waves[:1]) for _ in range(10))
    assert torch.equal(torch.cat(list(vocoder.stream(mels[7].split([1, 3, 2], dim=-1), seed=10))), waves[7])
    ragged = vocoder(mels, lengths=[6 - n % 2 for n in range(200)], seed=3)
    assert torch.equal(ragged[150], waves[150]) and torch.equal(ragged[151], vocoder(mels[151, :, :5], seed=154))

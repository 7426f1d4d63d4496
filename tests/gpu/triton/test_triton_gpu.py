"""What only a GPU can show of the Triton kernels: no bit that differs from run to run, and graphs that are exact."""

from __future__ import annotations

import pytest
import torch

from fastvoc.engine.cuda_graphs import CudaGraphs, Operators, bucket_of
from fastvoc.models import bigvgan, hifigan, melgan
from fastvoc.ops import OPS, backends, use_backend
from fastvoc.ops.availability import interpreted
from fastvoc.ops.case import Case
from fastvoc.ops.contract import results

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        backends()["triton"] is not None or interpreted(), reason=str(backends()["triton"] or "Triton is interpreted")
    ),
]

MODELS = {
    "hifigan-v2": hifigan.V2,
    "melgan": melgan.MelGANConfig(channels=128),
    "bigvgan": bigvgan.BigVGANConfig(mel_bands=80, channels=128, rates=(8, 8), rate_kernel_sizes=(16, 16)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("op", "case"),
    [pytest.param(op, case, id=f"{op.name}: {case.name}") for op in OPS.values() for case in op.cases() if case.model],
)
def test_twenty_five_runs_give_the_same_bits(op: object, case: Case, dtype: torch.dtype) -> None:
    call = case.call(dtype=dtype, device="cuda", frames=min(case.frames, 2000))
    with use_backend("triton"):
        first = results(op(call))  # type: ignore[operator]
        for _ in range(24):
            for one, other in zip(first, results(op(call)), strict=True):  # type: ignore[operator]
                assert torch.equal(one, other)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_graph_gives_a_shorter_mel_the_samples_that_it_has_alone(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MODELS[name].build().requires_grad_(False).to("cuda", dtype)
    graphs = CudaGraphs(model, unrecorded=0)
    assert Operators.refuses(model) is None
    for frames in (bucket_of(87), 87, 81, 200, 90):
        mel = torch.randn(2, 80, frames, device="cuda", dtype=dtype)
        with use_backend("triton"):
            alone = model(mel.transpose(1, 2).contiguous().transpose(1, 2))
        assert torch.equal(graphs(mel), alone)
    assert len(graphs.graphs) == 2


def test_graphs_are_shared_by_streams() -> None:
    model = MODELS["hifigan-v2"].build().requires_grad_(False).cuda()
    graphs = CudaGraphs(model, unrecorded=0)
    mels = [torch.randn(1, 80, 90, device="cuda") for _ in range(8)]
    alone = [graphs(mel) for mel in mels]
    torch.cuda.synchronize()
    waves = []
    for mel in mels:
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            waves.append(graphs(mel))
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(waves, alone, strict=True))

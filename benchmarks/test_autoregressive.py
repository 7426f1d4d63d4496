"""Samples per second of WaveNets and of NSynth's decoder, of one stream and of sixteen side by side.

All are in one process, in turn, with the same weights and the same random numbers, as a user calls them. Beside
WaveNets stands the original's cached generation, re-created in plain PyTorch (`benchmarks.peers.cached_wavenet`), and
beside one stream a step that ONNX Runtime runs, and with ``--thorough`` one that torch.compile has made its own of;
both are lighter than that (`benchmarks.peers.wavenet_steps`). Beside NSynth's decoder stand its steps in PyTorch. These
peers are on one thread, since such small steps have no use for another. All make the same classes, but where a number
lies at a boundary, and two threads the bits of one, before anything is timed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers.cached_wavenet import CachedWaveNet
from benchmarks.peers.wavenet_steps import compiled, exported
from fastvoc import Autoencoder, Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint, VocoderConfig
from fastvoc.models import NSynthConfig, WaveNetConfig
from fastvoc.models.wavenet import MU_LAW, NV_WAVENET
from fastvoc.ops.recurrent import CudaWaveNet, Steps

MELS = {
    "wavenet": CONVENTIONS["wavenet"],
    "nv-wavenet": replace(
        CONVENTIONS["tacotron2"], sample_rate=16000, fft_size=800, window_size=800, hop=200, high=8000
    ),
}
NETWORKS: dict[str, WaveNetConfig] = {"wavenet": replace(MU_LAW, preemphasis=0.0, gain=1.0), "nv-wavenet": NV_WAVENET}

STREAMS = (1, 16)

FRAMES = {1: 4, 16: 1}
"""Of a call of so many streams."""

ROUNDS_OF_NSYNTH = 2
"""At most: one code takes seconds."""

Run = Callable[[], Tensor]


def vocoders(name: str) -> dict[str, Vocoder]:
    """Return a network with seeded weights in each precision that native steps have."""
    config = NETWORKS[name]
    torch.manual_seed(0)
    checkpoint = Checkpoint(VocoderConfig(generator=config, mel=MELS[name]), config.build().state_dict(), "a benchmark")
    made = {kind: Vocoder(checkpoint, dtype=kind) for kind in ("float32", "bfloat16")}
    made["int8"] = made["float32"].quantise([torch.rand(80, 24) * 6 - 8], smallest_snr=10)
    return made


@pytest.fixture
def threads(request: pytest.FixtureRequest, device: str) -> Iterator[list[int]]:
    """Return the numbers of threads that the command line asks for, and set PyTorch's back afterwards."""
    before, most = torch.get_num_threads(), os.cpu_count() or 1
    yield sorted({min(int(count), most) for count in request.config.getoption("--threads").split(",")})
    torch.set_num_threads(before)


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_per_second(
    name: str,
    streams: int,
    device: str,
    threads: list[int],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    config, ours = NETWORKS[name], vocoders(name)
    model: Any = ours["float32"].generator
    mel, short = torch.rand(streams, 80, FRAMES[streams]) * 6 - 8, torch.rand(streams, 80, 1) * 6 - 8
    draws = ours["float32"].draws
    assert draws is not None
    numbers = draws(torch.arange(streams), 0, 1)[:, 0]

    def native(vocoder: Vocoder) -> Run:
        return lambda: vocoder(mel, seed=0)

    def stepped(make: Callable[[Tensor, Tensor], Tensor]) -> Run:
        def run() -> Tensor:
            with torch.inference_mode():
                return config.distribution.decode(make(short, numbers))

        return run

    expected = ours["float32"](short, seed=0)
    for count in threads:
        torch.set_num_threads(count)
        others: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
        if count == 1:
            others["PyTorch"] = CachedWaveNet(model)
        if streams == count == 1 and find_spec("onnxruntime"):
            others["ONNX Runtime"] = exported(model, streams, tmp_path / "step.onnx")
        if streams == count == 1 and request.config.getoption("--thorough"):
            others["torch.compile"] = compiled(model)
        peers = {engine: stepped(make) for engine, make in others.items()}
        for engine, run in peers.items():
            different = float((run() != expected).float().mean())
            assert different <= 0.02, f"{engine}: other classes; no number for a wrong result"
        assert torch.equal(ours["float32"](short, seed=0), expected), "other bits with two threads"
        runs = {("fastvoc", kind): native(vocoder) for kind, vocoder in ours.items()}
        runs |= {(engine, "float32"): run for engine, run in peers.items()}
        ways = {kind: _way(vocoder) for kind, vocoder in ours.items()}
        rows += _rows(name, MELS[name].sample_rate, runs, ways, streams, count, request.config.getoption("--rounds"))


@pytest.mark.parametrize("streams", STREAMS)
def test_codes_become_sound(
    streams: int, device: str, threads: list[int], rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """NSynth's decoder of the published size: native steps beside those in PyTorch, which read past taps in blocks."""
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    config = NSynthConfig(encoder_channels=8, encoder_layers=1)  # the encoder is not asked
    torch.manual_seed(0)
    checkpoint = Checkpoint(AutoencoderConfig(generator=config), config.build().state_dict(), "a benchmark")
    code = torch.randn(streams, 1, config.code_channels)
    ours = {kind: Autoencoder(checkpoint, dtype=kind) for kind in ("float32", "bfloat16")}
    ours["int8"] = ours["float32"].quantise([code[:1]], smallest_snr=10)
    plain = Autoencoder(checkpoint, backend="reference")

    def decoded(autoencoder: Autoencoder) -> Run:
        return lambda: autoencoder.decode(code, seed=0)

    expected = ours["float32"].decode(code, seed=0)
    rounds = min(ROUNDS_OF_NSYNTH, request.config.getoption("--rounds"))
    for count in threads:
        torch.set_num_threads(count)
        assert torch.equal(ours["float32"].decode(code, seed=0), expected), "other bits with two threads"
        runs = {("fastvoc", kind): decoded(autoencoder) for kind, autoencoder in ours.items()}
        if streams == count == 1:
            different = float((plain.decode(code, seed=0) != expected).float().mean())
            assert different <= 0.02, "PyTorch: other classes; no number for a wrong result"
            runs["PyTorch", "float32"] = decoded(plain)
        rows += _rows("nsynth", 16000, runs, {kind: _way(one) for kind, one in ours.items()}, streams, count, rounds)


def _way(face: Any) -> str:
    return next(way for way, reason in face.explain().items() if reason is None and "native steps" in way)


def _rows(
    name: str,
    sample_rate: int,
    runs: dict[tuple[str, str], Run],
    ways: dict[str, str],
    streams: int,
    threads: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """Time the runs of engines in precisions, and write what each has made."""
    made = {key: run().numel() for key, run in runs.items()}  # which packs weights
    times = interleaved([*runs.values()], "cpu", rounds=rounds)
    rates = {key: made[key] / median(taken) for key, taken in zip(runs, times, strict=True)}
    plain = rates.get(("PyTorch", "float32"))
    return [
        {
            "suite": "autoregressive",
            "network": name,
            "engine": engine,
            "precision": precision,
            "batch": streams,
            "threads": threads,
            "samples_per_second": round(rate, 1),
            "times_real_time_each": round(rate / streams / sample_rate, 4),
        }
        | ({"way": ways[precision]} if engine == "fastvoc" else {})
        | ({"ratio_to_pytorch": round(rate / plain, 2)} if engine == "fastvoc" and plain else {})
        for (engine, precision), rate in rates.items()
    ]


@pytest.mark.parametrize("batch", [1, 128, 1056])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_launch_for_all_samples(
    name: str, batch: int, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """The kernel of a GPU alone: one stream, about as many as an H200 has multiprocessors, and eight on each.

    128 are also what its clusters take, eight each, where ``FASTVOC_HOPPER=clusters`` asks for them.
    """
    if device != "cuda":
        pytest.skip("the CPU has native steps")
    count, config = 2048, NETWORKS[name]
    torch.manual_seed(0)
    model = config.build().requires_grad_(False).cuda()
    rates: dict[str, list[float]] = {}
    for precision in (torch.float16, torch.bfloat16):
        packed = CudaWaveNet(model._as_matrices(), precision)
        steps = Steps(
            time=torch.zeros(batch, dtype=torch.int64, device=device),
            rings=torch.zeros(batch, packed.rows, config.channels, device=device),
            history=torch.full((batch, 1), 128.0, device=device),
            condition=torch.rand(batch, count, config.mel_bands, device=device) * 6 - 8,
            gates=None,
            noise=torch.rand(batch, 1, count, device=device),
            temperature=torch.ones(batch, device=device),
            drawn=torch.empty(batch, count, device=device),
        )
        packed.run(steps)
        for _ in range(request.config.getoption("--rounds")):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            packed.run(steps)
            torch.cuda.synchronize()
            rates.setdefault(str(precision).removeprefix("torch."), []).append(
                batch * count / (time.perf_counter() - begin)
            )
    by = " by clusters" if CudaWaveNet.clusters(packed.device, packed.sizes, batch) else ""
    rows += [
        {
            "suite": "autoregressive",
            "network": name,
            "engine": "fastvoc",
            "way": f"cuda steps in {precision}{by}",
            "precision": precision,
            "batch": batch,
            "samples_per_second": round(median(values)),
            "times_real_time_each": round(median(values) / batch / MELS[name].sample_rate, 2),
        }
        for precision, values in rates.items()
    ]

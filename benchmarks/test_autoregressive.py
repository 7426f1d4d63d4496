"""Samples per second of WaveNets: ours, the original's cached generation, a compiled step, and ONNX Runtime.

All are in one process, in turn, with the same weights and the same random numbers. The original's generation is
re-created in plain PyTorch (`benchmarks.cached_wavenet`); the compiled and the exported step are lighter than that
(`benchmarks.wavenet_steps`). All make the same classes, but where a number lies at a boundary, before anything is
timed. On one thread times are of the process, not of the clock, since one sample waits for the other and nothing else
does. Two threads for one stream need two cores at once; their times are of the clock, of short calls, of which the
best say what undisturbed cores do and the median what this machine had free.
`pytest benchmarks/test_autoregressive.py --results benchmarks/results` keeps the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.cached_wavenet import CachedWaveNet
from benchmarks.wavenet_steps import compiled, exported
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


def vocoders(name: str) -> dict[str, Vocoder]:
    """Return a network with seeded weights in each precision that native steps have."""
    config = NETWORKS[name]
    torch.manual_seed(0)
    checkpoint = Checkpoint(VocoderConfig(generator=config, mel=MELS[name]), config.build().state_dict(), "a benchmark")
    made = {kind: Vocoder(checkpoint, dtype=kind) for kind in ("float32", "bfloat16")}
    made["int8"] = made["float32"].quantise([torch.rand(80, 24) * 6 - 8], smallest_snr=10)
    return made


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_samples_per_second(
    name: str,
    batch: int,
    device: str,
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    benchmark: Any,
    tmp_path: Path,
) -> None:
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    config, ours = NETWORKS[name], vocoders(name)
    model: Any = ours["float32"].generator
    others: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "original": CachedWaveNet(model),
        "compiled step": compiled(model),
    }
    if find_spec("onnxruntime"):
        others["ONNX Runtime"] = exported(model, batch, tmp_path / "step.onnx")
    mel = torch.rand(batch, 80, 16) * 6 - 8
    draws = ours["float32"].draws
    assert draws is not None
    numbers = draws(torch.arange(batch), 0, 1)[:, 0]
    with torch.inference_mode():
        wave = ours["float32"](mel[..., :1], seed=0)
        for other, make in others.items():
            different = float((config.distribution.decode(make(mel[..., :1], numbers)) != wave).float().mean())
            assert different <= 0.02, f"{other}: other classes; no number for a wrong result"

    def stepped(make: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], int]:
        def run() -> int:
            with torch.inference_mode():
                return make(mel[..., :1], numbers).numel()

        return run

    def native(vocoder: Vocoder) -> Callable[[], int]:
        return lambda: vocoder(mel, seed=0).numel()

    runs = {key: native(vocoder) for key, vocoder in ours.items()} | {
        key: stepped(make) for key, make in others.items()
    }
    rates: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(request.config.getoption("--rounds")):
        for key, run in runs.items():
            begin = time.process_time()
            count = run()
            rates[key].append(count / (time.process_time() - begin))
    benchmark.pedantic(runs["float32"], rounds=1)
    found = {key: median(values) for key, values in rates.items()}
    rate = MELS[name].sample_rate
    row = {
        "suite": "autoregressive",
        "network": name,
        "batch": batch,
        "ways": {
            key: next(way for way, no in vocoder.explain().items() if no is None) for key, vocoder in ours.items()
        },
        "samples_per_cpu_second": {key: round(value) for key, value in found.items()},
        "times_original": {key: round(found[key] / found["original"], 1) for key in ours},
        "times_real_time": {key: round(found[key] / rate, 2) for key in ours},
    }
    rows.append(row)
    benchmark.extra_info.update(row)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_threads_for_one_stream(
    name: str, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    count, config = 32, NETWORKS[name]  # samples of a call: a few milliseconds, in which nothing else may come between
    condition, noise = torch.rand(1, count, config.mel_bands) * 6 - 8, torch.rand(1, 1, count)
    runs: dict[str, Callable[[], Tensor]] = {}

    def calls(vocoder: Vocoder) -> Callable[[], Tensor]:
        model: Any = vocoder.generator
        packed, made = model._packed(), torch.zeros(1, dtype=torch.int64)
        rings, history = torch.zeros(1, packed.rows, config.channels), torch.full((1, 1), 128.0)
        drawn, temperature = torch.empty(1, count), torch.ones(1)

        def run() -> Tensor:
            history.fill_(128.0)
            packed.run(Steps(made, rings, history, condition, None, noise, temperature, drawn=drawn))
            return drawn

        return run

    before = torch.get_num_threads()
    times: dict[str, list[float]] = {}
    try:
        for kind, vocoder in vocoders(name).items():
            waves = []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                waves.append(calls(vocoder)().clone())
            assert torch.equal(*waves), "other bits with two threads"
            runs[kind] = calls(vocoder)
        for _ in range(40 * request.config.getoption("--rounds")):
            for kind, run in runs.items():
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    begin = time.perf_counter()
                    run()
                    times.setdefault(f"{kind}, {threads} threads", []).append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    rate = MELS[name].sample_rate
    rows.append(
        {
            "suite": "autoregressive",
            "network": f"{name}, one stream",
            "batch": 1,
            "best_samples_per_second": {key: round(count / min(taken)) for key, taken in times.items()},
            "median_samples_per_second": {key: round(count / median(taken)) for key, taken in times.items()},
            "best_times_real_time": {key: round(count / min(taken) / rate, 2) for key, taken in times.items()},
        }
    )


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
            rates.setdefault(str(precision), []).append(batch * count / (time.perf_counter() - begin))
    found = {key: median(values) for key, values in rates.items()}
    by = " by clusters" if CudaWaveNet.clusters(packed.device, packed.sizes, batch) else ""
    rows.append(
        {
            "suite": "autoregressive",
            "network": f"{name}, cuda steps{by}",
            "batch": batch,
            "samples_per_second": {key: round(value) for key, value in found.items()},
            "each_times_real_time": {
                key: round(value / batch / MELS[name].sample_rate, 2) for key, value in found.items()
            },
        }
    )


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_codes_become_sound(
    batch: int, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """NSynth's decoder of the published size: native steps beside those in PyTorch, which read past taps in blocks."""
    if device != "cpu":
        pytest.skip("native steps run on the CPU")
    config = NSynthConfig(encoder_channels=8, encoder_layers=1)  # the encoder is not asked
    torch.manual_seed(0)
    weights = config.build().state_dict()
    code = torch.randn(batch, 1, config.code_channels)
    rates: dict[str, list[float]] = {}
    for _ in range(min(3, request.config.getoption("--rounds"))):
        for dtype in ("float32", "bfloat16"):
            for way, backend in (("native", None), ("PyTorch", "reference")):
                checkpoint = Checkpoint(AutoencoderConfig(generator=config), weights, "a benchmark")
                autoencoder = Autoencoder(checkpoint, dtype=dtype, backend=backend)
                autoencoder.decode(code[:1, :1], seed=0, temperature=0.0) if way == "native" else None  # packs weights
                begin = time.process_time()
                wave = autoencoder.decode(code, seed=0)
                rates.setdefault(f"{way}, {dtype}", []).append(wave.numel() / (time.process_time() - begin))
    rows.append(
        {
            "suite": "autoregressive",
            "network": "nsynth",
            "batch": batch,
            "samples_per_cpu_second": {key: round(median(values)) for key, values in rates.items()},
        }
    )

"""WaveGlow: fastvoc as a user calls it against what else runs the same flows backwards, in one process, in turn.

The published network with seeded weights, on a second of sound. All others take the same noise, and make
what the original makes of it, in its order of operations; none of them streams. What counts is processor time on one
thread, so that others on the machine change little. A wave that is off is not timed::

    pytest benchmarks/test_waveglow.py --threads 1 --thorough --results benchmarks/results
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring.ceilings import peak_flops
from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers import engines
from benchmarks.peers.engines import Run
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import WaveGlow
from fastvoc.models.waveglow import PUBLISHED, WaveGlowConfig


class PlainWaveGlow(nn.Module):
    """The inverse as its original does it (NVIDIA/waveglow 8afb643, glow.py), from the weights of ours.

    Parameters
    ----------
    network : WaveGlow
    """

    def __init__(self, network: WaveGlow) -> None:
        super().__init__()
        self.config = config = network.config
        state = network.state_dict()

        def layer(name: str, dilation: int = 1) -> nn.Conv1d:
            rows, columns, taps = state[f"{name}.weight"].shape
            made = nn.Conv1d(columns, rows, taps, dilation=dilation, padding=dilation * (taps - 1) // 2)
            made.load_state_dict({"weight": state[f"{name}.weight"], "bias": state[f"{name}.bias"]})
            return made

        self.upsample = nn.ConvTranspose1d(80, 80, config.upsample_kernel_size, stride=config.hop)
        self.upsample.load_state_dict({"weight": state["upsample.weight"], "bias": state["upsample.bias"]})
        self.flows = nn.ModuleList()
        for number in range(config.flows):
            flow, name = nn.Module(), f"flows.{number}"
            flow.start, flow.cond, flow.end = (
                layer(f"{name}.network.{part}") for part in ("start", "condition", "end")
            )
            parts = [f"{name}.network.layers.{i}" for i in range(config.layers)]
            flow.within = nn.ModuleList(layer(f"{part}.conv", 2**i) for i, part in enumerate(parts))
            flow.res_skip = nn.ModuleList(layer(f"{part}.out") for part in parts)
            flow.register_buffer("inverse", torch.linalg.inv(state[f"{name}.mix"].double()).float()[..., None])
            self.flows.append(flow)
        self.requires_grad_(False).eval()

    def coupled(self, flow: Any, x: Tensor, mel: Tensor) -> Tensor:
        """Run the network of a coupling."""
        width = self.config.channels
        x, condition = flow.start(x), flow.cond(mel)
        skips = torch.zeros_like(x)
        for i, (within, res_skip) in enumerate(zip(flow.within, flow.res_skip, strict=True)):
            a = within(x) + condition[:, 2 * i * width : 2 * (i + 1) * width]
            made = res_skip(torch.tanh(a[:, :width]) * torch.sigmoid(a[:, width:]))
            if i + 1 < self.config.layers:
                x = x + made[:, :width]
                skips = skips + made[:, width:]
            else:
                skips = skips + made
        return cast(Tensor, flow.end(skips))

    def forward(self, mel: Tensor, z: Tensor) -> Tensor:
        """(B, 80, T), (B, 8, T·32) → (B, T·256)."""
        config = self.config
        rows = self.upsample(mel)[..., : mel.shape[-1] * config.hop]
        rows = rows.reshape(len(mel), mel.shape[1], -1, config.group).transpose(2, 3).flatten(1, 2)
        left = config.group - config.widths()[-1]
        x = z[:, left:]
        for number in reversed(range(config.flows)):
            flow, half = self.flows[number], config.widths()[number] // 2
            shift, log_scale = self.coupled(flow, x[:, :half], rows).chunk(2, dim=1)
            x = torch.cat([x[:, :half], (x[:, half:] - shift) / torch.exp(log_scale)], dim=1)
            x = nn.functional.conv1d(x, flow.inverse)  # type: ignore[arg-type]
            if config.leaves(number):
                left -= config.early_size
                x = torch.cat([z[:, left : left + config.early_size], x], dim=1)
        return x.transpose(1, 2).flatten(1)


Start = Callable[[PlainWaveGlow, Path, Tensor, Tensor, str], Run]


def eager(plain: PlainWaveGlow, folder: Path, mel: Tensor, z: Tensor, precision: str) -> Run:
    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return plain(mel, z)  # type: ignore[no-any-return]

    return run


def compiled(plain: PlainWaveGlow, folder: Path, mel: Tensor, z: Tensor, precision: str) -> Run:
    made = torch.compile(plain, dynamic=False)

    def run() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return made(mel, z)  # type: ignore[no-any-return]

    return run


def onnx_runtime(plain: PlainWaveGlow, folder: Path, mel: Tensor, z: Tensor, precision: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "plain.onnx"), options, ["CPUExecutionProvider"])
    feed = {"mel": mel.numpy(), "z": z.numpy()}
    return lambda: session.run(None, feed)[0]


def openvino(plain: PlainWaveGlow, folder: Path, mel: Tensor, z: Tensor, precision: str) -> Run:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(folder / "plain.onnx")
    model.reshape({"mel": list(mel.shape), "z": list(z.shape)})
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({"mel": mel.numpy(), "z": z.numpy()})[0]


ENGINES: dict[str, tuple[Start, tuple[str, ...], bool]] = {
    "PyTorch": (eager, ("float32",), False),
    "PyTorch, autocast": (eager, ("bfloat16",), False),
    "torch.compile": (compiled, ("float32", "bfloat16"), True),
    "ONNX Runtime": (onnx_runtime, ("float32",), False),
    "OpenVINO": (openvino, ("float32", "bfloat16"), False),
}
"""What starts an engine, in which precisions it runs, and whether that takes long."""


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    config: WaveGlowConfig = PUBLISHED
    state = config.build().state_dict()
    # fresh couplings are the identity; these scale and shift like trained ones
    state |= {name: 0.01 * torch.randn_like(value) for name, value in state.items() if name.endswith("end.weight")}
    return Checkpoint(VocoderConfig(generator=config, mel=CONVENTIONS["waveglow"]), state, "seeded")


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[PlainWaveGlow, Path]:
    folder = tmp_path_factory.mktemp("waveglow")
    made = PlainWaveGlow(cast(WaveGlow, Vocoder(checkpoint).generator))
    if engines.ENGINES["ONNX Runtime"].absent("cpu") is None:
        torch.onnx.export(
            made,
            (torch.zeros(1, 80, 64), torch.zeros(1, 8, 64 * 32)),
            str(folder / "plain.onnx"),
            input_names=["mel", "z"],
            output_names=["wave"],
            dynamo=False,
            opset_version=17,
            dynamic_axes={"mel": {2: "frames"}, "z": {2: "rows"}},
        )
    return made, folder


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
@pytest.mark.parametrize("frames", [86])
def test_waveglow(
    frames: int,
    operands: str,
    checkpoint: Checkpoint,
    plain: tuple[PlainWaveGlow, Path],
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    benchmark: Any,
) -> None:
    option = request.config.getoption
    torch.set_num_threads(1)
    mel = torch.rand(1, 80, frames, generator=torch.Generator().manual_seed(1)) * 8 - 11
    ours = Vocoder(checkpoint, dtype=operands)
    assert ours.draws is not None
    z = 0.6 * ours.draws(torch.tensor([1]), 0, frames).float()
    with torch.inference_mode():
        exact = plain[0](mel, z)  # which tests hold to the original in float64; these are roundings apart

    runs: dict[str, Run] = {"fastvoc": lambda: ours(mel, seed=1)}
    for name, (start, precisions, patient) in ENGINES.items():
        absent = engines.ENGINES[name].absent("cpu")
        if operands in precisions and absent is None and (option("--thorough") or not patient):
            runs[name] = start(*plain, mel, z, operands)
    scale = float(exact.square().mean().sqrt())
    off = {
        name: float((torch.as_tensor(run()).float() - exact).square().mean().sqrt()) / scale
        for name, run in runs.items()
    }
    runs = {name: run for name, run in runs.items() if off[name] <= (1e-4 if operands == "float32" else 0.05)}
    assert "fastvoc" in runs, off

    columns = interleaved(list(runs.values()), "cpu", rounds=option("--rounds"), budget=option("--budget"))
    benchmark.pedantic(runs["fastvoc"], rounds=1)
    taken = {name: median(column) for name, column in zip(runs, columns, strict=True)}
    best = min((name for name in taken if name != "fastvoc"), key=taken.__getitem__)
    work = 2 * cast(WaveGlow, ours.generator).multiply_accumulates * frames * ours.hop
    bound = peak_flops("cpu", 1, operands) / work * frames * ours.hop / ours.sample_rate
    for number, (name, seconds) in enumerate(taken.items()):
        low, high = np.percentile(columns[number], [25, 75])
        row = {"suite": "waveglow", "network": "waveglow-256", "precision": operands, "frames": frames, "threads": 1}
        row |= {"engine": name, "milliseconds": round(seconds * 1e3, 1), "off": off[name]}
        row |= {"milliseconds_quartiles": [round(low * 1e3, 1), round(high * 1e3, 1)], "rounds": len(columns[0])}
        row |= {"times_real_time": round(frames * ours.hop / ours.sample_rate / seconds, 3)}
        row |= {
            "ratio_to_fastvoc": round(seconds / taken["fastvoc"], 3),
            "direct_sums_times_real_time": round(bound, 3),
        }
        if name == "fastvoc":
            row |= {"best_peer": best, "ratio_to_best_peer": round(taken[best] / seconds, 3)}
        rows.append(row)

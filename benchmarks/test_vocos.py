"""Vocos: fastvoc as a user calls it against what else runs the same weights, in one process, in turn.

A second of sound, and chunks of eight frames: of a stream, ours gets the new frames alone, and the others run on these
together with all that reach into them, which is what has to be done without streams. ONNX Runtime and OpenVINO run the
network up to its spectrum, and PyTorch inverts that, as those who export it do. A wave that is off is not timed::

    pytest benchmarks/test_vocos.py --threads 1 --thorough --results benchmarks/results
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers import engines
from benchmarks.peers.engines import Run, Setting
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models.vocos import MEL_24K

ENGINES: dict[str, tuple[Callable[[Setting], Run], tuple[str, ...], bool]] = {
    "PyTorch": (engines.eager, ("float32",), False),
    "PyTorch, autocast": (engines.eager, ("bfloat16",), False),
    "torch.compile": (engines.compiled, ("float32", "bfloat16"), True),
    "ONNX Runtime": (engines.onnx_runtime, ("float32",), False),
    "OpenVINO": (engines.openvino, ("float32", "bfloat16"), False),
}
"""What starts an engine, in which precisions it runs, and whether that takes long."""


class PlainVocos(nn.Module):
    """The network's arithmetic as its original does it (gemelo-ai/vocos c859e3b), from the weights of ours."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        state = generator.state_dict()

        def filled(layer: nn.Module, weight: str, bias: str) -> nn.Module:
            layer.load_state_dict({"weight": state[weight].view_as(layer.weight), "bias": state[bias]})  # type: ignore[arg-type]
            return layer

        bands, (channels, hidden) = MEL_24K.mel_bands, (MEL_24K.channels, MEL_24K.hidden)
        self.embed = filled(nn.Conv1d(bands, channels, 7, padding=3), "stem.weight", "stem.bias")
        self.norm = filled(nn.LayerNorm(channels, 1e-6), "first_norm.weight", "first_norm.bias")
        self.last_norm = filled(nn.LayerNorm(channels, 1e-6), "last_norm.weight", "last_norm.bias")
        self.out = filled(nn.Linear(channels, MEL_24K.fft_size + 2), "head.conv.weight", "head.conv.bias")
        self.blocks = nn.ModuleList()
        for number in range(MEL_24K.blocks):
            name = f"blocks.{number}"
            block = nn.Module()
            dwconv = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
            block.dwconv = filled(dwconv, f"{name}.depthwise", f"{name}.depthwise_bias")
            block.norm = filled(nn.LayerNorm(channels, 1e-6), f"{name}.norm", f"{name}.norm_bias")
            block.pwconv1 = filled(nn.Linear(channels, hidden), f"{name}.expand", f"{name}.expand_bias")
            block.pwconv2 = filled(nn.Linear(hidden, channels), f"{name}.contract", f"{name}.contract_bias")
            block.gamma = nn.Parameter(state[f"{name}.scale"])
            self.blocks.append(block)
        self.requires_grad_(False).eval()

    def spectrum(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, bands, T) → real and imaginary parts, each (B, bins, T)."""
        x = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            y = block.norm(block.dwconv(x).transpose(1, 2))
            y = block.gamma * block.pwconv2(F.gelu(block.pwconv1(y)))
            x = x + y.transpose(1, 2)
        x = self.out(self.last_norm(x.transpose(1, 2))).transpose(1, 2)
        log_magnitude, phase = x.float().chunk(2, dim=1)
        magnitude = log_magnitude.exp().clip(max=1e2)
        return magnitude * phase.cos(), magnitude * phase.sin()

    def forward(self, mel: Tensor) -> Tensor:
        """(B, bands, T) → (B, (T − 1) · hop)."""
        return inverted(torch.complex(*self.spectrum(mel)))


class Spectrum(nn.Module):
    """What is exported."""

    def __init__(self, plain: PlainVocos) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, mel: Tensor) -> Tensor:
        """(B, bands, T) → (B, bins, T, 2)."""
        return torch.stack(self.plain.spectrum(mel), dim=-1)


def some_sound(samples: int) -> Tensor:
    """Return a tone like a voice, whose mel nobody suspects: to say what else it may be is not what is timed."""
    time = torch.arange(samples) / 24000
    swelling = 0.5 + 0.4 * torch.sin(2 * torch.pi * 2.3 * time)
    pitch = 2 * torch.pi * (120 * time + 0.8 * torch.sin(2 * torch.pi * 3 * time))
    tone = sum(torch.sin(k * pitch) / k for k in range(1, 60)) * swelling / 10
    return tone + 0.002 * torch.randn(samples, generator=torch.Generator().manual_seed(1))


def inverted(spectrum: Tensor) -> Tensor:
    window = torch.hann_window(MEL_24K.fft_size)
    return torch.istft(spectrum, MEL_24K.fft_size, MEL_24K.hop, window=window, center=True)


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    config = VocoderConfig(generator=MEL_24K, mel=CONVENTIONS["vocos"])
    state = MEL_24K.build().state_dict()
    # first weights hardly hear the mel; these make values of the size that a spectrum has
    state = {name: 2 * value if "head" in name or "contract" in name else value for name, value in state.items()}
    return Vocoder(Checkpoint(config, state, "seeded"))


@pytest.fixture(scope="module")
def files(vocoder: Vocoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocos")
    plain = PlainVocos(vocoder.generator)
    torch.save(plain, folder / "plain.pt")
    mel = torch.zeros(1, MEL_24K.mel_bands, 64)
    if engines.ENGINES["ONNX Runtime"].absent("cpu") is None:
        torch.onnx.export(
            Spectrum(plain),
            (mel,),
            str(folder / "plain.onnx"),
            input_names=["mel"],
            output_names=["spectrum"],
            dynamic_shapes=({2: torch.export.Dim("frames", min=2, max=1 << 20)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return folder


@pytest.mark.parametrize("operands", ["float32", "bfloat16"])
@pytest.mark.parametrize("frames", [94, 8])
def test_vocos(
    frames: int,
    operands: str,
    vocoder: Vocoder,
    files: Path,
    rows: list[dict[str, Any]],
    request: pytest.FixtureRequest,
    benchmark: Any,
) -> None:
    option = request.config.getoption
    torch.set_num_threads(1)
    mel = vocoder.mel(some_sound((8 * frames + 59) * MEL_24K.hop))[None]
    dtype = getattr(torch, operands)
    ours = Vocoder(Checkpoint(vocoder.config, vocoder.generator.state_dict(), "seeded"), dtype=dtype)
    reach = sum(ours.receptive_field) if frames == 8 else 0
    piece = mel[..., : frames + reach]
    setting = Setting(files=files, mel=piece.numpy(), precision=operands)
    exact = Vocoder(Checkpoint(vocoder.config, vocoder.generator.state_dict(), "seeded"), dtype=torch.float64)(piece)

    runs: dict[str, Run] = {"fastvoc": lambda: ours(piece)}
    for name, (start, precisions, patient) in ENGINES.items():
        absent = engines.ENGINES[name].absent("cpu") if name in engines.ENGINES else None
        if operands in precisions and absent is None and (option("--thorough") or not patient):
            run = start(replace(setting))
            exported = name in ("ONNX Runtime", "OpenVINO")
            runs[name] = (lambda run=run: inverted(torch.view_as_complex(torch.as_tensor(run())))) if exported else run
    scale = float(exact.abs().max())
    off = {name: float((torch.as_tensor(run()).double() - exact).abs().max()) / scale for name, run in runs.items()}
    # phases of some radians in eight bits
    runs = {name: run for name, run in runs.items() if off[name] <= (1e-4 if operands == "float32" else 0.2)}
    assert "fastvoc" in runs, off
    if frames == 8:
        streamer = ours.streamer()
        pieces = list(mel[0, :, :60].split(60, dim=1)) + list(mel[0, :, 60:].split(frames, dim=1))
        pushed = [streamer.push(one) for one in pieces]
        assert sum(map(len, pushed)) > 0
        runs["fastvoc"] = lambda: streamer.push(pieces[1])

    with torch.inference_mode():
        for run in runs.values():
            run()
        columns = interleaved(list(runs.values()), "cpu", rounds=4 * option("--rounds"), budget=option("--budget"))
        benchmark.pedantic(runs["fastvoc"], rounds=1)
    taken = {name: median(column) for name, column in zip(runs, columns, strict=True)}
    best = min((name for name in taken if name != "fastvoc"), key=taken.__getitem__)
    sound = frames * MEL_24K.hop / 24000
    for name, seconds in taken.items():
        low, high = np.percentile(columns[list(runs).index(name)], [25, 75])
        row = {"suite": "vocos", "network": "vocos-mel-24khz", "precision": operands, "frames": frames, "threads": 1}
        row |= {"engine": name, "milliseconds": round(seconds * 1e3, 3), "rounds": len(columns[0])}
        row |= {"milliseconds_quartiles": [round(low * 1e3, 3), round(high * 1e3, 3)], "off": round(off[name], 7)}
        row |= {"times_real_time": round(sound / seconds, 2), "ratio_to_fastvoc": round(seconds / taken["fastvoc"], 3)}
        if name == "fastvoc":
            row |= {"best_peer": best, "ratio_to_best_peer": round(taken[best] / seconds, 3)}
        rows.append(row)

"""Quality beside speed: how near to real speech, and what each precision and backend changes.

`FASTVOC_SPEECH=folder pytest benchmarks/test_quality.py --results benchmarks/results` measures the last four clips of
a folder, which for LJ001-0001 to LJ001-0032 of LJ Speech are those that training never heard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.measuring.networks import NETWORKS, some_mel
from benchmarks.measuring.networks import seeded_vocoder as seeded
from fastvoc import Vocoder, native
from fastvoc.audio import CONVENTIONS, mel_l1, mel_to_wave, multi_resolution_stft, pesq, read_audio, stoi
from fastvoc.ops import backends

CLIPS = 4


@pytest.fixture(scope="module")
def clips() -> list[Path]:
    folder = os.environ.get("FASTVOC_SPEECH")
    if folder is None:
        pytest.skip("FASTVOC_SPEECH names no folder of speech")
    return sorted(Path(folder).glob("*.wav"))[-CLIPS:]


def test_default_vocoder_beside_griffin_lim(
    clips: list[Path], device: str, rows: list[dict[str, Any]], clock: Callable[..., list[float]]
) -> None:
    vocoder = Vocoder.from_pretrained(device=device)
    config = vocoder.config.mel
    makers: dict[str, Callable[[Tensor], Tensor]] = {
        "default vocoder": vocoder,
        "Griffin-Lim, 60 rounds": lambda mel: mel_to_wave(mel, config),
        "Griffin-Lim, librosa, 60 rounds": lambda mel: _librosa(mel, vocoder),
        "Griffin-Lim, 1000 rounds": lambda mel: mel_to_wave(mel, config, iterations=1000),
    }
    for path in clips:
        wave = _read(path, vocoder)
        mel = vocoder.mel(wave)
        for name, make in makers.items():
            made = make(mel)[: len(wave)]
            same = wave[: len(made)]
            convergence, log_magnitude = multi_resolution_stft(made, same)
            rows.append(
                {
                    "suite": "quality",
                    "maker": name,
                    "clip": path.name,
                    "mel_l1": round(float(mel_l1(made, same, config)), 4),
                    "mel_l1_whole_range": round(float(mel_l1(made, same, CONVENTIONS["hifigan-loss"])), 4),
                    "multi_resolution_stft": round(float(convergence + log_magnitude), 4),
                    "pesq": round(pesq(made, same, vocoder.sample_rate), 3),
                    "stoi": round(stoi(made, same, vocoder.sample_rate), 4),
                }
            )
            assert torch.isfinite(made).all()
    mel = mel[:, :430]
    timed = dict(list(makers.items())[:3])
    for name, taken in zip(timed, clock(*(lambda make=make: make(mel) for make in timed.values())), strict=True):
        speed = mel.shape[-1] * vocoder.hop / vocoder.sample_rate / taken
        rows.append({"suite": "quality", "maker": name, "times_real_time": round(speed, 1)})


def test_precisions_on_speech(clips: list[Path], device: str, rows: list[dict[str, Any]]) -> None:
    """PESQ and mel L1 to the recording, as the difference from double precision."""
    exact = Vocoder.from_pretrained(dtype=torch.float64, backend="reference")
    for path in clips:
        wave = _read(path, exact)
        mel = exact.mel(wave)
        best = exact(mel)
        base_pesq, base_l1 = _nearness(best, wave, exact)
        for maker, make in _makers(device, lambda **how: Vocoder.from_pretrained(device=device, **how)):
            made = make(mel).double()
            near_pesq, near_l1 = _nearness(made, wave, exact)
            rows.append(
                _row("default", maker, path.name, _snr(made, best))
                | {"pesq_change": round(near_pesq - base_pesq, 4), "mel_l1_change": round(near_l1 - base_l1, 5)}
            )
            assert near_pesq > base_pesq - 0.5, f"{maker} costs {base_pesq - near_pesq:.2f} of PESQ"


@pytest.mark.parametrize("name", NETWORKS)
def test_precisions_of_networks(name: str, device: str, rows: list[dict[str, Any]]) -> None:
    """There are no published weights here, so seeded ones, with activations at the scale of trained ones."""
    mel = some_mel(86)[0]
    exact = seeded(NETWORKS[name]).generator.double()(mel[None].double())[0, 0]
    for maker, make in _makers(device, lambda **how: seeded(NETWORKS[name], device=device, **how)):
        snr = _snr(make(mel).double(), exact)
        rows.append(_row(name, maker, "seeded", snr))
        assert snr > (100 if "float32" in maker else 20), f"{maker} is {snr:.1f} dB above its error"


def _makers(device: str, build: Callable[..., Vocoder]) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Yield each precision on what runs it by itself, on every instruction set, and on plain PyTorch."""
    isas = list(native.isas()) if device == "cpu" and backends()["cpu"] is None else [None]
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        vocoder = build(dtype=dtype)
        for isa in isas:

            def make(mel: Tensor, vocoder: Vocoder = vocoder, isa: str | None = isa) -> Tensor:
                with native.use_isa(isa) if isa else nullcontext():
                    return vocoder(mel.float())

            yield f"fastvoc, {kind}" + (f", {isa}" if isa else ""), make
        plain = build(dtype=dtype, backend="reference")
        yield f"plain PyTorch, {kind}", lambda mel, plain=plain: plain(mel.float())


def _row(network: str, maker: str, clip: str, snr: float) -> dict[str, Any]:
    return {"suite": "precision", "network": network, "maker": maker, "clip": clip, "snr_db": round(snr, 2)}


def _snr(made: Tensor, exact: Tensor) -> float:
    """Return how far a signal is above its error, in decibels."""
    return float(10 * torch.log10(exact.square().sum() / (made - exact).square().sum().clamp(min=1e-300)))


def _nearness(made: Tensor, wave: Tensor, vocoder: Vocoder) -> tuple[float, float]:
    made, wave = made.float(), wave.float()
    return pesq(made, wave, vocoder.sample_rate), float(mel_l1(made, wave, vocoder.config.mel))


def _read(path: Path, vocoder: Vocoder) -> Tensor:
    wave, _ = read_audio(path, vocoder.sample_rate)
    return wave[: len(wave) // vocoder.hop * vocoder.hop]


def _librosa(mel: Tensor, vocoder: Vocoder) -> Tensor:
    """Invert the mel's filters and find phases with librosa alone."""
    import librosa

    config = vocoder.config.mel
    filters = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.fft_size, n_mels=config.bands, fmin=config.low, fmax=config.highest
    )
    magnitude = librosa.util.nnls(filters, np.exp(mel.double().cpu().numpy()))
    wave = librosa.griffinlim(
        magnitude, n_iter=60, hop_length=config.hop, n_fft=config.fft_size, random_state=0, pad_mode="reflect"
    )
    # the centre of its first frame is its first sample; that of the convention's is half a hop later
    shift = config.hop // 2
    return torch.from_numpy(np.pad(wave, (shift, config.hop - shift)).astype(np.float32))

"""How near the vocoder that comes with the package is to real speech, beside Griffin-Lim on the same mels.

`FASTVOC_SPEECH=folder pytest benchmarks/test_quality.py --results benchmarks/results` measures the last four clips of
a folder, which for LJ001-0001 to LJ001-0032 of LJ Speech are those that training never heard.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, mel_l1, mel_to_wave, multi_resolution_stft, pesq, read_audio, stoi


def test_default_vocoder_beside_griffin_lim(rows: list[dict[str, Any]], clock: Callable[..., list[float]]) -> None:
    folder = os.environ.get("FASTVOC_SPEECH")
    if folder is None:
        pytest.skip("FASTVOC_SPEECH names no folder of speech")
    vocoder = Vocoder.from_pretrained()
    config = vocoder.config.mel
    makers: dict[str, Callable[[Tensor], Tensor]] = {
        "default vocoder": vocoder,
        "Griffin-Lim, 60 rounds": lambda mel: mel_to_wave(mel, config),
        "Griffin-Lim, 1000 rounds": lambda mel: mel_to_wave(mel, config, iterations=1000),
    }
    for path in sorted(Path(folder).glob("*.wav"))[-4:]:
        wave, _ = read_audio(path, vocoder.sample_rate)
        wave = wave[: len(wave) // vocoder.hop * vocoder.hop]
        mel = vocoder.mel(wave)
        for name, make in makers.items():
            made = make(mel)
            convergence, log_magnitude = multi_resolution_stft(made, wave)
            rows.append(
                {
                    "suite": "quality",
                    "maker": name,
                    "clip": path.name,
                    "mel_l1": round(float(mel_l1(made, wave, config)), 4),
                    "mel_l1_whole_range": round(float(mel_l1(made, wave, CONVENTIONS["hifigan-loss"])), 4),
                    "multi_resolution_stft": round(float(convergence + log_magnitude), 4),
                    "pesq": round(pesq(made, wave, vocoder.sample_rate), 3),
                    "stoi": round(stoi(made, wave, vocoder.sample_rate), 4),
                }
            )
    mel = mel[:, :430]
    seconds = clock(lambda: vocoder(mel), lambda: mel_to_wave(mel, config))
    for name, taken in zip(makers, seconds, strict=False):
        speed = mel.shape[-1] * vocoder.hop / vocoder.sample_rate / taken
        rows.append({"suite": "quality", "maker": name, "times_real_time": round(speed, 1)})
    assert torch.isfinite(made).all()

"""The vocoder that comes with the package: small, complete, and better than Griffin-Lim on the same mels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, mel_l1, mel_to_wave, multi_resolution_stft, pesq, read_audio
from fastvoc.train.config import load_config

ASSETS = Path(__file__).resolve().parents[2] / "fastvoc" / "assets"


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder.from_pretrained()


def measures(vocoder: Vocoder, clips: list[Path], make: Callable[[Tensor], Tensor]) -> Tensor:
    """Mel L1, the same to half the sample rate, MR-STFT and PESQ, mean over clips."""
    rows = []
    for path in clips:
        wave, _ = read_audio(path, vocoder.sample_rate)
        wave = wave[: len(wave) // vocoder.hop * vocoder.hop]
        made = make(vocoder.mel(wave))
        whole = mel_l1(made, wave, CONVENTIONS["hifigan-loss"])
        distances = (mel_l1(made, wave, vocoder.config.mel), whole, sum(multi_resolution_stft(made, wave)))
        rows.append([*(float(distance) for distance in distances), pesq(made, wave, vocoder.sample_rate)])
    return torch.tensor(rows).mean(dim=0)


def beside_griffin_lim(vocoder: Vocoder, clips: list[Path]) -> tuple[Tensor, Tensor]:
    config = vocoder.config.mel
    return measures(vocoder, clips, vocoder), measures(vocoder, clips, lambda mel: mel_to_wave(mel, config))


def test_it_is_small_and_in_half_precision(vocoder: Vocoder) -> None:
    assert (ASSETS / "model.safetensors").stat().st_size < 4e6
    assert vocoder.sample_rate == 22050
    assert vocoder.config.mel == CONVENTIONS["hifigan"]


def test_it_is_the_network_of_its_recipe(vocoder: Vocoder) -> None:
    recipe = load_config("griffin-lim-net", {"data.recordings": "nowhere"})
    assert (recipe.generator, recipe.mel) == (vocoder.config.generator, vocoder.config.mel)


def test_it_beats_griffin_lim_on_the_demo_clip(vocoder: Vocoder) -> None:
    ours, theirs = beside_griffin_lim(vocoder, [ASSETS / "demo.wav"])
    # this clip was synthesised at 16 kHz: there is nothing above 8 kHz for Griffin-Lim to miss
    assert (ours[:3] < torch.tensor([0.6, 0.7, 0.95]) * theirs[:3]).all(), (ours, theirs)
    assert ours[3] > theirs[3] + 0.2


def test_it_beats_griffin_lim_on_speech_that_it_never_heard(vocoder: Vocoder, speech: list[Path]) -> None:
    ours, theirs = beside_griffin_lim(vocoder, speech[-4:])
    assert (ours[:3] < torch.tensor([0.65, 0.35, 0.65]) * theirs[:3]).all(), (ours, theirs)
    assert ours[3] > theirs[3] + 0.1
    assert ours[0] < 0.06


def test_speech_in_its_own_convention_raises_no_suspicion(vocoder: Vocoder) -> None:
    wave, _ = read_audio(ASSETS / "demo.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vocoder(vocoder.mel(wave))

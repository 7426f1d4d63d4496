"""Griffin-Lim converges as fast as published, on every frame grid."""

from __future__ import annotations

import math
from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor

from fastvoc.audio import CONVENTIONS, griffin_lim, mel_l1, mel_spectrogram, mel_to_wave

CENTRED = CONVENTIONS["tacotron2"]


def voice(samples: int, sample_rate: int = 22050) -> Tensor:
    """Harmonics of a slow vibrato, silent at both ends so that no padding matters."""
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    phase = 2 * math.pi * (140 * time - 3 / (10 * math.pi) * torch.cos(10 * math.pi * time))
    wave = torch.stack([torch.sin(k * phase) / k for k in range(1, 30)]).sum(dim=0)
    edge = torch.minimum(time, time.flip(0))
    return 0.3 * wave * ((edge - 0.1) / 0.1).clamp(0, 1).mul(math.pi / 2).sin().square()


def magnitudes(wave: Tensor) -> Tensor:
    window = torch.hann_window(1024, dtype=wave.dtype)
    return torch.stft(wave, 1024, 256, window=window, return_complex=True).abs()


def spectral_convergence(wave: Tensor, magnitude: Tensor) -> float:
    return float((magnitudes(wave) - magnitude).norm() / magnitude.norm())


@pytest.fixture(scope="module")
def spectrum() -> Tensor:
    return magnitudes(voice(44100))


@pytest.mark.parametrize(
    ("momentum", "iterations", "bound"), [(0, 32, 0.17), (0, 200, 0.07), (0.99, 32, 0.08), (0.99, 200, 0.03)]
)
def test_convergence(spectrum: Tensor, momentum: float, iterations: int, bound: float):
    wave = griffin_lim(spectrum, CENTRED, iterations=iterations, momentum=momentum)
    assert spectral_convergence(wave, spectrum) <= bound


def test_without_momentum_the_error_never_rises(spectrum: Tensor):
    errors = [
        spectral_convergence(griffin_lim(spectrum[:, :90], CENTRED, iterations=n, momentum=0), spectrum[:, :90])
        for n in range(24)
    ]
    # The wave is cut to the clip before it is measured, so the last frames see a little less than the method does.
    assert all(later <= earlier for earlier, later in pairwise(errors))


@pytest.mark.slow
def test_it_arrives_where_librosa_does(spectrum: Tensor):
    theirs = librosa.griffinlim(spectrum.numpy(), n_iter=32, momentum=0, random_state=np.random.RandomState(0))
    ours = griffin_lim(spectrum, CENTRED, iterations=32, momentum=0)
    # Other first phases, other local minimum: 0.138 to 0.168 over ten seeds of either.
    reference = spectral_convergence(torch.from_numpy(theirs), spectrum)
    assert spectral_convergence(ours, spectrum) == pytest.approx(reference, rel=0.25)


@pytest.mark.parametrize("name", ["hifigan", "vocos", "keras", "style-tts", "coqui", "melgan"])
def test_a_mel_of_any_convention_becomes_its_sound(name: str):
    config = CONVENTIONS[name]
    samples = 40 * config.hop
    wave = voice(samples + 2000, config.sample_rate)[1000 : 1000 + samples].float()
    mel = mel_spectrogram(wave, config)
    random, again = (mel_to_wave(mel, config, iterations=iterations) for iterations in (0, 32))
    assert len(again) == (samples if config.padding != "centre" else (mel.shape[-1] - 1) * config.hop)
    assert again.abs().max() < 2 * wave.abs().max()
    wave = wave[: len(again)]
    # Random phases are 0.1 of the way from silence to the wave off; phases that fit are a third to a tenth of that.
    assert mel_l1(again, wave, config) < 0.1 * mel_l1(torch.zeros_like(wave), wave, config)
    assert mel_l1(again, wave, config) < 0.7 * mel_l1(random, wave, config)


def test_a_batch_is_its_waves_one_by_one():
    mels = torch.stack([mel_spectrogram(gain * voice(8192), CONVENTIONS["hifigan"]) for gain in (0.1, 1)])
    batch = mel_to_wave(mels, CONVENTIONS["hifigan"], iterations=5)
    assert batch.shape == (2, 8192)
    for wave, mel in zip(batch, mels, strict=True):
        alone = mel_to_wave(mel, CONVENTIONS["hifigan"], iterations=5)
        torch.testing.assert_close(alone, wave, rtol=0, atol=1e-9)


def test_the_seed_decides():
    magnitude = magnitudes(voice(8192))
    first, again, other = (griffin_lim(magnitude, CENTRED, iterations=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


def test_silence_stays_silent():
    assert griffin_lim(torch.zeros(513, 7), CENTRED).abs().max() == 0


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((80, 7), {}, r"needs \(513, frames\)"),
        ((513, 0), {}, r"shape \(513, 0\)"),
        ((513, 7), {"momentum": 1}, "momentum 1;"),
        ((513, 7), {"iterations": -1}, "iterations -1"),
    ],
)
def test_wrong_calls_are_refused(shape: tuple[int, ...], options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        griffin_lim(torch.ones(shape), CENTRED, **options)

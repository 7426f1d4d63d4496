"""Distances equal their references, have right gradients, and say what they lack."""

from __future__ import annotations

import math
import sys

import auraloss
import numpy as np
import pytest
import torch
from test_griffin_lim import voice
from test_mel import hashed
from torch import Tensor

from fastvoc.audio import (
    CONVENTIONS,
    FULL_BAND,
    SUB_BAND,
    log_spectral_distance,
    mel_l1,
    multi_resolution_stft,
    pesq,
    stoi,
)

X, Y = (torch.from_numpy(0.5 * hashed(8192, seed)) for seed in (997, 998))


@pytest.mark.parametrize(
    ("shape", "resolutions", "expected"),
    [
        ((8192,), FULL_BAND, (0.66332687084, 0.70744324268)),
        ((4, 2048), SUB_BAND, (0.66284059877, 0.70714986711)),
        ((1, 4, 2048), SUB_BAND, (0.66284059877, 0.70714986711)),
    ],
)
def test_multi_resolution_stft_has_the_fingerprint_of_parallel_wavegan(shape, resolutions, expected):
    values = multi_resolution_stft(X.reshape(shape), Y.reshape(shape), resolutions)
    np.testing.assert_allclose([float(value) for value in values], expected, rtol=1e-10)


def test_multi_resolution_stft_agrees_with_auraloss():
    x, y = X.float().reshape(1, 1, -1), Y.float().reshape(1, 1, -1)
    loss = auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=[r.fft_size for r in FULL_BAND],
        hop_sizes=[r.hop for r in FULL_BAND],
        win_lengths=[r.window_size for r in FULL_BAND],
        eps=1e-7,
        w_sc=1.0,
        w_log_mag=1.0,
    )
    convergence, distance = multi_resolution_stft(x, y)
    assert float(convergence + distance) == pytest.approx(float(loss(x, y)), rel=1e-5)


def test_convergence_is_one_ratio_for_the_whole_batch():
    waves = torch.stack([Y, 100 * Y])
    judged = torch.stack([X, 100 * Y])
    together, _ = multi_resolution_stft(judged, waves)
    alone, _ = multi_resolution_stft(X, Y)
    assert float(together) == pytest.approx(float(alone) / math.sqrt(1 + 100**2), rel=1e-9)


@pytest.mark.parametrize("resolutions", [FULL_BAND, SUB_BAND])
def test_equal_waves_have_no_distance(resolutions):
    assert multi_resolution_stft(Y, Y, resolutions) == (0, 0)
    assert mel_l1(Y, Y, CONVENTIONS["hifigan"]) == 0
    assert log_spectral_distance(Y, Y) == 0


@pytest.mark.parametrize("resolutions", [[(32, 8, 24), (21, 4, 16)], [(171, 60, 60)]])
def test_gradient_is_right(resolutions):
    x, y = X[:400].clone().requires_grad_(), Y[:400]
    assert torch.autograd.gradcheck(lambda wave: multi_resolution_stft(wave, y, resolutions), (x,))


def test_gradient_is_finite_where_the_judged_wave_is_silent():
    x = torch.zeros(4096, requires_grad=True)
    sum(multi_resolution_stft(x, Y[:4096].float())).backward()
    assert torch.isfinite(x.grad).all()


def test_mel_l1_of_a_gain_is_its_logarithm():
    assert float(mel_l1(2 * Y, Y, CONVENTIONS["tacotron2"])) == pytest.approx(math.log(2), rel=1e-9)
    assert float(mel_l1(2 * Y, Y, CONVENTIONS["melgan"])) == pytest.approx(math.log10(2), rel=1e-9)


def test_log_spectral_distance_of_a_gain_is_that_gain():
    assert float(log_spectral_distance(10 * Y, Y)) == pytest.approx(20, rel=1e-9)  # dB


def test_waves_of_two_shapes_are_refused():
    for distance in (multi_resolution_stft, log_spectral_distance, lambda x, y: mel_l1(x, y, CONVENTIONS["hifigan"])):
        with pytest.raises(ValueError, match=r"shapes \(8192,\) and \(8191,\); needs one shape"):
            distance(X, Y[1:])


def noisy(clean: Tensor, decibels: float) -> Tensor:
    noise = torch.from_numpy(hashed(len(clean), 9))
    return clean + noise * clean.norm() / noise.norm() * 10 ** (-decibels / 20)


def test_speech_measures_fall_with_noise_and_take_any_rate_and_length():
    clean = voice(44100)
    for measure, best in ((pesq, 4.64), (stoi, 1.0)):
        scores = [measure(wave, clean, 22050) for wave in (clean[:-500], noisy(clean, 20), noisy(clean, 0))]
        assert scores[0] == pytest.approx(best, abs=0.01)
        assert scores[0] > scores[1] > scores[2]


def test_speech_measures_refuse_what_is_no_speech():
    with pytest.raises(ValueError, match="pesq: the waves cannot be judged"):
        pesq(Y[:1000], Y[:1000], 16000)
    with pytest.raises(ValueError, match=r"shapes \(1, 16000\) and \(16000,\)"):
        stoi(torch.zeros(1, 16000), torch.zeros(16000), 16000)


@pytest.mark.parametrize(("measure", "package"), [(pesq, "pesq"), (stoi, "pystoi")])
def test_an_absent_package_is_named_with_the_command_that_installs_it(monkeypatch, measure, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not installed; pip install 'fastvoc\[eval\]'"):
        measure(Y, Y, 16000)

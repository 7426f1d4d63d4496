"""The filter bank: its published coefficients, what it loses, and the form that a kernel takes it in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_mel import hashed
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio import PqmfConfig, analysis_filters, pqmf_analysis, pqmf_synthesis, synthesis_weight


def decibels(signal: Tensor, error: Tensor) -> float:
    return float(10 * torch.log10(signal.square().sum() / error.square().sum()))


def test_prototype_has_the_published_coefficients():
    offset = np.arange(63) - 31
    band = 1
    phases = 2 * np.cos((2 * band + 1) * np.pi / 8 * offset - np.pi / 4)
    expected = [
        8.94783656e-06, 1.95376606e-05, 2.05617667e-05, -7.8620002666e-06, -8.76668654e-05, -2.2994749509e-04,
        -4.1801886709e-04, -5.9300802699e-04, -6.5115484988e-04, -4.6140821837e-04, 9.3021023187e-05,
    ]  # fmt: skip
    prototype = analysis_filters()[band] / phases
    np.testing.assert_allclose(prototype[:11], expected, rtol=5e-9)
    assert prototype[31] == pytest.approx(0.142, rel=1e-12)


def test_analysis_has_the_fingerprint_of_parallel_wavegan():
    subbands = pqmf_analysis(torch.from_numpy(0.5 * hashed(8192, 998)))
    assert subbands.shape == (4, 2048)
    expected = (-0.000688647534, 0.0418448149, -0.162927663, -0.0129906518, 0.100959393, -0.168468584)
    np.testing.assert_allclose([subbands.mean(), *subbands.flatten()[[0, 1, 7, 100, -1]]], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("cutoff", "expected"), [(0.142, 64.0), (0.15, 19.4)])
def test_cutoff_decides_how_much_is_lost(cutoff: float, expected: float):
    config = PqmfConfig(cutoff=cutoff)
    wave = torch.from_numpy(hashed(65536, 1))
    error = pqmf_synthesis(pqmf_analysis(wave, config), config) - wave
    inside = slice(config.taps, -config.taps)
    assert decibels(wave[inside], error[inside]) == pytest.approx(expected, abs=0.3)


@given(st.integers(0, 2**16), st.integers(32, 400), st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_what_is_split_comes_back(seed: int, length: int, gain: float):
    wave = gain * torch.from_numpy(hashed(4 * length, seed))
    error = (pqmf_synthesis(pqmf_analysis(wave)) - wave)[62:-62]
    # White noise loses 64 dB, so that the weights by which the samples around one make its error have that norm, and by
    # Cauchy and Schwarz no wave of these lengths makes more of it than its own norm around that sample allows.
    around = wave.unfold(0, 125, 1).norm(dim=-1)
    assert bool((error.abs() <= 10 ** (-63.9 / 20) * around).all())


def test_synthesis_is_the_textbook_one():
    """Insert zeros, filter each band with the mirrored analysis, add: twice mirrored is once transposed."""
    subbands = torch.from_numpy(hashed(4 * 50, 2)).reshape(1, 4, 50)
    spread = torch.zeros(1, 4, 200, dtype=torch.float64)
    spread[..., ::4] = 4 * subbands
    filters = torch.from_numpy(analysis_filters()).flip(-1)
    expected = F.conv1d(spread, filters[None], padding=31)[0, 0]
    torch.testing.assert_close(pqmf_synthesis(subbands)[0], expected, rtol=0, atol=1e-14)


def test_synthesis_is_one_transposed_convolution_that_is_cropped():
    config, subbands = PqmfConfig(), torch.from_numpy(hashed(2 * 4 * 17, 3)).reshape(2, 4, 17)
    weight = synthesis_weight(config, torch.float64)
    assert weight.shape == (4, 1, 63)
    assert config.crop == (31, 28)
    left, right = config.crop
    whole = F.conv_transpose1d(subbands, weight, stride=4)[:, 0]
    torch.testing.assert_close(pqmf_synthesis(subbands), whole[:, left : whole.shape[-1] - right], rtol=0, atol=1e-14)


@pytest.mark.parametrize("bands", [2, 3, 5, 8])
def test_any_number_of_bands_keeps_the_length(bands: int):
    config = PqmfConfig(bands=bands)
    wave = torch.from_numpy(hashed(3 * bands * 20, 4)).reshape(3, -1)
    subbands = pqmf_analysis(wave, config)
    assert subbands.shape == (3, bands, 20)
    assert pqmf_synthesis(subbands, config).shape == wave.shape
    torch.testing.assert_close(pqmf_analysis(wave[1], config), subbands[1], rtol=0, atol=1e-14)


def test_each_band_hears_its_own_quarter_of_the_spectrum():
    time = torch.arange(4096, dtype=torch.float64)
    for band in range(4):
        sine = torch.sin(torch.pi * (band + 0.5) / 4 * time)
        energy = pqmf_analysis(sine)[:, 20:-20].square().sum(dim=-1)
        assert energy[band] > 0.999 * energy.sum()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pqmf_analysis(torch.zeros(7)), "7 samples; needs a multiple of 4"),
        (lambda: pqmf_analysis(torch.zeros(1, 1, 8)), r"shape \(1, 1, 8\)"),
        (lambda: pqmf_synthesis(torch.zeros(3, 8)), r"needs \(4, samples\)"),
    ],
)
def test_wrong_shapes_are_refused(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_impossible_banks_are_refused():
    with pytest.raises(ValidationError, match="multiple of 2"):
        PqmfConfig(taps=63)
    with pytest.raises(ValidationError, match="taps 4 are too few for 4 bands; needs 6"):
        PqmfConfig(taps=4)

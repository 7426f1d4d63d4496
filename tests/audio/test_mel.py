"""Mel spectrograms equal, number by number, those of the projects whose networks are fed with them."""

from __future__ import annotations

import math
from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fastvoc.audio import (
    CONVENTIONS,
    MelConfig,
    Normalization,
    linear_magnitude,
    linear_mel,
    mel_spectrogram,
    plausible_range,
    read_audio,
    suspicion,
)
from fastvoc.audio.mels.levels import level_scales
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.config import from_dict, to_dict

HIFIGAN = CONVENTIONS["hifigan"]


def hashed(count: int, seed: int) -> np.ndarray:
    """Uniform numbers in [-1, 1) from an integer hash, the same in every language and version."""
    x = np.arange(count, dtype=np.uint64) * 2654435761 + (seed * 40503 + 12345)
    x &= 0xFFFFFFFF
    for shift, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return x / 2.0**31 - 1


def test_the_hash_of_the_fingerprints_is_the_one_that_they_were_made_with():
    expected = [-0.12374738, -0.95199034, -0.96163375, -0.53273348, -0.33002579]
    np.testing.assert_allclose(hashed(5, 0), expected, atol=5e-9)


def two_sines_in_noise(sample_rate: int) -> Tensor:
    time = np.arange(16384) / sample_rate
    noise = np.random.RandomState(1).standard_normal(16384)
    wave = 0.4 * np.sin(2 * np.pi * 220 * time) + 0.2 * np.sin(2 * np.pi * 3000 * time) + 0.05 * noise
    return torch.from_numpy(wave.astype(np.float32))


# shape, mean, [0, 0], [10, 1], [40, 20], [-1, -1]: computed by each project's own code
GOLDEN = {
    "hifigan": ((80, 64), -3.03600, -0.63843, -2.75169, -3.77792, -3.33227),
    "hifigan-loss": ((80, 64), -3.04217, -0.62098, -2.78933, -3.37713, -3.65433),
    "melgan": ((80, 64), -1.32120, -0.26969, -1.21139, -1.46667, -1.58705),
    "tacotron2": ((80, 65), -3.02944, -0.47841, -2.15565, -3.70185, -3.49839),
    "parallel-wavegan": ((80, 65), -1.31655, -0.09430, -1.17628, -1.76474, -1.40119),
    "espnet": ((80, 65), -1.31655, -0.09430, -1.17628, -1.76474, -1.40119),
    "parallel-wavegan-24k": ((80, 55), -1.02263, 0.22889, -0.75570, -1.18399, -1.16338),
    "bigvgan-24k": ((100, 64), -3.14846, -0.69563, -2.95562, -3.97133, -3.69360),
    "bigvgan-44k": ((128, 32), -2.71896, 0.01954, -1.72796, -2.73561, -3.08053),
    "vocos": ((100, 65), 1.34278, 2.58624, 3.48957, 0.36962, 2.15482),
    "speecht5": ((80, 65), -1.19750, -0.10417, -0.95444, -1.25873, -1.35413),
    "coqui": ((80, 65), 0.29011, 2.08008, 0.82341, 0.07725, -0.17444),
    "bshall": ((128, 102), -2.81369, -0.63065, -0.06009, -2.94019, -3.28616),
    "nemo": ((80, 64), -3.18373, -1.32396, -2.88907, -3.77772, -11.52000),
    "style-tts": ((80, 55), 1.68208, 2.56468, 2.10034, 1.46729, 1.74687),
}

# mean, then flat indices 0, 1, 7, 100, -1 of the mel of 0.5 * hashed(8192, 998) in float64
FINGERPRINTS = {
    "melgan": (-0.655809428, -0.493967702, -0.719555884, -0.60654083, -0.642194552, -0.69337346),
    "hifigan": (-1.52215703, -1.17696189, -1.6976988, -1.36909524, -1.40798141, -1.54520605),
    "hifigan-loss": (-1.51005701, -1.13740267, -1.65683865, -1.39661187, -1.4787076, -1.59655139),
    "parallel-wavegan": (-0.663322628, -0.736788959, -0.568964065, -0.911377462, -0.85618421, -0.58939869),
    "wavenet": (-0.663080519, -0.863893856, -0.870559326, -0.729981397, -0.645599562, -0.586213732),
    "waveglow": (-1.52901791, -1.17027241, -1.3301126, -1.42117126, -1.70030905, -1.54441581),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_mel_equals_that_of_the_project(name: str):
    config, (shape, *expected) = CONVENTIONS[name], GOLDEN[name]
    mel = mel_spectrogram(two_sines_in_noise(config.sample_rate), config)
    assert mel.shape == shape
    values = [mel.mean(), mel[0, 0], mel[10, 1], mel[40, 20], mel[-1, -1]]
    np.testing.assert_allclose(values, expected, atol=1e-5)  # one unit of the last printed digit, for float32


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_mel_has_the_fingerprint_of_the_project(name: str):
    mel = mel_spectrogram(torch.from_numpy(0.5 * hashed(8192, 998)), CONVENTIONS[name])
    flat = mel.flatten()
    np.testing.assert_allclose([mel.mean(), *flat[[0, 1, 7, 100, -1]]], FINGERPRINTS[name], rtol=0, atol=1e-8)


def test_bigvgan_mel_of_44_khz_and_a_hop_of_256_is_the_formula_of_the_project():
    wave = two_sines_in_noise(44100).double()
    bank = librosa.filters.mel(sr=44100, n_fft=1024, n_mels=128, fmin=0, fmax=None, dtype=np.float64)
    padded = np.pad(wave.numpy(), 384, "reflect")
    window = np.hanning(1025)[:-1]
    frames = np.stack([window * padded[start : start + 1024] for start in range(0, len(padded) - 1023, 256)], axis=1)
    magnitudes = np.sqrt(np.abs(np.fft.rfft(frames, axis=0)) ** 2 + 1e-9)
    expected = np.log(np.maximum(bank @ magnitudes, 1e-5))
    found = mel_spectrogram(wave, CONVENTIONS["bigvgan-44k-256x"])
    assert found.shape == (128, 64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_keras_mel_has_the_fingerprint_of_the_tutorial():
    flat = mel_spectrogram(torch.from_numpy(0.5 * hashed(8192, 998)), CONVENTIONS["keras"]).T.flatten()
    expected = (38.02873, 18.20045, 19.99398, 19.53684, 37.34517, 27.45739)
    # TensorFlow computed them in float32: 5e-4 dB is how far its own two ways of doing so are apart.
    np.testing.assert_allclose([flat.mean(), *flat[[0, 1, 7, 100, -1]]], expected, atol=5e-4)


def test_keras_mel_is_clipped_under_the_loudest_value_of_the_whole_batch():
    loud = torch.from_numpy(0.5 * hashed(4096, 1))
    batch = mel_spectrogram(torch.stack([loud, loud * 1e-4]), CONVENTIONS["keras"])
    assert batch.min() == batch.max() - 80
    alone = mel_spectrogram(loud * 1e-4, CONVENTIONS["keras"])
    assert batch[1].mean() > alone.mean() + 1  # dB: the quiet wave's own valleys lie under the floor of its batch


def test_espnet_limits_each_bin_before_the_root():
    silence = torch.zeros(4096, dtype=torch.float64)
    bank = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=80, fmax=7600, dtype=np.float64)
    expected = np.log10(1e-5 * bank.sum(axis=1))
    np.testing.assert_allclose(mel_spectrogram(silence, CONVENTIONS["espnet"])[:, 3], expected, rtol=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_silence_has_the_lowest_and_a_full_scale_sine_nearly_the_highest_plausible_value(name: str):
    config = CONVENTIONS[name]
    low, high = plausible_range(config)
    time = torch.arange(4 * config.fft_size) / config.sample_rate
    sine = mel_spectrogram(torch.sin(2 * math.pi * 1000 * time), config).max()
    one_neper = abs(config.gain * (1 if config.logarithm == "natural" else 0.4343) * config.power)
    scale = config.normalization.scale
    assert isinstance(scale, float)
    assert high - one_neper / scale < sine <= high
    if config.dynamic_range is None and config.root_epsilon == config.root_floor == 0:
        silence = mel_spectrogram(torch.zeros(4 * config.fft_size), config)
        assert float(silence.min()) == pytest.approx(low, abs=1e-4)


@pytest.mark.parametrize("window", ["periodic", "symmetric", "sine"])
@pytest.mark.parametrize("power", [1, 2])
def test_full_scale_is_where_the_window_puts_it(window, power):
    """With one band as wide as the spectrum, so that it takes all of what the window spreads a sine over."""
    config = MelConfig(
        sample_rate=16000, fft_size=1024, hop=256, window_size=1024, bands=1, low=0, high=None, scale="htk",
        area_normalized=False, window=window, power=power,
    )  # fmt: skip
    time = torch.arange(8 * 1024, dtype=torch.float64) / 16000
    peak = float(config.band_edges[1])  # of the triangle
    bin_width = 16000 / 1024
    sine = torch.sin(2 * math.pi * round(peak / bin_width) * bin_width * time)
    found, highest = mel_spectrogram(sine, config)[:, 4].max(), plausible_range(config)[1]
    # at most a band's slope below it, over the few bins of the window that matter; and never above
    assert highest - 0.05 * power < found <= highest + 1e-9
    noise = torch.randn(1 << 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor, offset, _ = level_scales(config)[:, 0, 0].tolist()
    level = float(factor * mel_spectrogram(noise, config).mean() + offset)
    # in nepers; a mean of magnitudes is √(π/4) of their root mean square, a hundredth of which is chance
    expected = math.log(math.pi / 4) / 2 if power == 1 else 0
    assert level == pytest.approx(expected, abs=0.02)


def test_what_is_not_this_convention_is_suspected(speech):
    wave, _ = read_audio(speech[0], 22050)
    mel = mel_spectrogram(wave[:65536], HIFIGAN)
    assert suspicion(mel, HIFIGAN) is None
    assert "decibels" in suspicion(mel * 20 / math.log(10), HIFIGAN)
    assert "without a logarithm" in suspicion(mel.exp() * 0.1, HIFIGAN)
    assert "decimal" in suspicion(mel / math.log(10), HIFIGAN)
    assert "natural logarithms" in suspicion(mel, CONVENTIONS["parallel-wavegan"])
    assert "finite" in suspicion(mel / 0, HIFIGAN)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_batch_is_its_waves_one_by_one(name: str):
    config = replace(CONVENTIONS[name], dynamic_range=None)
    waves = torch.from_numpy(0.5 * hashed(3 * 6007, 5)).reshape(3, -1)[:, :6001]
    batch = mel_spectrogram(waves, config)
    assert batch.shape == (3, config.bands, config.frames(6001))
    for wave, mel in zip(waves, batch, strict=True):
        torch.testing.assert_close(mel_spectrogram(wave, config), mel, rtol=1e-12, atol=1e-12)


@given(st.sampled_from(sorted(CONVENTIONS)), st.integers(2049, 9000))
@settings(max_examples=40, deadline=None)
def test_frames_are_counted_as_computed(name: str, samples: int):
    config = CONVENTIONS[name]
    assert mel_spectrogram(torch.ones(samples), config).shape[-1] == config.frames(samples)


@given(st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_gain_moves_the_log_mel_by_its_logarithm(gain: float):
    config = replace(CONVENTIONS["tacotron2"], floor=1e-12)
    wave = torch.from_numpy(hashed(3000, 3))
    moved = mel_spectrogram(gain * wave, config) - mel_spectrogram(wave, config)
    torch.testing.assert_close(moved, torch.full_like(moved, math.log(gain)), rtol=0, atol=1e-10)


def test_a_shift_by_one_hop_is_a_shift_by_one_frame():
    wave = torch.from_numpy(hashed(5000, 4))
    here, there = (mel_spectrogram(w, HIFIGAN) for w in (wave[256:], wave[:-256]))
    torch.testing.assert_close(here[:, 2:-3], there[:, 3:-2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["hifigan", "vocos", "style-tts", "coqui", "espnet"])
def test_gradient_is_right_and_finite_in_silence(name: str):
    small = {"fft_size": 32, "hop": 8, "window_size": 24, "bands": 4, "low": 0, "high": None}
    config = replace(CONVENTIONS[name], **small, normalization=replace(CONVENTIONS[name].normalization, clip=None))
    wave = torch.from_numpy(hashed(80, 6)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mel_spectrogram(x, config), (wave,))
    silence = torch.zeros(80, requires_grad=True)
    mel_spectrogram(silence, config).sum().backward()
    assert torch.isfinite(silence.grad).all()


def test_autocast_does_not_reach_into_the_mel():
    wave = torch.from_numpy(hashed(3000, 7)).float()
    with torch.autocast("cpu", torch.bfloat16):
        mel = mel_spectrogram(wave, HIFIGAN)
    assert torch.equal(mel, mel_spectrogram(wave, HIFIGAN))


def test_a_first_call_in_inference_mode_does_not_spoil_training():
    config = replace(HIFIGAN, bands=37)  # a convention that no other test has put into the cache
    with torch.inference_mode():
        mel_spectrogram(torch.ones(3000), config)
    wave = torch.ones(3000, requires_grad=True)
    mel_spectrogram(wave, config).sum().backward()
    assert wave.grad is not None


@pytest.mark.filterwarnings("error")
def test_a_compiled_caller_gets_the_same_mel():
    wave = torch.from_numpy(hashed(3000, 10))
    compiled = torch.compile(lambda x: 2 * mel_spectrogram(x, HIFIGAN), backend="eager")
    torch.testing.assert_close(compiled(wave), 2 * mel_spectrogram(wave, HIFIGAN))


@pytest.mark.parametrize("changes", [{}, {"logarithm": "decimal", "gain": 20.0}], ids=["as it is", "in decibels"])
def test_what_lies_below_a_floor_that_was_added_is_nothing(changes: dict):
    config = replace(CONVENTIONS["style-tts"], **changes)
    level = config.gain * (math.log if config.logarithm == "natural" else math.log10)(config.floor)
    floor = torch.full((config.bands, 3), (level + 4) / 4, dtype=torch.float64)
    assert linear_mel(floor, config).abs().max() < 1e-6 * config.floor
    assert (linear_mel(floor - 0.5, config) == 0).all()
    ratio = 4 * 0.5 / config.gain
    expected = config.floor * ((math.exp(ratio) if config.logarithm == "natural" else 10**ratio) - 1)
    above = linear_mel(floor + 0.5, config)
    torch.testing.assert_close(above, torch.full_like(above, expected))


def test_statistics_of_each_band_are_applied_and_undone():
    config = replace(
        CONVENTIONS["parallel-wavegan"],
        normalization=Normalization(mean=tuple(np.linspace(-4, -2, 80)), scale=tuple(np.linspace(0.5, 1, 80))),
    )
    wave = torch.from_numpy(hashed(4000, 8))
    plain = mel_spectrogram(wave, CONVENTIONS["parallel-wavegan"])
    normalized = mel_spectrogram(wave, config)
    torch.testing.assert_close(normalized[79], (plain[79] + 2) / 1)
    torch.testing.assert_close(normalized[0], (plain[0] + 4) / 0.5)
    torch.testing.assert_close(linear_mel(normalized, config), 10**plain)


@pytest.mark.parametrize("name", ["hifigan", "melgan", "vocos", "coqui", "style-tts", "keras"])
def test_linear_magnitude_has_the_mel_that_it_was_made_from(name: str):
    config = CONVENTIONS[name]
    mel = mel_spectrogram(two_sines_in_noise(config.sample_rate).double(), config)
    magnitude = linear_magnitude(mel, config)
    assert magnitude.shape == (config.fft_size // 2 + 1, mel.shape[-1])
    again = torch.from_numpy(mel_filters(config)) @ magnitude**config.power
    wanted = linear_mel(mel, config)
    assert (again / wanted).log().abs().mean() < 0.02  # nepers, where the pseudo-inverse is 0.1 off


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_survives_json(name: str):
    assert from_dict(MelConfig, to_dict(CONVENTIONS[name]), "test") == CONVENTIONS[name]


def test_one_line_says_what_a_convention_is():
    assert HIFIGAN.describe() == "80 bands, 0-8000 Hz, natural log of magnitude, hop 256 at 22050 Hz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_size": 2048}, "window_size 2048 exceeds fft_size 1024"),
        ({"high": 12000}, "do not fit under half of sample_rate 22050"),
        ({"low": 9000}, "bands from 9000.0 to 8000.0 Hz"),
        ({"hop": 1025}, "hop 1025 exceeds"),
        ({"padding": "end"}, "padding_mode is 'zero'"),
        ({"bands": 0}, "greater than 0"),
        ({"floor": 0}, "greater than 0"),
    ],
)
def test_impossible_conventions_are_refused(changes: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        replace(HIFIGAN, **changes)


def test_statistics_need_one_value_for_each_band():
    with pytest.raises(ValidationError, match=r"normalization\.mean has 3 values for 80 bands"):
        replace(HIFIGAN, normalization=Normalization(mean=(1, 2, 3)))
    with pytest.raises(ValidationError, match="zero"):
        Normalization(scale=(1, 0))
    with pytest.raises(ValidationError, match="empty"):
        Normalization(clip=(4, -4))


@pytest.mark.parametrize(
    ("wave", "error", "message"),
    [
        (torch.zeros(1, 1, 4096), ValueError, r"wave has shape \(1, 1, 4096\)"),
        (torch.zeros(0), ValueError, "empty"),
        (torch.zeros(384), ValueError, "384 samples; needs at least 385"),
        (torch.zeros(4096, dtype=torch.float16), TypeError, "torch.float16; convert"),
        (torch.zeros(4096, dtype=torch.int16), TypeError, "torch.int16; convert"),
    ],
)
def test_unusable_waves_are_refused(wave: Tensor, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        mel_spectrogram(wave, HIFIGAN)


def test_the_shortest_wave_that_is_accepted_has_its_frames():
    assert mel_spectrogram(torch.zeros(385), HIFIGAN).shape == (80, 1)
    assert mel_spectrogram(torch.zeros(513), CONVENTIONS["tacotron2"]).shape == (80, 3)
    assert mel_spectrogram(torch.zeros(1), CONVENTIONS["keras"]).shape == (80, 1)
    assert mel_spectrogram(torch.zeros(256), CONVENTIONS["nemo"]).shape == (80, 1)

"""Tensors and arrays, of every kind that users have, wherever they are taken; integers and channels are named."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import (
    CONVENTIONS,
    convert_mel,
    griffin_lim,
    linear_magnitude,
    linear_mel,
    log_spectral_distance,
    mel_l1,
    mel_spectrogram,
    mel_to_wave,
    multi_resolution_stft,
    pesq,
    pqmf_analysis,
    pqmf_synthesis,
    read_audio,
    resample,
    stoi,
    write_audio,
)
from fastvoc.audio.inputs import as_rate, as_tensor
from fastvoc.audio.pitch import pitch

CONFIG = CONVENTIONS["hifigan"]
THEIRS = replace(CONFIG, logarithm="decimal", floor=1e-7)
WAVE = 0.3 * torch.sin(torch.arange(4096, dtype=torch.float64) / 5).float() * torch.linspace(0, 1, 4096)
MEL = mel_spectrogram(WAVE, CONFIG)
OTHER = WAVE.flip(0)

FUNCTIONS: dict[str, tuple[Tensor, Callable[[Any], Any]]] = {
    "mel_spectrogram": (WAVE, lambda x: mel_spectrogram(x, CONFIG)),
    "linear_mel": (MEL, lambda x: linear_mel(x, CONFIG)),
    "linear_magnitude": (MEL, lambda x: linear_magnitude(x, CONFIG, iterations=2)),
    "convert_mel": (MEL, lambda x: convert_mel(x, CONFIG, THEIRS)),
    "convert_mel, same": (MEL, lambda x: convert_mel(x, CONFIG, CONFIG)),
    "griffin_lim": (linear_magnitude(MEL, CONFIG), lambda x: griffin_lim(x, CONFIG, iterations=2)),
    "mel_to_wave": (MEL, lambda x: mel_to_wave(x, CONFIG, iterations=2)),
    "resample": (WAVE, lambda x: resample(x, 22050, 16000)),
    "resample, same": (WAVE, lambda x: resample(x, 22050, 22050)),
    "pqmf_analysis": (WAVE, pqmf_analysis),
    "pqmf_synthesis": (pqmf_analysis(WAVE), pqmf_synthesis),
    "mel_l1": (WAVE, lambda x: mel_l1(x, as_other(x), CONFIG)),
    "log_spectral_distance": (WAVE, lambda x: log_spectral_distance(x, as_other(x))),
    "spectral convergence": (WAVE, lambda x: multi_resolution_stft(x, as_other(x))[0]),
    "log magnitude": (WAVE, lambda x: multi_resolution_stft(x, as_other(x))[1]),
}


@cache
def opened() -> Vocoder:
    return Vocoder.from_pretrained()


def as_other(x: Any) -> Any:
    return OTHER if isinstance(x, Tensor) else OTHER.numpy()


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda x: x,
    "read-only": read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "big-endian and read-only": lambda x: read_only(x.astype(">f4")),
    "backwards in memory": lambda x: x[::-1].copy()[::-1],
    "every second": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_give_arrays_of_the_same_numbers_as_tensors(name: str, array: str) -> None:
    tensor, function = FUNCTIONS[name]
    expected = function(tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = function(ARRAYS[array](tensor.numpy()))
    assert isinstance(expected, Tensor)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.float32, tuple(expected.shape))
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("array", ARRAYS)
def test_vocoder_takes_every_array(array: str) -> None:
    vocoder = opened()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave, mel = vocoder(ARRAYS[array](MEL.numpy())), vocoder.mel(ARRAYS[array](WAVE.numpy()))
    np.testing.assert_array_equal(wave, vocoder(MEL).numpy())
    np.testing.assert_array_equal(mel, vocoder.mel(WAVE).numpy())


@pytest.mark.parametrize("array", ARRAYS)
def test_every_array_is_written(tmp_path: Path, array: str) -> None:
    write_audio(tmp_path / "a.wav", ARRAYS[array](WAVE.numpy()), 22050, "float")
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], WAVE)


def test_measures_of_packages_and_pitch_take_arrays() -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    # a hum that begins and ends, which both take for speech
    time = torch.arange(16000) / 16000
    voice = sum(torch.sin(2 * math.pi * 120 * k * time) / k for k in range(1, 20)) * (torch.sin(9 * time) > 0)
    voice = 0.1 * voice + 0.001 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    for measure in (pesq, stoi):
        assert measure(voice.numpy(), voice.numpy(), 16000.0) == measure(voice, voice, 16000)
    assert np.array_equal(pitch(voice.numpy(), 16000).voiced, pitch(voice, 16000).voiced)


def test_two_waves_of_two_types_are_compared_in_the_finer_one() -> None:
    for measure in (
        lambda x, y: mel_l1(x, y, CONFIG),
        log_spectral_distance,
        lambda x, y: multi_resolution_stft(x, y)[0],
    ):
        mixed, exact = measure(WAVE, OTHER.double().numpy()), measure(WAVE.double(), OTHER.double())
        assert mixed.dtype == torch.float64
        assert torch.equal(mixed, exact)


TAKERS: dict[str, Callable[[Any], Any]] = {
    "mel_spectrogram": lambda x: mel_spectrogram(x, CONFIG),
    "Vocoder.mel": lambda x: opened().mel(x),
    "Vocoder.mel, resampled": lambda x: opened().mel(x, 16000),
    "resample": lambda x: resample(x, 16000, 22050),
    "write_audio": lambda x: write_audio("never.wav", x, 22050),
    "mel_l1": lambda x: mel_l1(x, x, CONFIG),
    "multi_resolution_stft": lambda x: multi_resolution_stft(x, x),
    "pqmf_analysis": pqmf_analysis,
}

INTEGERS = {
    np.int8: "convert it to float32 and divide by 128",
    np.uint8: "convert it to float32, subtract 128 and divide by 128",
    np.int16: "convert it to float32 and divide by 32768",
    np.uint16: "convert it to float32, subtract 32768 and divide by 32768",
    np.int32: "convert it to float32 and divide by 2147483648",
    np.int64: "divide by its full scale, 32768 for samples of 16 bits",
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda kind: kind.__name__)
def test_integer_samples_are_refused_with_the_number_that_divides_them(dtype: Any, taker: str) -> None:
    for samples in (np.zeros(4096, dtype), torch.from_numpy(np.zeros(4096, dtype))):
        with pytest.raises(TypeError, match=INTEGERS[dtype]):
            TAKERS[taker](samples)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_beside_one_another_are_refused_with_the_shape(channels: int, taker: str) -> None:
    with pytest.raises(
        ValueError, match=rf"has shape \(4096, {channels}\), .*\(samples, channels\); average the channels"
    ):
        TAKERS[taker](np.zeros((4096, channels), np.float32))


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("wave", [[0.0] * 4096, None, "speech.wav", np.array(["a"] * 4096), np.zeros(9, np.longdouble)])
def test_what_is_no_sound_is_refused_in_a_sentence(wave: Any, taker: str) -> None:
    with pytest.raises(TypeError, match=r"must be (a torch\.Tensor or a numpy\.ndarray|of numbers that PyTorch has)"):
        TAKERS[taker](wave)


@pytest.mark.parametrize(
    ("scale", "advice"),
    [(100, "8 bits, divide them by 128"), (16312, "16 bits.* 32768"), (4e6, "24 bits"), (2e9, "32 bits")],
)
def test_samples_far_beyond_one_are_warned_of_once(scale: float, advice: str) -> None:
    vocoder = opened()
    loud = torch.sin(torch.arange(4096) / 9) * scale
    with pytest.warns(UserWarning, match=rf"^Vocoder\.mel: wave reaches .* lie in \[-1, 1\]; .*{advice}") as caught:
        vocoder.mel(loud.numpy(), 16000)
    assert len(caught) == 1


def test_samples_that_overshoot_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened().mel(torch.sin(torch.arange(4096) / 9) * 4)


@pytest.mark.parametrize("rate", [22050, 22050.0, np.float32(22050), np.int64(22050), torch.tensor(22050)])
def test_whole_rates_of_any_type_are_rates(rate: Any, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", WAVE, rate)
    assert read_audio(tmp_path / "a.wav", rate)[1] == 22050
    assert resample(WAVE, rate, 22050) is WAVE
    assert as_rate(rate, "here") == 22050


@pytest.mark.parametrize("rate", [22050.5, "22050", None, math.nan, math.inf])
def test_other_rates_are_refused_by_name(rate: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"resample: from_rate is .*; it must be a whole number of Hz"):
        resample(WAVE, rate, 22050)
    with pytest.raises(ValueError, match=r"a\.wav: sample_rate is .*; it must be a whole number of Hz"):
        write_audio(tmp_path / "a.wav", WAVE, rate)


def test_tensor_of_a_read_only_array_does_not_write_to_it() -> None:
    array = read_only(np.zeros(3, np.float32))
    as_tensor(array, "array").add_(1)
    assert not array.any()

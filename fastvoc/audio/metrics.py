"""Distances between two waves: as losses, with gradients, and as measures of perceived quality."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.files.sound import resample
from fastvoc.audio.inputs import Signal, as_given, as_rate, as_wave
from fastvoc.audio.mels.spectrogram import MelConfig, mel_spectrogram


class Resolution(NamedTuple):
    """One short-time Fourier transform, in samples."""

    fft_size: int
    hop: int
    window_size: int


FULL_BAND = (Resolution(1024, 120, 600), Resolution(2048, 240, 1200), Resolution(512, 50, 240))
"""Resolutions of Parallel WaveGAN (Yamamoto 2020, arXiv 1910.11480, table 1)."""

SUB_BAND = (Resolution(384, 30, 150), Resolution(683, 60, 300), Resolution(171, 10, 60))
"""Resolutions of multi-band MelGAN (Yang 2020, arXiv 2005.05106) for the bands of a four-band filter bank."""


def mel_l1(x: Signal, y: Signal, config: MelConfig) -> Signal:
    """Mean absolute difference of the mel spectrograms of two waves.

    Parameters
    ----------
    x, y : Tensor or ndarray, shape (T,) or (B, T), float32 or float64
        Waves of one shape.
    config : MelConfig
        The convention.

    Returns
    -------
    Tensor or ndarray, as given, scalar
        In the units of the convention's log-mel.
    """
    judged, wanted = (mel_spectrogram(wave, config) for wave in _pair("mel_l1", x, y))
    return as_given((judged - wanted).abs().mean(), x)


def multi_resolution_stft(
    x: Signal, y: Signal, resolutions: Sequence[tuple[int, int, int]] = FULL_BAND
) -> tuple[Signal, Signal]:
    """Spectral convergence and log-magnitude distance, averaged over resolutions.

    Parameters
    ----------
    x : Tensor or ndarray, shape (T,), (B, T) or (B, C, T), float32 or float64
        The wave that is judged.
    y : Tensor or ndarray, same shape
        The wave as it should be.
    resolutions : sequence of (fft_size, hop, window_size)
        In samples.

    Returns
    -------
    spectral_convergence : Tensor or ndarray, as given, scalar
        ``|Y - X| / |Y|`` in the Frobenius norm over the whole batch.
    log_magnitude : Tensor or ndarray, as given, scalar
        Mean of ``|ln Y - ln X|``.

    Notes
    -----
    Arik 2018, arXiv 1808.06719, eqs. 3 and 4. As in ParallelWaveGAN the squared magnitudes are at least 1e-7,
    and the convergence is one ratio for the batch, not the mean of the ratios of its waves.
    """
    pair = _pair("multi_resolution_stft", x, y)
    convergence, distance = [], []
    with torch.autocast(pair[0].device.type, enabled=False):
        for fft_size, hop, window_size in resolutions:
            window = torch.hann_window(window_size, dtype=pair[0].dtype, device=pair[0].device)
            spectra = []
            for wave in pair:
                waves = wave.reshape(-1, wave.shape[-1])
                spectrum = torch.stft(waves, fft_size, hop, window_size, window, return_complex=True)
                squared = spectrum.real.square() + spectrum.imag.square()
                spectra.append(squared.clamp(min=1e-7).sqrt())
            judged, wanted = spectra
            convergence.append((wanted - judged).norm() / wanted.norm())
            distance.append((wanted.log() - judged.log()).abs().mean())
    return as_given(torch.stack(convergence).mean(), x), as_given(torch.stack(distance).mean(), x)


def log_spectral_distance(x: Signal, y: Signal, *, fft_size: int = 2048, hop: int = 512) -> Signal:
    """Root mean square difference of two log power spectra, averaged over frames.

    Parameters
    ----------
    x, y : Tensor or ndarray, shape (T,) or (B, T), float32 or float64
        Waves of one shape.
    fft_size : int
        Length of transform and Hann window, in samples.
    hop : int
        Distance of two frames, in samples.

    Returns
    -------
    Tensor or ndarray, as given, scalar
        In dB.
    """
    pair = _pair("log_spectral_distance", x, y)
    window = torch.hann_window(fft_size, dtype=pair[0].dtype, device=pair[0].device)
    decibels = []
    for wave in pair:
        spectrum = torch.stft(wave.reshape(-1, wave.shape[-1]), fft_size, hop, window=window, return_complex=True)
        decibels.append(10 * spectrum.abs().square().clamp(min=1e-10).log10())
    return as_given((decibels[0] - decibels[1]).square().mean(dim=-2).sqrt().mean(), x)


def pesq(x: Signal, y: Signal, sample_rate: int) -> float:
    """Perceptual evaluation of speech quality, wide band (ITU-T P.862.2).

    Parameters
    ----------
    x : Tensor or ndarray, shape (T,), floating point
        The wave that is judged.
    y : Tensor or ndarray, shape (T',), floating point
        The recording; of two lengths the shorter one counts.
    sample_rate : int
        Of both, in Hz; they are judged at 16 kHz.

    Returns
    -------
    float
        From 1 (bad) to 4.64 (the same).

    Raises
    ------
    ModuleNotFoundError
        If ``fastvoc[eval]`` is not installed.
    ValueError
        If the waves hold no speech.
    """
    package = _package("pesq")
    judged, recorded = _speech("pesq", x, y, sample_rate, to_rate=16000)
    try:
        return float(package.pesq(16000, recorded, judged, "wb"))
    except package.PesqError as error:
        raise ValueError(f"pesq: the waves cannot be judged: {error}; needs speech of at least 0.25 s") from None


def stoi(x: Signal, y: Signal, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal 2011).

    Parameters
    ----------
    x : Tensor or ndarray, shape (T,), floating point
        The wave that is judged.
    y : Tensor or ndarray, shape (T',), floating point
        The recording; of two lengths the shorter one counts.
    sample_rate : int
        Of both, in Hz.

    Returns
    -------
    float
        From 0 to 1 (the same).

    Raises
    ------
    ModuleNotFoundError
        If ``fastvoc[eval]`` is not installed.
    """
    package = _package("pystoi")
    judged, recorded = _speech("stoi", x, y, sample_rate, to_rate=sample_rate)
    return float(package.stoi(recorded, judged, as_rate(sample_rate, "stoi")))


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"the package {name} is not installed; pip install 'fastvoc[eval]'") from None


def _speech(
    where: str, given: Signal, other: Signal, sample_rate: int, *, to_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = as_wave(given, where, "x"), as_wave(other, where, "y")
    if x.ndim != 1 or y.ndim != 1:
        raise ValueError(f"{where}: waves have shapes {tuple(x.shape)} and {tuple(y.shape)}; needs (samples,)")
    length = min(len(x), len(y))
    judged, recorded = (resample(wave[:length].double(), sample_rate, to_rate) for wave in (x, y))
    return judged.detach().cpu().numpy(), recorded.detach().cpu().numpy()


def _pair(where: str, given: Signal, other: Signal) -> tuple[Tensor, Tensor]:
    """Return two waves of one shape, in the more precise of their types."""
    x, y = as_wave(given, where, "x"), as_wave(other, where, "y")
    if x.shape != y.shape or x.ndim == 0 or x.numel() == 0:
        raise ValueError(
            f"{where}: waves have shapes {tuple(x.shape)} and {tuple(y.shape)}; needs one shape, not empty"
        )
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)

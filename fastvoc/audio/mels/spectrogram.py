"""Mel spectrograms in every convention of `fastvoc.audio.mels.convention`.

Frames of a short-time Fourier transform, their magnitudes under a bank of triangles (Slaney 1998, *Auditory
Toolbox*; HTK book § 5.6), a floor, a logarithm, and what a project does afterwards.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio.inputs import Signal, as_given, as_wave, check_precision
from fastvoc.audio.mels.convention import FeatureConfig, MelConfig, Normalization
from fastvoc.audio.mels.inputs import as_mel
from fastvoc.audio.mels.presets import CONVENTIONS
from fastvoc.audio.mels.scale import mel_of_hertz
from fastvoc.constants import kept

__all__ = [
    "CONVENTIONS",
    "MelConfig",
    "Normalization",
    "frame_window",
    "linear_magnitude",
    "linear_mel",
    "mel_filters",
    "mel_spectrogram",
]


def mel_spectrogram(wave: Signal, config: MelConfig) -> Signal:
    """Compute the mel spectrogram of a wave.

    Parameters
    ----------
    wave : Tensor or ndarray, shape (T,) or (B, T), float32 or float64
        Samples in [-1, 1] at `config.sample_rate` Hz.
    config : MelConfig
        The convention.

    Returns
    -------
    Tensor or ndarray, as given, shape (bands, frames) or (B, bands, frames)
        Log-mel of the same dtype on the same device, with `config.frames(T)` frames; differentiable.

    Raises
    ------
    TypeError
        If the wave is neither a tensor nor an array, or not float32 or float64.
    ValueError
        If the wave has another shape, no samples, or fewer than the padding needs.
    """
    samples = as_wave(wave, "mel_spectrogram")
    _check(samples, config)
    constants: _Constants = _constants(config, samples.device, samples.dtype)
    # Half precision cannot hold the smallest magnitudes: an autocast region must not reach in here.
    with torch.autocast(samples.device.type, enabled=False):
        spectrum = torch.stft(
            _pad(samples.reshape(-1, samples.shape[-1]), config),
            config.fft_size,
            hop_length=config.hop,
            window=constants.window,
            center=False,
            return_complex=True,
        )
        mel = _normalize(_log(constants.filters @ _magnitude(spectrum, config), config), config, constants)
    if config.last_frame is not None:
        mel = torch.cat([mel[..., :-1], torch.full_like(mel[..., -1:], config.last_frame)], dim=-1)
    return as_given(mel if samples.ndim == 2 else mel[0], wave)


def loud_mel(config: MelConfig | FeatureConfig) -> Tensor:
    """Return a mel, (1, bands, T), of noise as loud as it can be, of silence, and of a voice's pulses.

    Features are normal noise of standard deviation 3: latents, and whatever else was standardised, have 1.
    """
    if isinstance(config, FeatureConfig):
        random = torch.Generator().manual_seed(0)
        return 3 * torch.randn(1, config.bands, 64, generator=random, dtype=torch.float32, device="cpu")
    second = config.sample_rate
    noise = torch.rand(second, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    pulses = noise.new_zeros(second)
    pulses[:: max(1, second // 100)] = 1
    unknown = config.normalization.unknown
    plain = replace(config, normalization=Normalization()) if unknown else config
    mel = mel_spectrogram(torch.cat([2 * noise - 1, noise.new_zeros(second // 2), pulses]), plain)[None]
    return (mel - mel.mean(-1, keepdim=True)) / mel.std(-1, keepdim=True).clamp(min=1e-3) if unknown else mel


def linear_mel(mel: Signal, config: MelConfig) -> Signal:
    """Undo the normalization and the logarithm, but not the floor.

    Parameters
    ----------
    mel : Tensor or ndarray, shape (bands, frames) or (B, bands, frames), floating point
        Log-mel in the convention.
    config : MelConfig
        The convention.

    Returns
    -------
    Tensor or ndarray, as given, same shape
        Magnitudes (or powers, with `config.power` 2) under the filter bank.
    """
    values = as_mel(mel, config, "linear_mel")
    constants: _Constants = _constants(config, values.device, values.dtype)
    exponent = (values * constants.scale + constants.mean) / config.gain
    linear = exponent.exp() if config.logarithm == "natural" else 10**exponent
    return as_given((linear - config.floor).clamp(min=0) if config.floor_mode == "add" else linear, mel)


def linear_magnitude(mel: Signal, config: MelConfig, *, iterations: int = 30) -> Signal:
    """Estimate the magnitudes of the Fourier transform that a mel was made of.

    Parameters
    ----------
    mel : Tensor or ndarray, shape (bands, frames) or (B, bands, frames), floating point
        Log-mel in the convention.
    config : MelConfig
        The convention.
    iterations : int
        Multiplicative updates; after 30 the log-mel of the estimate is within a hundredth of a neper.

    Returns
    -------
    Tensor or ndarray, as given, shape (fft_size // 2 + 1, frames) or (B, fft_size // 2 + 1, frames)
        Magnitudes, not negative, and zero where no band reaches.

    Notes
    -----
    Lee and Seung 2000, *Algorithms for non-negative matrix factorization*, eq. 5, from a flat start: the ratio is
    what a log-mel measures. After Griffin-Lim (LJ001-0029 to 0032, 60 iterations) the log-mel is 0.088 off, against
    0.108 with the pseudo-inverse, whose negative magnitudes have to be cut.
    """
    values = as_mel(mel, config, "linear_magnitude")
    constants: _Constants = _constants(config, values.device, values.dtype)
    filters = constants.filters
    tiny = torch.finfo(values.dtype).tiny
    linear = linear_mel(values, config)
    reach = filters.sum(dim=0)[:, None]
    estimate = (reach > 0).to(values.dtype)
    for _ in range(iterations):
        estimate = estimate * (filters.T @ (linear / (filters @ estimate).clamp(min=tiny))) / reach.clamp(min=tiny)
    return as_given(estimate ** (1 / config.power), mel)


@lru_cache(maxsize=32)
def mel_filters(config: MelConfig) -> NDArray[np.float64]:
    """Return the filter bank of a convention, shape (bands, fft_size // 2 + 1)."""
    edges = config.band_edges
    bins = np.linspace(0, config.sample_rate / 2, config.fft_size // 2 + 1)
    peaks = 2 / (edges[2:] - edges[:-2])[:, None] if config.area_normalized else 1.0
    if config.straight_in == "mel":  # as tensorflow.signal.linear_to_mel_weight_matrix; librosa's are straight over Hz
        edges, bins = mel_of_hertz(edges, config.scale), mel_of_hertz(bins, config.scale)
    edges = edges[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.asarray(peaks * np.maximum(0, np.minimum(rising, falling)), dtype=np.float64)


def frame_window(config: MelConfig, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the window of one frame, shape (fft_size,)."""
    return _constants(config, device, dtype).window


class _Constants(NamedTuple):
    window: Tensor  # (fft_size,)
    filters: Tensor  # (bands, fft_size // 2 + 1)
    mean: Tensor  # (1, 1) or (bands, 1)
    scale: Tensor  # (1, 1) or (bands, 1)


def _constants(config: MelConfig, device: torch.device, dtype: torch.dtype) -> _Constants:
    if config.normalization.unknown:
        raise ValueError(
            "mel: the mean and scale of each band that standardise this convention are not known; open the checkpoint "
            "again with them beside it, such as stats.h5 of ParallelWaveGAN"
        )
    if not torch.compiler.is_compiling():
        return _made_constants(config, device, dtype)
    # A compiler would look through the cache and trace how they are made. It is told not to here, as telling it where
    # the function is defined loads the compiler, which takes longer than all of this package.
    constants: _Constants = torch.compiler.disable(_made_constants)(config, device, dtype)  # type: ignore[no-untyped-call]
    return constants


@kept(64)
def _made_constants(config: MelConfig, device: torch.device, dtype: torch.dtype) -> _Constants:
    mean, scale = (np.reshape(values, (-1, 1)) for values in (config.normalization.mean, config.normalization.scale))
    side = (config.fft_size - config.window_size) // 2
    size = config.window_size
    if config.window == "sine":
        window = (math.pi / size * (torch.arange(size, dtype=torch.float64, device="cpu") + 0.5)).sin()
    else:
        window = torch.hann_window(size, periodic=config.window == "periodic", dtype=torch.float64, device="cpu")
    window = F.pad(window, (side, config.fft_size - size - side))
    arrays = (mel_filters(config), mean, scale)
    return _Constants(*(x.to(device, dtype) for x in (window, *map(torch.from_numpy, arrays))))


def _check(wave: Tensor, config: MelConfig) -> None:
    where = "mel_spectrogram"
    check_precision(wave, where)
    if wave.ndim not in (1, 2):
        raise ValueError(f"{where}: wave has shape {tuple(wave.shape)}; needs (samples,) or (batch, samples)")
    if wave.numel() == 0:
        raise ValueError(f"{where}: wave of shape {tuple(wave.shape)} is empty; needs at least one frame of sound")
    shortest = config.hop if config.padding == "same" else 1
    if config.padding_mode == "reflect":
        shortest = max(shortest, _side(config) + 1)
    if wave.shape[-1] < shortest:
        raise ValueError(
            f"{where}: wave has {wave.shape[-1]} samples; needs at least {shortest} "
            f"(padding {config.padding!r}, {config.padding_mode}, fft_size {config.fft_size}, hop {config.hop})"
        )


def _side(config: MelConfig) -> int:
    return config.fft_size // 2 if config.padding == "centre" else (config.fft_size - config.hop) // 2


def _pad(wave: Tensor, config: MelConfig) -> Tensor:
    if config.padding == "end":
        last = (config.frames(wave.shape[-1]) - 1) * config.hop
        return F.pad(wave, (0, last + config.fft_size - wave.shape[-1]))
    side = _side(config)
    return F.pad(wave, (side, side), "constant" if config.padding_mode == "zero" else "reflect")


def _magnitude(spectrum: Tensor, config: MelConfig) -> Tensor:
    if config.power == 1 and config.root_epsilon == config.root_floor == 0:
        return spectrum.abs()  # its gradient at zero is zero, that of a root is not a number
    squared = spectrum.real.square() + spectrum.imag.square()
    squared = (squared + config.root_epsilon).clamp(min=config.root_floor)
    return squared if config.power == 2 else squared.sqrt()


def _log(mel: Tensor, config: MelConfig) -> Tensor:
    mel = mel.clamp(min=config.floor) if config.floor_mode == "clamp" else mel + config.floor
    mel = config.gain * (mel.log() if config.logarithm == "natural" else mel.log10())
    return mel if config.dynamic_range is None else torch.maximum(mel, mel.amax() - config.dynamic_range)


def _normalize(mel: Tensor, config: MelConfig, constants: _Constants) -> Tensor:
    if config.normalization == Normalization():
        return mel
    mel = (mel - constants.mean) / constants.scale
    return mel if config.normalization.clip is None else mel.clamp(*config.normalization.clip)

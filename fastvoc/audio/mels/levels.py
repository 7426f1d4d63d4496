"""What the values of a mel say about loudness: those of silence and of full scale, and levels of the bands."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fastvoc.audio.mels.convention import MelConfig
from fastvoc.audio.mels.spectrogram import mel_spectrogram
from fastvoc.constants import kept

STANDARDISED = (-12.0, 8.0)
"""Values that a mel lies between that is standardised per band: digital silence is far under its mean."""


@lru_cache(maxsize=64)
def plausible_range(config: MelConfig) -> tuple[float, float]:
    """Return the values that a mel of a convention lies between: of silence, and of a full-scale sine.

    With a `dynamic_range`, the lower value is that of a batch whose loudest sound is one step of 16 bits.
    """
    if config.normalization.unknown:
        return STANDARDISED
    edges = config.band_edges
    peak = 2 / np.min(edges[2:] - edges[:-2]) if config.area_normalized else 1.0
    # A Hann window spreads a sine over three bins of its own length, in the ratio 1 : 2 : 1; a window that is a sine,
    # over all of them, in parts of 1 / (1 - 4 k²), which add up to 2, and their squares to π² / 8.
    height, squares = (1 / math.pi, math.pi**2 / 8) if config.window == "sine" else (1 / 4, 1.5)
    spread = (2.0 if config.power == 1 else squares) * config.fft_size / config.window_size
    sine = peak * spread * (height * config.window_size) ** config.power
    low, high = _logarithm(config, config.floor), _logarithm(config, sine)
    if config.dynamic_range is not None:
        low = _logarithm(config, sine * 2.0 ** (-15 * config.power)) - config.dynamic_range
    if config.last_frame is not None:
        low = min(low, config.last_frame)
    mean, scale = np.asarray(config.normalization.mean), np.asarray(config.normalization.scale)
    ends = np.stack([(low - mean) / scale, (high - mean) / scale])
    if config.normalization.clip is not None:
        ends = np.clip(ends, *config.normalization.clip)
    return float(ends.min()), float(ends.max())


@lru_cache(maxsize=256)
def silence(config: MelConfig) -> tuple[float, float]:
    """Return the values of digital silence, in the lowest and in the highest band."""
    mel = mel_spectrogram(
        torch.zeros(2 * config.fft_size, dtype=torch.float32, device="cpu"), replace(config, last_frame=None)
    )
    lowest, highest = torch.stack(torch.aminmax(mel)).tolist()
    return lowest, highest


@kept(256)
def level_scales(config: MelConfig) -> Tensor:
    """Return factor and offset from a mel to nepers against white noise of power 1, and each band's share of its power.

    Returns
    -------
    Tensor, shape (3, bands, 1), float32
    """
    edges = config.band_edges
    width = (edges[2:] - edges[:-2]) / 2
    bins = np.broadcast_to(1.0 if config.area_normalized else width, width.shape) * config.fft_size / config.sample_rate
    mean_square = 1 / 2 if config.window == "sine" else 3 / 8
    noise = np.log(bins) / config.power + 0.5 * math.log(mean_square * config.window_size)
    neper = (1 if config.logarithm == "natural" else math.log(10)) / (config.gain * config.power)
    factor = neper * np.asarray(config.normalization.scale)
    offset = neper * np.asarray(config.normalization.mean) - noise
    share = width / (config.sample_rate / 2)
    rows = np.stack(np.broadcast_arrays(factor, offset, share)).astype(np.float32)
    return torch.from_numpy(rows)[..., None]


def _logarithm(config: MelConfig, value: float) -> float:
    return config.gain * (math.log(value) if config.logarithm == "natural" else math.log10(value))

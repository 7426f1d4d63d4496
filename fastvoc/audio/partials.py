"""The pitch of a note by its partials: which of given pitches a wave has, whatever a classifier says of it.

Camacho and Harris 2008, J. Acoust. Soc. Am. 124, p. 1638, § II (SWIPE′), with one window for all pitches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvoc.audio.inputs import check_precision

_PERIODS = 16
"""Periods of the lowest pitch in a window: twice SWIPE's, since a note is steadier than a voice."""


def hertz_of_pitch(pitch: float) -> float:
    """Return the frequency of a MIDI number in equal temperament, in Hz; 69 is 440."""
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def strongest_pitch(wave: Tensor, sample_rate: int, pitches: Sequence[int]) -> Tensor:
    """Name the pitch whose partials are strongest in a note.

    The root of the mean magnitude over time is compared with a cosine that has a maximum at the fundamental and at each
    of its prime multiples, and a minimum half-way between: so notes an octave below or above score less, although they
    share partials.

    Parameters
    ----------
    wave : Tensor, shape (..., T), float32 or float64
        Notes; those that are shorter than a window of 16 periods of the lowest pitch are followed by silence.
    sample_rate : int
        In Hz.
    pitches : sequence of int
        MIDI numbers to choose from, whose frequencies lie below half the sample rate. To notice errors of an octave
        they hold an octave more than the notes may have.

    Returns
    -------
    Tensor, shape (...), int64
        MIDI numbers. Of silence, the first of `pitches`.

    Raises
    ------
    TypeError, ValueError
        If the wave is of another precision or empty, there are no pitches, or one is too high.
    """
    check_precision(wave, "strongest_pitch")
    if wave.ndim < 1 or not wave.numel():
        raise ValueError(
            f"strongest_pitch: wave has shape {tuple(wave.shape)}; it must be (..., T), one sample at least"
        )
    if not pitches:
        raise ValueError("strongest_pitch: there are no pitches; it needs one at least")
    if hertz_of_pitch(max(pitches)) >= sample_rate / 2:
        raise ValueError(
            f"strongest_pitch: pitch {max(pitches)} is of {hertz_of_pitch(max(pitches)):.0f} Hz; it must lie below "
            f"half the sample rate, {sample_rate / 2:g} Hz"
        )
    size = 1 << math.ceil(math.log2(_PERIODS * sample_rate / hertz_of_pitch(min(pitches))))
    flat = wave.reshape(-1, wave.shape[-1])
    flat = torch.nn.functional.pad(flat, (0, max(0, size - flat.shape[1])))
    window = torch.hann_window(size, dtype=wave.dtype, device=wave.device)
    magnitude = torch.stft(flat, size, size // 2, window=window, center=False, return_complex=True).abs().mean(dim=-1)
    scores = magnitude.sqrt() @ _kernels(pitches, sample_rate, size).to(magnitude)
    return torch.tensor(list(pitches), device=wave.device)[scores.argmax(dim=-1)].reshape(wave.shape[:-1])


def _kernels(pitches: Sequence[int], sample_rate: int, size: int) -> Tensor:
    """Return what the root of a spectrum is multiplied by for each pitch: (size // 2 + 1, pitches), float64."""
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64, device="cpu") * sample_rate / size
    fundamental = torch.tensor([hertz_of_pitch(pitch) for pitch in pitches], dtype=torch.float64, device="cpu")
    order = frequency[:, None] / fundamental
    kernel = torch.zeros_like(order)
    for partial in _primes(int(order.max() + 0.25)):
        away = (order - partial).abs()
        lobe = (2 * math.pi * order).cos()
        kernel = torch.where(away < 0.25, lobe, kernel)
        # what lies half-way between two prime multiples counts half for each
        kernel = kernel + torch.where((away >= 0.25) & (away < 0.75), lobe / 2, 0)
    kernel[1:] *= frequency[1:, None].rsqrt()
    kernel[0] = 0
    length: Tensor = kernel.clamp(min=0).square().sum(dim=0).sqrt()
    return kernel / length


def _primes(highest: int) -> list[int]:
    """Return 1 and the primes up to a number."""
    return [1, *(n for n in range(2, highest + 1) if all(n % d for d in range(2, math.isqrt(n) + 1)))]

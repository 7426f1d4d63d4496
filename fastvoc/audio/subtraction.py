"""Spectral subtraction: what a vocoder makes of nothing is taken from the magnitudes of its waves.

Original: NVIDIA/waveglow 8afb643, denoiser.py, whose transform is that of Tacotron 2: periodic Hann windows of 1024
samples, 256 apart, with the wave reflected around its ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

SIZE, HOP = 1024, 256


def first_magnitude(wave: Tensor) -> Tensor:
    """Return the magnitudes around the first sample of a wave: (samples,) → (513,), in float32 at least."""
    return _spectrum(wave)[:, 0].abs()


def subtract_magnitude(wave: Tensor, magnitude: Tensor, strength: float) -> Tensor:
    """Take magnitudes from all frames of waves, whose phases stay; none becomes negative.

    Parameters
    ----------
    wave : Tensor, shape (samples,) or (B, samples)
    magnitude : Tensor, shape (513,)
    strength : float
        What multiplies it.

    Returns
    -------
    Tensor, as `wave`

    Raises
    ------
    ValueError
        If a wave has too few samples to be reflected.
    """
    if wave.shape[-1] <= SIZE // 2:
        raise ValueError(
            f"subtract_magnitude: wave has {wave.shape[-1]} samples; needs more than {SIZE // 2}, which are reflected"
        )
    if not wave.numel():
        return wave
    spectrum = _spectrum(wave)
    size = spectrum.abs()
    left = (size - strength * magnitude.to(size)[:, None]).clamp(min=0)
    spectrum = spectrum * torch.where(size > 0, left / size, 0)
    made = torch.istft(spectrum, SIZE, HOP, window=_window(spectrum.real), length=wave.shape[-1])
    return made.to(wave.dtype)


def _spectrum(wave: Tensor) -> Tensor:
    wide = wave.to(torch.promote_types(wave.dtype, torch.float32))
    return torch.stft(wide, SIZE, HOP, window=_window(wide), return_complex=True)


def _window(like: Tensor) -> Tensor:
    return torch.hann_window(SIZE, dtype=like.dtype, device=like.device)

"""Spectra of notes as pictures of two layers: the logarithm of the magnitude, and how fast the phase turns.

Engel, Agrawal, Chen, Gulrajani, Donahue and Roberts 2019, arXiv:1902.08710, § 2 (GANSynth); reference: magenta/magenta
526d3eb, magenta/models/gansynth/lib/specgrams_helper.py and spectral_ops.py. The phase of a steady tone turns by the
same angle from frame to frame, so that its instantaneous frequency is constant, where its phase is not.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.audio.inputs import check_precision
from fastvoc.config import config
from fastvoc.constants import kept

FLOOR = 1e-6
"""Added to magnitudes, and to powers in mel bands, before the logarithm."""

_MEL, _CORNER = 1127.0, 700.0
"""HTK's mel scale: 1127 ln(1 + f / 700 Hz)."""

_SCALE = ((0.0661371661726, 0.113718730221), (0.8, 0.0))
"""Factor and summand of each layer, by which nearly all notes of NSynth come into [-1, 1]."""


@config
class NoteSpectrum:
    """A transform of notes of one length, whose frames are a power of two.

    All padding is in front, so that the last samples lie under fewer frames than the others, and come back quieter.
    """

    sample_rate: int = Field(16000, gt=0)
    """In Hz."""
    samples: int = Field(64000, gt=0)
    """Of a note: 4 s."""
    frames: int = Field(128, gt=0)
    """Of a picture."""
    fft_size: int = Field(2048, gt=1)
    """Of the transform, in samples, with a Hann window of the same length; its half is the number of bins."""
    hop: int = Field(512, gt=0)
    """Samples per frame: a quarter of the transform, or less."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fft_size % 2 or self.fft_size % self.hop or self.fft_size < 4 * self.hop:
            raise ValueError(
                f"fft_size {self.fft_size} must be even and a multiple of hop {self.hop}, four times at least"
            )
        if self.front < 0:
            raise ValueError(
                f"{self.frames} frames are too few for {self.samples} samples; they cover {-self.front} fewer"
            )
        return self

    @property
    def bins(self) -> int:
        """Of a picture: those of the transform without the one at 0 Hz."""
        return self.fft_size // 2

    @property
    def front(self) -> int:
        """Zeros that are laid before a note, so that exactly `frames` fit."""
        return (self.frames - 1) * self.hop + self.fft_size - self.samples


HIGH = NoteSpectrum()
"""128 frames of 1024 bins: more resolution in frequency, which low notes need; the published model's."""

LOW = NoteSpectrum(frames=256, fft_size=1024, hop=256)
"""256 frames of 512 bins."""

Second = Literal["frequency", "phase"]


def note_spectrum(
    wave: Tensor, config: NoteSpectrum = HIGH, *, mel: bool = False, second: Second = "frequency"
) -> Tensor:
    """Compute the picture of a note.

    Parameters
    ----------
    wave : Tensor, shape (..., samples), float32 or float64
    config : NoteSpectrum
    mel : bool
        In mel bands, as many as bins: of powers, and of phases that turn without limit.
    second : {"frequency", "phase"}
        The second layer: the turn of the phase since the frame before, in half turns, of which the first frame holds
        the phase itself; or the phase of every frame, in half turns.

    Returns
    -------
    Tensor, shape (..., frames, bins, 2)
        Natural logarithm of magnitude (of power in mel bands), and the second layer.

    Raises
    ------
    TypeError, ValueError
        If the wave is of another precision or length.
    """
    check_precision(wave, "note_spectrum")
    if wave.ndim < 1 or wave.shape[-1] != config.samples or not wave.numel():
        raise ValueError(
            f"note_spectrum: wave has shape {tuple(wave.shape)}; it must be (..., {config.samples}), one at least"
        )
    padded = F.pad(wave, (config.front, 0)).unfold(-1, config.fft_size, config.hop)
    spectrum = torch.fft.rfft(padded * _window(config, wave))[..., 1:]
    magnitude, turned = spectrum.abs(), _turns(spectrum.angle())
    level = (magnitude + FLOOR).log()
    if mel:
        filters = _filters(config, wave.dtype).to(wave.device)
        level = ((2 * level).exp() @ filters + FLOOR).log()
        # each band's frequency is that of its phase, a sum of phases that turn
        turned = _turns(turned.cumsum(dim=-2) @ filters)
    if second == "phase":
        turned = _wrapped(turned.cumsum(dim=-2))
    return torch.stack([level, turned / math.pi], dim=-1)


def note_wave(
    picture: Tensor, config: NoteSpectrum = HIGH, *, mel: bool = False, second: Second = "frequency"
) -> Tensor:
    """Make the wave of a picture: the inverse of `note_spectrum`, nearly exact but in mel bands.

    Parameters
    ----------
    picture : Tensor, shape (..., frames, bins, 2), float32 or float64
    config, mel, second
        As in `note_spectrum`.

    Returns
    -------
    Tensor, shape (..., samples)

    Raises
    ------
    TypeError, ValueError
        If the picture is of another precision or shape.
    """
    check_precision(picture, "note_wave", "picture")
    shape = (config.frames, config.bins, 2)
    if picture.shape[-3:] != shape or not picture.numel():
        raise ValueError(
            f"note_wave: picture has shape {tuple(picture.shape)}; it must be (..., {str(shape)[1:-1]}), one at least"
        )
    level, angle = picture[..., 0], picture[..., 1] * math.pi
    if second == "frequency":
        angle = angle.cumsum(dim=-2)
    if mel:
        back = _inverse(config, picture.dtype).to(picture.device)
        level = 0.5 * (level.exp() @ back + FLOOR).log()
        angle = angle @ back
    spectrum = F.pad(torch.polar(level.exp(), angle), (1, 0))
    rows = torch.fft.irfft(spectrum, n=config.fft_size) * _window(config, picture)
    length = config.front + config.samples
    flat = rows.reshape(-1, config.frames, config.fft_size).mT
    summed = F.fold(flat, (1, length), (1, config.fft_size), stride=(1, config.hop))
    # where as many windows overlap as can, their squares sum to this
    full = 3 * config.fft_size / (8 * config.hop)
    return summed.reshape(*rows.shape[:-2], length)[..., config.front :] / full


def mel_band(hertz: float, config: NoteSpectrum = HIGH) -> int:
    """Return the band that a tone is loudest in; low bands are not quite in mel, since neighbours move their edges."""
    bin_of_transform = round(hertz * config.fft_size / config.sample_rate)
    return int(_filters(config)[min(max(bin_of_transform, 2), config.bins) - 1].argmax())


def normalise(picture: Tensor) -> Tensor:
    """Scale both layers of a picture, (..., 2), into [-1, 1], to which they are limited, as GANSynth has them."""
    factor, summand = (picture.new_tensor(values) for values in zip(*_SCALE, strict=True))
    return (picture * factor + summand).clamp(-1, 1)


def denormalise(picture: Tensor) -> Tensor:
    """Undo `normalise`, but for what was limited."""
    factor, summand = (picture.new_tensor(values) for values in zip(*_SCALE, strict=True))
    return (picture - summand) / factor


def _window(config: NoteSpectrum, like: Tensor) -> Tensor:
    return torch.hann_window(config.fft_size, dtype=like.dtype, device=like.device)


def _wrapped(angle: Tensor) -> Tensor:
    """Return angles in (-π, π]."""
    return math.pi - (math.pi - angle).remainder(2 * math.pi)


def _turns(angle: Tensor) -> Tensor:
    """Return the first angle, and from each to the next the turn of at most half a circle: (..., T, bins)."""
    turned = angle.diff(dim=-2)
    least = (turned + math.pi).remainder(2 * math.pi) - math.pi
    least = torch.where((least == -math.pi) & (turned > 0), math.pi, least)  # half a circle keeps its direction
    return torch.cat([angle[..., :1, :], least], dim=-2)


@kept(16)
def _filters(config: NoteSpectrum, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return triangles, (bins, bands), none of which is narrower than one and a half bins; bin 0 is left out."""
    return torch.from_numpy(_triangles(config)).to(dtype)


@kept(16)
def _inverse(config: NoteSpectrum, dtype: torch.dtype) -> Tensor:
    """Return what leads from bands back to bins, (bands, bins): the transpose, by the sums of the product of both."""
    filters = _triangles(config)
    total = (filters @ filters.T).sum(axis=0)
    scale = np.divide(1.0, total, out=np.ones_like(total), where=total > 1e-8)
    return torch.from_numpy(filters.T * scale).to(dtype)


def _triangles(config: NoteSpectrum) -> NDArray[Any]:
    bins, highest = config.bins, config.sample_rate / 2
    frequencies = np.linspace(0, highest, bins)[:, None]
    edges = np.linspace(0, _MEL * np.log1p(highest / _CORNER), bins + 2)
    narrowest = 1.5 * highest / bins
    for band in range(bins):
        low, centre, high = _CORNER * np.expm1(edges[band : band + 3] / _MEL)
        if high - low < narrowest:
            # as in the original, the edges that are moved are the centres of other bands too
            spread = _MEL * np.arcsinh(0.5 * narrowest / (centre + _CORNER))
            edges[band], edges[band + 2] = edges[band + 1] - spread, edges[band + 1] + spread
    hertz = _CORNER * np.expm1(edges / _MEL)
    low, centre, high = hertz[:-2], hertz[1:-1], hertz[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters[0] = 0
    return filters

"""BigVGAN v2's discriminator of constant-Q transforms in sub-bands (MS-SB-CQTD).   Gu et al. 2023, arXiv:2311.14957.

A constant-Q transform has equally many bins in every octave, so that a harmonic sound looks alike at every pitch.
Original: NVIDIA/BigVGAN 7d2b454, discriminators.py, whose transform is nnAudio's CQT2010v2 (Cheuk et al. 2020,
arXiv:1912.12055, §3) of the wave at twice its rate.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from typing_extensions import Self

from fastvoc.audio import MelConfig
from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps

LOWEST = 32.70
"""Frequency of the first bin, in Hz: the note C1."""


@config
class ConstantQDiscriminatorConfig:
    """Networks over the real and imaginary parts of several constant-Q transforms."""

    kind: Literal["constant-q"] = "constant-q"
    sample_rate: Annotated[int, Field(ge=8000, le=192000)] = 24000
    """Of the wave, in Hz."""
    hops: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=16)] = (512, 256, 256)
    """Of each sub-discriminator's transform, in samples of twice the rate."""
    bins: Annotated[tuple[Annotated[int, Field(ge=4, le=96)], ...], Field(min_length=1, max_length=16)] = (24, 36, 48)
    """Per octave, of each transform."""
    octaves: Annotated[int, Field(ge=1, le=9)] = 9
    """From 32.7 Hz: the ninth ends at 16.7 kHz."""
    channels: PositiveInt = 128
    """Of every convolution over the whole band."""
    dilations: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)] = (1, 2, 4)
    """Along time, of the convolutions that are strided along frequency."""
    slope: float = 0.1
    """Of every leaky ReLU."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.hops) != len(self.bins):
            raise ValueError(f"{len(self.hops)} hops need as many bins per octave, not {self.bins}")
        for hop in self.hops:
            if hop % 2 ** (self.octaves - 1):
                raise ValueError(f"hop {hop} cannot be halved {self.octaves - 1} times, once for each octave but one")
        top = LOWEST * 2**self.octaves
        if top > self.sample_rate:
            raise ValueError(f"{self.octaves} octaves end at {top:.0f} Hz, beyond the sample rate {self.sample_rate}")
        return self

    def check_mel(self, mel: MelConfig) -> None:
        """Raise one sentence if the waves that a run makes have another sample rate."""
        if mel.sample_rate != self.sample_rate:
            raise ValueError(
                f"the constant-q discriminator is of {self.sample_rate} Hz and mel of {mel.sample_rate} Hz; set its "
                f"sample_rate to {mel.sample_rate}"
            )

    def build(self) -> ConstantQDiscriminator:
        """Build it with fresh weights."""
        return ConstantQDiscriminator(self)


class ConstantQDiscriminator(nn.Module):
    """Transform by transform: octave by octave a convolution, then 2-D ones, strided along frequency → score."""

    def __init__(self, config: ConstantQDiscriminatorConfig) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            _Transformed(config, hop, bins) for hop, bins in zip(config.hops, config.bins, strict=True)
        )

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per transform, the feature maps and the score (B, 1, frames, bins / 8)."""
        with torch.autocast(wave.device.type, enabled=False):
            # transforms need single precision
            wave = doubled_rate(wave.float() if wave.dtype in (torch.float16, torch.bfloat16) else wave)
            spectra = [network.transform(wave) for network in self.networks]  # type: ignore[operator]
        return [network(spectrum) for network, spectrum in zip(self.networks, spectra, strict=True)]


class _Transformed(nn.Module):
    """Convolutions over one constant-Q transform."""

    def __init__(self, config: ConstantQDiscriminatorConfig, hop: int, bins: int) -> None:
        super().__init__()
        width = config.channels
        self.slope = config.slope
        self.transform = ConstantQ(2 * config.sample_rate, hop, bins, config.octaves)
        # bins of an octave are alike to one another, but octaves are computed at different rates
        self.octaves = nn.ModuleList(nn.Conv2d(2, 2, (3, 9), padding=(1, 4)) for _ in range(config.octaves))
        convs: list[nn.Module] = [nn.Conv2d(2, width, (3, 9), padding=(1, 4))]  # without weight norm in the original
        convs += [
            weight_norm(nn.Conv2d(width, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1)))
            for dilation in config.dilations
        ]
        convs += [weight_norm(nn.Conv2d(width, out, (3, 3), padding=(1, 1))) for out in (width, 1)]
        self.convs = nn.ModuleList(convs)

    def forward(self, spectrum: Tensor) -> Maps:
        """(B, 2, frames, bins) → the feature maps and the score."""
        octaves = spectrum.chunk(len(self.octaves), dim=-1)
        x = torch.cat([conv(octave) for conv, octave in zip(self.octaves, octaves, strict=True)], dim=-1)
        maps = []
        for conv in self.convs:
            x = conv(x)
            x = x if conv is self.convs[-1] else F.leaky_relu(x, self.slope)
            maps.append(x)
        return maps


class ConstantQ(nn.Module):
    """A constant-Q transform: the highest octave's filters, for each lower one on half of the rate.

    Parameters
    ----------
    sample_rate : int
        In Hz.
    hop : int
        In samples; a multiple of a power of two for each octave but one.
    bins, octaves : int
        Bins per octave, from `LOWEST` on.
    """

    filters: Tensor
    lowpass: Tensor
    scale: Tensor

    def __init__(self, sample_rate: int, hop: int, bins: int, octaves: int) -> None:
        super().__init__()
        self.hop = hop
        self.count = octaves
        # buffers are float32 in the original's files; no state of ours holds them
        for name, values in (
            ("filters", _filters(sample_rate, bins, octaves)),
            ("lowpass", _half_band()[None, None]),
            ("scale", np.sqrt(_lengths(sample_rate, LOWEST, bins, bins * octaves))),
        ):
            tensor = torch.from_numpy(np.ascontiguousarray(values)).to(torch.float32)
            self.register_buffer(name, tensor.to(torch.get_default_dtype()), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, 1, T) → real and imaginary parts, (B, 2, T // hop + 1, bins · octaves), low frequencies first."""
        filters, lowpass = self.filters.to(wave.dtype), self.lowpass.to(wave.dtype)
        side = filters.shape[-1] // 2
        octaves: list[Tensor] = []
        for octave in range(self.count):
            if octave:
                wave = F.conv1d(wave, lowpass, stride=2, padding=(lowpass.shape[-1] - 1) // 2)
            parts = F.conv1d(F.pad(wave, (side, side)), filters, stride=self.hop >> octave)
            octaves.insert(0, torch.stack(parts.chunk(2, dim=1), dim=1))  # (B, 2, bins, frames)
        spectrum = torch.cat(octaves, dim=2) * self.scale.to(wave.dtype)[:, None]
        return spectrum.transpose(2, 3)


def doubled_rate(wave: Tensor) -> Tensor:
    """Resample (B, 1, T) to twice the rate, (B, 1, 2 T), as torchaudio does: a sinc of 6 zeros under a Hann window."""
    place = 0.99 * (np.arange(-7, 8) - np.arange(2)[:, None] / 2)
    place = np.clip(place, -6, 6)
    taps = np.cos(np.pi * place / 12) ** 2 * np.sinc(place) * 0.99
    kernel = torch.from_numpy(taps[:, None]).to(torch.float32).to(wave)
    return F.conv1d(F.pad(wave, (7, 7)), kernel).transpose(1, 2).reshape(len(wave), 1, -1)


def _lengths(sample_rate: int, lowest: float, bins: int, count: int) -> np.ndarray:
    """Return the samples of the filter of each bin: as many periods of each frequency."""
    frequencies = lowest * 2.0 ** (np.arange(count) / bins)
    lengths: np.ndarray = np.ceil(sample_rate / (2 ** (1 / bins) - 1) / frequencies)
    return lengths


def _filters(sample_rate: int, bins: int, octaves: int) -> np.ndarray:
    """Return the filters of the highest octave, real parts and then negated imaginary ones, (2 · bins, 1, n)."""
    lowest = LOWEST * 2 ** (octaves - 1)
    lengths = _lengths(sample_rate, lowest, bins, bins).astype(int)
    size = 2 ** math.ceil(math.log2(lengths[0]))
    filters = np.zeros((bins, size), dtype=np.complex128)
    for k, length in enumerate(lengths):
        start = math.ceil(size / 2 - length / 2) - length % 2
        time = np.arange(length) - (length + 1) // 2
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
        wave = window * np.exp(2j * np.pi * lowest * 2 ** (k / bins) * time / sample_rate)
        filters[k, start : start + length] = wave / np.abs(wave).sum()
    return np.concatenate([filters.real, -filters.imag])[:, None]


def _half_band() -> np.ndarray:
    """Return 256 taps that keep what is under a quarter of the rate: the inverse transform of that, under a Hamming."""
    taps, edge = 256, 0.5
    frequencies = np.linspace(0, 1, taps + 1)  # in halves of the rate
    gains = np.interp(frequencies, [0, edge / 1.001, edge * 1.001, 1], [1, 1, 0, 0])
    centred = gains * np.exp(-0.5j * (taps - 1) * np.pi * frequencies)
    lowpass: np.ndarray = np.fft.irfft(centred)[:taps] * np.hamming(taps)
    return lowpass

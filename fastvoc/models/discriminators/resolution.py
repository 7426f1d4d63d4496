"""UnivNet's multi-resolution spectrogram discriminator (MRD).   Jang et al. 2021, arXiv:2106.07889, §2.2.

It sees what the period and scale discriminators miss: magnitudes that are too smooth. Original: maum-ai/univnet
9bb2b54.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fastvoc.audio import FULL_BAND
from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps


@config
class ResolutionDiscriminatorConfig:
    """Networks over the magnitudes of several short-time Fourier transforms."""

    kind: Literal["resolution"] = "resolution"
    resolutions: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = FULL_BAND
    """FFT size, hop and window of each sub-discriminator, in samples."""
    channels: PositiveInt = 32
    """Of every convolution but the last."""
    slope: float = 0.2
    """Of every leaky ReLU: 0.2 in UnivNet, 0.1 in BigVGAN."""

    def build(self) -> ResolutionDiscriminator:
        """Build it with fresh weights."""
        return ResolutionDiscriminator(self)


class ResolutionDiscriminator(nn.Module):
    """Resolution by resolution: magnitudes → 2-D convolutions, strided along time → score."""

    def __init__(self, config: ResolutionDiscriminatorConfig) -> None:
        super().__init__()
        c = config.channels
        # channels in, channels out, kernel and stride over (frequency, time)
        table = [
            (1, c, (3, 9), (1, 1)),
            (c, c, (3, 9), (1, 2)),
            (c, c, (3, 9), (1, 2)),
            (c, c, (3, 9), (1, 2)),
            (c, c, (3, 3), (1, 1)),
            (c, 1, (3, 3), (1, 1)),
        ]

        def convs() -> list[nn.Module]:
            return [weight_norm(nn.Conv2d(i, o, k, s, padding=(k[0] // 2, k[1] // 2))) for i, o, k, s in table]

        self.networks = nn.ModuleList(_Spectrum(resolution, convs(), config.slope) for resolution in config.resolutions)

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per resolution, the feature maps and the score (B, 1, bins, frames / 8)."""
        return [network(wave) for network in self.networks]


class _Spectrum(nn.Module):
    """A chain of 2-D convolutions over the magnitudes of one short-time Fourier transform."""

    def __init__(self, resolution: tuple[int, int, int], convs: Sequence[nn.Module], slope: float) -> None:
        super().__init__()
        self.resolution = resolution
        self.convs = nn.ModuleList(convs)
        self.slope = slope

    def forward(self, wave: Tensor) -> Maps:
        fft_size, hop, window_size = self.resolution
        with torch.autocast(wave.device.type, enabled=False):
            # an FFT needs single precision
            wave = wave.float() if wave.dtype in (torch.float16, torch.bfloat16) else wave
            side = (fft_size - hop) // 2
            padded = F.pad(wave, (side, side), "reflect")[:, 0]
            # the original names no window, which is a rectangle of the window's size
            window = torch.ones(window_size, dtype=wave.dtype, device=wave.device)
            x = torch.stft(padded, fft_size, hop, window_size, window, center=False, return_complex=True).abs()
        maps = []
        x = x[:, None]
        for conv in self.convs:
            x = conv(x)
            x = x if conv is self.convs[-1] else F.leaky_relu(x, self.slope)
            maps.append(x)
        return maps

"""Discriminators, worn with their norms: they exist only in training.

Every one maps waves (B, 1, T) to a list with an entry per sub-discriminator; an entry is the list of its feature
maps, the last of which is the score. Which maps a feature-matching loss compares is the loss's business: HiFi-GAN
includes the score, MelGAN does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from fastvoc import ops

Maps = list[Tensor]


def _dress(conv: nn.Module, norm: Literal["weight", "spectral"]) -> nn.Module:
    return spectral_norm(conv) if norm == "spectral" else weight_norm(conv)


def _chain(convs: nn.ModuleList, x: Tensor, paddings: Sequence[tuple[int, int]], slope: float) -> Maps:
    """Run convolutions along time, a leaky ReLU behind each but the last; their outputs are the feature maps.

    The modules only hold what learns: `fastvoc.ops` run them, channels-last. Weights may have further axes of size 1.
    """
    maps = []
    for conv, padding in zip(convs, paddings, strict=True):
        assert isinstance(conv, (nn.Conv1d, nn.Conv2d))
        weight = conv.weight.flatten(2)
        if conv is convs[-1]:
            x = ops.conv1d(x, weight, conv.bias, padding=padding)
        else:
            x = ops.downsample(
                x, weight, conv.bias, stride=conv.stride[0], padding=padding, groups=conv.groups, slope=slope
            )
        maps.append(x)
    return maps


class _WaveDiscriminator(nn.Module):
    """A chain of 1-D convolutions over a wave, whose padding in front of the first one has a mode of its own."""

    def __init__(
        self, convs: Sequence[nn.Module], paddings: Sequence[tuple[int, int]], mode: str, slope: float
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.paddings = [(0, 0), *paddings[1:]]
        self.first_padding = paddings[0]
        self.mode = mode
        self.slope = slope

    def forward(self, wave: Tensor) -> Maps:
        # only the first padding reflects: the originals mirror the wave and zero-pad the features
        return _chain(self.convs, F.pad(wave, self.first_padding, self.mode), self.paddings, self.slope)


class MelGANDiscriminator(nn.Module):
    """Several scales of a grouped, strided network.   Kumar et al. 2019, arXiv:1910.06711, §2.2.

    Original: descriptinc/melgan-neurips 6488045; with `keras`, the Keras tutorial's "same" padding, whose strided
    convolutions pad 18 samples on the left and 19 on the right, and its pooling of two.

    Parameters
    ----------
    scales : int
        Sub-discriminators; each hears the wave at half the rate of the one before.
    channels : int
        Of the first convolution.
    downsampling : sequence of int
        Stride of each grouped convolution; its kernel is ten times that plus one.
    largest : int
        Upper bound of the channels.
    slope : float
    keras : bool
    """

    def __init__(
        self,
        *,
        scales: int = 3,
        channels: int = 16,
        downsampling: Sequence[int] = (4, 4, 4, 4),
        largest: int = 1024,
        slope: float = 0.2,
        keras: bool = False,
    ) -> None:
        super().__init__()
        self.keras = keras

        def one() -> _WaveDiscriminator:
            width = channels
            convs: list[nn.Module] = [nn.Conv1d(1, width, 15)]
            paddings = [(7, 7)]
            for stride in downsampling:
                wider = min(width * stride, largest)
                taps = 10 * stride + 1
                convs.append(nn.Conv1d(width, wider, taps, stride, groups=width // 4))
                total = taps - stride  # "same" for a length that is a multiple of the stride
                paddings.append((total // 2, total - total // 2) if keras else (taps // 2, taps // 2))
                width = wider
            wider = min(2 * width, largest)
            convs += [nn.Conv1d(width, wider, 5), nn.Conv1d(wider, 1, 3)]
            paddings += [(2, 2), (1, 1)]
            mode = "constant" if keras else "reflect"
            return _WaveDiscriminator([_dress(conv, "weight") for conv in convs], paddings, mode, slope)

        self.scales = nn.ModuleList(one() for _ in range(scales))

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per scale, the feature maps and the score (B, 1, T / stride)."""
        results = []
        for n, scale in enumerate(self.scales):
            if n and self.keras:
                wave = F.avg_pool1d(wave, 2, 2)
            elif n:
                wave = F.avg_pool1d(wave, 4, 2, padding=1, count_include_pad=False)
            results.append(scale(wave))
        return results


class ScaleDiscriminator(nn.Module):
    """HiFi-GAN's multi-scale discriminator (MSD).   Kong et al. 2020, arXiv:2010.05646, §2.3.

    Original: jik876/hifi-gan 4769534. Its first scale wears spectral norm, the others weight norm, and its pooling
    counts the padding (MelGAN's does not).

    Parameters
    ----------
    scales : int
    channels : int
        Of the first convolution; the original has 128.
    strides : sequence of 5 int
        Of the grouped convolutions; the recipes of ParallelWaveGAN have (4, 4, 4, 4, 1).
    spectral : bool
        Whether the first scale wears spectral norm; otherwise it wears weight norm like the others.
    """

    def __init__(
        self,
        *,
        scales: int = 3,
        channels: int = 128,
        strides: Sequence[int] = (2, 2, 4, 4, 1),
        spectral: bool = True,
    ) -> None:
        super().__init__()
        c = channels
        # channels in, channels out, kernel, stride, groups
        table = [
            (1, c, 15, 1, 1),
            (c, c, 41, strides[0], 4),
            (c, 2 * c, 41, strides[1], 16),
            (2 * c, 4 * c, 41, strides[2], 16),
            (4 * c, 8 * c, 41, strides[3], 16),
            (8 * c, 8 * c, 41, strides[4], 16),
            (8 * c, 8 * c, 5, 1, 1),
            (8 * c, 1, 3, 1, 1),
        ]

        def norm(scale: int) -> Literal["weight", "spectral"]:
            return "spectral" if spectral and scale == 0 else "weight"

        self.scales = nn.ModuleList(
            _WaveDiscriminator(
                [_dress(nn.Conv1d(i, o, k, s, groups=g), norm(n)) for i, o, k, s, g in table],
                [(k // 2, k // 2) for _, _, k, _, _ in table],
                "constant",
                0.1,
            )
            for n in range(scales)
        )

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per scale, the feature maps and the score."""
        results = []
        for n, scale in enumerate(self.scales):
            wave = F.avg_pool1d(wave, 4, 2, padding=2) if n else wave
            results.append(scale(wave))
        return results


class _PeriodNetwork(nn.Module):
    """A chain of convolutions over a wave folded into rows of `period` samples: one along time for every column."""

    def __init__(self, period: int, convs: Sequence[nn.Module], paddings: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList(convs)
        self.paddings = [(padding, padding) for padding in paddings]

    def forward(self, wave: Tensor) -> Maps:
        batch, period = len(wave), self.period
        rows = F.pad(wave, (0, -wave.shape[-1] % period), "reflect").reshape(batch, -1, period)
        columns = rows.transpose(1, 2).reshape(batch * period, 1, -1)
        maps = _chain(self.convs, columns, self.paddings, 0.1)
        return [x.view(batch, period, *x.shape[1:]).permute(0, 2, 3, 1) for x in maps]  # (B, C, rows, period)


class PeriodDiscriminator(nn.Module):
    """HiFi-GAN's multi-period discriminator (MPD).   Kong et al. 2020, arXiv:2010.05646, §2.3.

    Each sub-discriminator sees the wave folded into rows of `period` samples and convolves along time only.
    Original: jik876/hifi-gan 4769534.

    Parameters
    ----------
    periods : sequence of int
        In samples; primes, so that their views overlap little.
    channels : int
        Of the first convolution; the original has 32.
    last_kernel_size : int
        Taps of the last convolution: 3 in the original, 2 in ParallelWaveGAN and ESPnet, where a row is added.
    """

    def __init__(
        self, *, periods: Sequence[int] = (2, 3, 5, 7, 11), channels: int = 32, last_kernel_size: int = 3
    ) -> None:
        super().__init__()
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]

        def convs() -> list[nn.Module]:
            # two axes of the kernel, the second of size 1, as in every checkpoint
            layers: list[nn.Module] = [
                nn.Conv2d(widths[n], widths[n + 1], (5, 1), (3 if n < 4 else 1, 1)) for n in range(5)
            ]
            layers.append(nn.Conv2d(widths[-1], 1, (last_kernel_size, 1)))
            return [_dress(conv, "weight") for conv in layers]

        paddings = [2] * 5 + [last_kernel_size // 2]
        self.networks = nn.ModuleList(_PeriodNetwork(period, convs(), paddings) for period in periods)

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per period, the feature maps and the score (B, 1, rows, period)."""
        return [network(wave) for network in self.networks]


class _SpectrumNetwork(nn.Module):
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


class ResolutionDiscriminator(nn.Module):
    """UnivNet's multi-resolution spectrogram discriminator (MRD).   Jang et al. 2021, arXiv:2106.07889, §2.2.

    It hears what the period and scale discriminators miss: magnitudes that are too smooth. Original:
    maum-ai/univnet 9bb2b54.

    Parameters
    ----------
    resolutions : sequence of (fft_size, hop, window_size)
        In samples.
    channels : int
        Of every convolution but the last.
    slope : float
        0.2 in UnivNet, 0.1 in BigVGAN.
    """

    def __init__(
        self,
        *,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels: int = 32,
        slope: float = 0.2,
    ) -> None:
        super().__init__()
        c = channels
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
            return [_dress(nn.Conv2d(i, o, k, s, padding=(k[0] // 2, k[1] // 2)), "weight") for i, o, k, s in table]

        self.networks = nn.ModuleList(_SpectrumNetwork(resolution, convs(), slope) for resolution in resolutions)

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per resolution, the feature maps and the score (B, 1, bins, frames / 8)."""
        return [network(wave) for network in self.networks]

"""The discriminator of spectra in bands (DAC's, and Vocos').   Kumar et al. 2023, arXiv:2306.06546, §3.4.

Each band has convolutions of its own, so that the low ones, where nearly all of the power is, do not hide the others.
Original: gemelo-ai/vocos c859e3b, vocos/discriminators.py, which follows descriptinc/descript-audio-codec.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from typing_extensions import Self

from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps

SLOPE = 0.1
"""Of every leaky ReLU."""


@config
class BandDiscriminatorConfig:
    """Networks over the real and imaginary parts of several short-time Fourier transforms, band by band."""

    kind: Literal["band"] = "band"
    fft_sizes: Annotated[tuple[Annotated[int, Field(ge=16)], ...], Field(min_length=1)] = (2048, 1024, 512)
    """Of each sub-discriminator, in samples; its window is a Hann of the same length, its hop a quarter."""
    edges: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    """Where bands begin and end, as fractions of half the sample rate, ascending from 0 to 1."""
    channels: PositiveInt = 32
    """Of every convolution but the last."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ascending = len(self.edges) > 1 and all(a < b for a, b in pairwise(self.edges))
        if not ascending or (self.edges[0], self.edges[-1]) != (0, 1):
            raise ValueError(f"edges {self.edges} do not ascend from 0 to 1")
        for size in self.fft_sizes:
            if any(first == last for first, last in bands(size, self.edges)):
                raise ValueError(f"edges {self.edges} leave a band of an FFT of {size} samples without a bin")
        return self

    def build(self) -> BandDiscriminator:
        """Build it with fresh weights."""
        return BandDiscriminator(self)


def bands(fft_size: int, edges: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the first bin of each band, and the one behind its last."""
    bins = [int(edge * (fft_size // 2 + 1)) for edge in edges]
    return list(pairwise(bins))


class BandDiscriminator(nn.Module):
    """Resolution by resolution: spectrum → in each band 2-D convolutions, strided along frequency → score."""

    def __init__(self, config: BandDiscriminatorConfig) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            _Spectrum(size, bands(size, config.edges), config.channels) for size in config.fft_sizes
        )

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per resolution, the maps of all bands and the score (B, 1, frames, bins / 8)."""
        return [network(wave) for network in self.networks]


class _Spectrum(nn.Module):
    """A chain of 2-D convolutions for each band of a short-time Fourier transform, and one over what they make."""

    def __init__(self, fft_size: int, bands: list[tuple[int, int]], channels: int) -> None:
        super().__init__()
        self.fft_size = fft_size
        self.bands = bands
        # channels in, kernel and stride over (time, frequency)
        table = [(2, (3, 9), 1), *[(channels, (3, 9), 2)] * 3, (channels, (3, 3), 1)]
        self.convs = nn.ModuleList(
            nn.ModuleList(
                weight_norm(nn.Conv2d(n, channels, size, (1, stride), padding=(size[0] // 2, size[1] // 2)))
                for n, size, stride in table
            )
            for _ in bands
        )
        self.last = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, wave: Tensor) -> Maps:
        spectrum = self._spectrum(wave)
        maps, ends = [], []
        for (first, last), convs in zip(self.bands, self.convs, strict=True):
            x = spectrum[..., first:last]
            for number, conv in enumerate(convs):  # type: ignore[arg-type, var-annotated]
                x = F.leaky_relu(conv(x), SLOPE)
                if number:  # the original compares the first map nowhere
                    maps.append(x)
            ends.append(x)
        maps.append(self.last(torch.cat(ends, dim=-1)))
        return maps

    def _spectrum(self, wave: Tensor) -> Tensor:
        """(B, 1, T) → real and imaginary parts (B, 2, frames, bins) of waves that are equally loud."""
        with torch.autocast(wave.device.type, enabled=False):
            # an FFT needs single precision
            x = wave[:, 0].float() if wave.dtype in (torch.float16, torch.bfloat16) else wave[:, 0]
            x = x - x.mean(dim=-1, keepdim=True)
            x = 0.8 * x / (x.abs().amax(dim=-1, keepdim=True) + 1e-9)
            window = torch.hann_window(self.fft_size, dtype=x.dtype, device=x.device)
            spectrum = torch.stft(x, self.fft_size, self.fft_size // 4, window=window, return_complex=True)
            return torch.view_as_real(spectrum).permute(0, 3, 2, 1)

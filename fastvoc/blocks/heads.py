"""Heads: how the trunk's features become a wave."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.audio.pqmf import PqmfConfig, synthesis_weight
from fastvoc.blocks.conv import Conv1d


class WaveHead(nn.Module):
    """Leaky ReLU, convolution, tanh: one channel per band.

    Parameters
    ----------
    channels : int
    slope : float
    bands : int
        1 for a wave, more for the sub-bands of a filter bank.
    kernel_size : int
    padding_mode : {"zero", "reflect", "replicate"}
    causal : bool
    """

    rate = 1

    def __init__(
        self,
        channels: int,
        *,
        slope: float,
        bands: int = 1,
        kernel_size: int = 7,
        padding_mode: str = "zero",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.slope = slope
        self.conv = Conv1d(channels, bands, kernel_size, padding_mode=padding_mode, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, bands, T) in [−1, 1]."""
        return self.conv(x, slope=self.slope, tanh=True)  # type: ignore[no-any-return]

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Feature rows that samples `first … last` read."""
        return self.conv.needs(first, last)


class PqmfHead(WaveHead):
    """A wave head for each sub-band, and the filter bank that joins them (Yang 2020, arXiv:2005.05106, §2.2).

    The synthesis filters are a buffer saved with the weights, because published models were trained with different
    prototypes and some carry their own.
    """

    filters: Tensor

    def __init__(
        self,
        channels: int,
        *,
        slope: float,
        pqmf: PqmfConfig,
        kernel_size: int = 7,
        padding_mode: str = "zero",
        causal: bool = False,
    ) -> None:
        super().__init__(
            channels,
            slope=slope,
            bands=pqmf.bands,
            kernel_size=kernel_size,
            padding_mode=padding_mode,
            causal=causal,
        )
        self.rate = pqmf.bands
        self.crop = pqmf.crop
        self.register_buffer("filters", synthesis_weight(pqmf))  # (bands, 1, taps + 1)

    def subbands(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, bands, T), before the filter bank."""
        return super().forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·bands)."""
        return ops.upsample(self.subbands(x), self.filters, stride=self.rate, crop=self.crop)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Feature rows that samples `first … last` read."""
        taps, left = self.filters.shape[-1], self.crop[0]
        return super().needs(-((taps - 1 - first - left) // self.rate), (last + left) // self.rate)


class IstftHead(nn.Module):
    """Magnitude and phase of a short-time spectrum, inverted (Kaneko 2022, arXiv:2203.02395, §3).

    Parameters
    ----------
    channels : int
    slope : float
    fft_size, hop : int
        In samples of the wave. The window is a periodic Hann of `fft_size`.
    phase : {"sine", "angle"}
        ``"sine"`` takes the sine of the network's output as the phase in radians, as the original code does
        (rishikksh20/iSTFTNet-pytorch d10fe7d), which confines it to ±1; ``"angle"`` takes the output itself.
    kernel_size : int
    """

    def __init__(
        self, channels: int, *, slope: float, fft_size: int, hop: int, phase: str = "sine", kernel_size: int = 7
    ) -> None:
        super().__init__()
        self.slope = slope
        self.fft_size = fft_size
        self.rate = hop
        self.phase = phase
        self.conv = Conv1d(channels, fft_size + 2, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·hop)."""
        # T hops need T + 1 centred frames; the extra one on the left is a reflection
        y = self.conv(F.pad(x, (1, 0), "reflect"), slope=self.slope)
        y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y  # an FFT needs single precision
        log_magnitude, phase = y.chunk(2, dim=1)
        # a wave in [-1, 1] has no magnitude beyond the window's sum, fft_size / 2: the bound keeps exp finite
        magnitude = log_magnitude.exp().clamp(max=float(self.fft_size))
        phase = phase.sin() if self.phase == "sine" else phase
        spectrum = torch.polar(magnitude, phase)
        window = torch.hann_window(self.fft_size, dtype=magnitude.dtype, device=x.device)
        wave = torch.istft(spectrum, self.fft_size, self.rate, window=window, center=True)
        return wave.to(x.dtype)[:, None]

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Feature rows that samples `first … last` read."""
        half = self.fft_size // 2
        # frame n covers the samples n·hop - half … n·hop + half - 1, of which the window's first is zero
        frames = -((half - 1 - first) // self.rate), (last + half - 1) // self.rate
        first, last = self.conv.needs(*frames)
        return first - 1, last - 1

"""Heads that make the wave of a network at the mel's own rate: a spectrum per frame, inverted, or its very samples.

Siuzdak 2023, arXiv:2306.00814, §3.3; Okamoto et al. 2023 (ASRU), *WaveNeXt*; reference: gemelo-ai/vocos c859e3b,
vocos/heads.py and vocos/spectral_ops.py, and wetdog/wavenext_pytorch d45d544.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastvoc.blocks.conv import Conv1d
from fastvoc.blocks.heads import (
    CentredInverse,
    Inverse,
    OverlapAdd,
    hann_window,
    overlap_add,
    overlap_of,
    spectrum_of,
)
from fastvoc.graph import Graph, Node, Pointwise, Window

LOUDEST = 100.0
"""Magnitudes beyond it are those of a network that has gone astray."""


class SpectralHead(nn.Module):
    """Logarithm of the magnitude, and phase, of each frame; their inverse transforms, added where frames overlap.

    Parameters
    ----------
    channels : int
    fft_size, hop : int
        In samples. The window is a periodic Hann of `fft_size`, which is longer than `hop`.
    padding : {"same", "centre"}
        What the wave of ``T`` frames is: ``"same"`` has ``T·hop`` samples, of which each frame's own are in its middle;
        ``"centre"`` has ``(T − 1)·hop``, from the middle of the first frame to that of the last.
    """

    def __init__(self, channels: int, *, fft_size: int, hop: int, padding: str) -> None:
        super().__init__()
        self.fft_size = fft_size
        self.rate = hop
        self.padding = padding
        self.start = fft_size // 2 if padding == "centre" else (fft_size - hop) // 2
        self.conv = Conv1d(channels, fft_size + 2, 1)

    def polar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) → magnitude and phase, each (B, fft_size/2 + 1, T), at least in single precision."""
        return self._polar(self.conv(x))

    def _polar(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y  # an FFT needs single precision
        log_magnitude, phase = y.chunk(2, dim=1)
        return log_magnitude.exp().clamp(max=LOUDEST), phase

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·hop), or a hop less with the padding "centre"."""
        spectrum = spectrum_of(*self.polar(x))
        window = hann_window(self.fft_size, spectrum.real.dtype, x.device)
        frames = (torch.fft.irfft(spectrum.mT, n=self.fft_size) * window).mT
        # as streams add them, and `torch.istft`
        wave = overlap_add(frames, self.rate, latest_first=False)
        count = frames.shape[-1]
        overlap = overlap_of(self.fft_size, self.rate, count, False, frames.dtype, frames.device)
        end = wave.shape[-1] - self.start
        return (wave[..., self.start : end] / overlap[..., self.start : end]).to(x.dtype)

    def lower(self, graph: Graph, x: int) -> int:
        """Add the product, the transform of each frame, and their sum to a graph."""
        y = graph.lower(self.conv, x)
        spectrum = graph.add(Pointwise(lambda y: spectrum_of(*self._polar(y))), y)
        frames = graph.add(Inverse(self.fft_size), spectrum)
        centred = self.padding == "centre"
        node = CentredInverse(self.fft_size, self.rate) if centred else EvenInverse(self.fft_size, self.rate)
        dtype = self.conv.weight.dtype
        return graph.add(Pointwise(lambda wave: wave.to(dtype)), graph.add(node, frames))


class EvenInverse(OverlapAdd):
    """The sum of frames whose wave has a hop for each: what the first and the last reach beyond is left out."""

    latest_first = False

    def __init__(self, size: int, hop: int) -> None:
        super().__init__(size, hop, start=(size - hop) // 2)

    def length(self, count: int) -> int:
        """Count the samples of so many frames."""
        return count * self.hop


class SampleHead(nn.Module):
    """A product that makes the samples of each frame, clipped to [−1, 1].

    Parameters
    ----------
    channels : int
    hop : int
        Samples per frame.
    """

    def __init__(self, channels: int, *, hop: int) -> None:
        super().__init__()
        self.rate = hop
        self.conv = Conv1d(channels, hop, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·hop)."""
        return _in_turn(self._clipped(self.conv(x)))

    @staticmethod
    def _clipped(y: Tensor) -> Tensor:
        return y.clamp(-1, 1)

    def lower(self, graph: Graph, x: int) -> int:
        """Add the product, and the samples in their turn, to a graph."""
        y = graph.add(Pointwise(self._clipped), graph.lower(self.conv, x))
        return graph.add(InTurn(self.rate), y)


class InTurn(Node):
    """The channels of each row, one after the other: (B, count, n) → (B, 1, n·count).

    Parameters
    ----------
    count : int
        Channels.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows that samples `first … last` are of."""
        return first // self.count, last // self.count

    def length(self, count: int) -> int:
        """Count the samples of so many rows."""
        return count * self.count

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Return samples `first … last`."""
        (x,) = window.rows
        start = first - window.first * self.count
        return _in_turn(x)[..., start : start + last - first + 1]


def _in_turn(x: Tensor) -> Tensor:
    return x.mT.flatten(1)[:, None]

"""Heads: how the trunk's features become a wave."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.audio.pqmf import PqmfConfig, synthesis_weight
from fastvoc.blocks.conv import Conv1d
from fastvoc.constants import kept
from fastvoc.graph import Convolution, Graph, Mirrored, Node, Pointwise, Window


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

    def lower(self, graph: Graph, x: int) -> int:
        """Add the call of `conv1d` to a graph."""
        return graph.lower(self.conv, x, slope=self.slope, tanh=True)


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

    def join(self, subbands: Tensor) -> Tensor:
        """(B, bands, T) → (B, 1, T·bands)."""
        return ops.upsample(subbands, self.filters, stride=self.rate, crop=self.crop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·bands)."""
        return self.join(self.subbands(x))

    def lower(self, graph: Graph, x: int) -> int:
        """Add the calls of `conv1d` and of the filter bank to a graph."""
        return graph.add(Convolution(weight=self.filters, padding=self.crop, stride=self.rate), super().lower(graph, x))


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
        self.start = fft_size // 2
        self.phase = phase
        self.conv = Conv1d(channels, fft_size + 2, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·hop)."""
        magnitude, phase = self.polar(x)
        if x.is_meta:  # where torch.istft, which compares values, has no kernel
            return x.new_empty(len(x), 1, x.shape[-1] * self.rate)
        spectrum = spectrum_of(magnitude, phase)
        window = torch.hann_window(self.fft_size, dtype=magnitude.dtype, device=x.device)
        wave = torch.istft(spectrum, self.fft_size, self.rate, window=window, center=True)
        return wave.to(x.dtype)[:, None]

    def polar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T) → magnitude and phase of T + 1 centred frames, each (B, fft_size/2 + 1, T + 1)."""
        # T hops need T + 1 frames; the extra one on the left is a reflection
        y = self.conv(F.pad(x, (1, 0), "reflect"), slope=self.slope)
        return self._polar(y)

    def _polar(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, fft_size + 2, T) → magnitude and phase, each (B, fft_size/2 + 1, T)."""
        y = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y  # an FFT needs single precision
        log_magnitude, phase = y.chunk(2, dim=1)
        # a wave in [-1, 1] has no magnitude beyond the window's sum, fft_size / 2: the bound keeps exp finite
        magnitude = log_magnitude.exp().clamp(max=float(self.fft_size))
        return magnitude, phase.sin() if self.phase == "sine" else phase

    def lower(self, graph: Graph, x: int) -> int:
        """Add the convolution, the transform of each frame, and their sum to a graph."""
        y = graph.lower(self.conv, graph.add(Mirrored(), x), slope=self.slope)
        spectrum = graph.add(Pointwise(lambda y: spectrum_of(*self._polar(y))), y)
        wave = graph.add(CentredInverse(self.fft_size, self.rate), graph.add(Inverse(self.fft_size), spectrum))
        dtype = self.conv.weight.dtype
        return graph.add(Pointwise(lambda wave: wave.to(dtype)), wave)


def spectrum_of(magnitude: Tensor, phase: Tensor) -> Tensor:
    """Return magnitude · exp(i phase), as `torch.polar` does, which calls sine and cosine for one number at a time.

    For 94 frames of 513 bins that takes 0.34 ms, and this 0.17 ms (one core of an AMD EPYC of family 26, 2026-11-30).
    """
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())


class Inverse(Node):
    """Spectra to frames of a wave under a Hann window: (B, size // 2 + 1, n) → (B, size, n)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Transform frames `first … last`."""
        (spectrum,) = window.rows
        hann = hann_window(self.size, spectrum.real.dtype, spectrum.device)
        frames: Tensor = torch.fft.irfft(spectrum.mT, n=self.size) * hann
        return frames.mT


class OverlapAdd(Node):
    """Frames (B, size, n), `hop` samples apart, under their window, to the wave that they are of, (B, 1, samples).

    Parameters
    ----------
    size, hop : int
        Length of a frame, and from one to the next, in samples.
    start : int
        Samples of the first frame before the wave.
    """

    latest_first = True
    """Whether a sum begins with its latest frame, as in Griffin-Lim, or its earliest, as in `torch.istft`."""

    def __init__(self, size: int, hop: int, *, start: int) -> None:
        self.size, self.hop, self.start = size, hop, start

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Frames that samples `first … last` are in."""
        return -((self.size - 1 - self.start - first) // self.hop), (last + self.start) // self.hop

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Make samples `first … last`: sums of frames by what sums of the squared windows allow."""
        (frames,) = window.rows
        begin = first + self.start - window.first * self.hop
        end = begin + last - first + 1
        wave = overlap_add(frames, self.hop, latest_first=self.latest_first)[..., begin:end]
        overlap = overlap_of(self.size, self.hop, frames.shape[-1], self.latest_first, frames.dtype, frames.device)
        return self.levelled(wave, overlap[..., begin:end], window)

    def levelled(self, wave: Tensor, overlap: Tensor, window: Window) -> Tensor:
        """Divide sums of frames, (B, 1, n), by those of their squared windows, (1, 1, n)."""
        return wave / overlap


class CentredInverse(OverlapAdd):
    """The sum of `torch.istft`, whose wave begins and ends in the middle of a frame."""

    latest_first = False

    def __init__(self, size: int, hop: int) -> None:
        super().__init__(size, hop, start=size // 2)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Frames that samples `first … last` are in; the first of a frame is zero."""
        return super().needs(first, last)[0], (last + self.start - 1) // self.hop

    def length(self, count: int) -> int:
        """Count the samples between the middle of the first frame and that of the last."""
        return max(0, count - 1) * self.hop


@kept(64)
def hann_window(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a periodic Hann window, shape (size,), which nobody may write into."""
    return torch.hann_window(size, dtype=dtype, device=device)


def overlap_of(size: int, hop: int, count: int, latest_first: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the sums of the squared windows of so many frames, shape (1, 1, samples), which nobody may write into."""
    # what pieces of streams have is computed once; a whole wave's is as long as it
    make = _kept_overlap if count <= MOST_KEPT else _overlap
    return make(size, hop, count, latest_first, dtype, device)


MOST_KEPT = 256
"""Frames whose sums are kept."""


def _overlap(size: int, hop: int, count: int, latest_first: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    squared = hann_window(size, dtype, device).square()[None, :, None].expand(-1, -1, count)
    return overlap_add(squared, hop, latest_first=latest_first)


_kept_overlap = kept(64)(_overlap)


def overlap_add(frames: Tensor, hop: int, *, latest_first: bool) -> Tensor:
    """Sum overlapping frames, in a certain order: (B, size, n) → (B, 1, (n − 1)·hop + size)."""
    if frames.shape[1] % hop == 0 and not (torch.is_grad_enabled() and frames.requires_grad):
        return _added_in_place(frames, hop, latest_first=latest_first)
    # `fold` begins with the latest
    frames = frames if latest_first else frames.flip(1, 2)
    size = (frames.shape[-1] - 1) * hop + frames.shape[1]
    sums = F.fold(frames, (1, size), (1, frames.shape[1]), stride=(1, hop)).flatten(2)
    return sums if latest_first else sums.flip(2)


def _added_in_place(frames: Tensor, hop: int, *, latest_first: bool) -> Tensor:
    """Do the same for frames of whole hops, in the same order and so to the bit, hop by hop of each: less is copied."""
    batch, size, count = frames.shape
    overlap = size // hop
    hops = frames.mT.reshape(batch, count, overlap, hop)
    sums = frames.new_zeros(batch, count + overlap - 1, hop)
    # the latest frame that reaches a hop does so with its first one
    for part in range(overlap) if latest_first else reversed(range(overlap)):
        sums[:, part : part + count] += hops[:, :, part]
    return sums.flatten(1)[:, None]

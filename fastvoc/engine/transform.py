"""Short-time Fourier transforms in pieces: the end of iSTFTNet, and what Griffin-Lim goes back and forth with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.blocks import IstftHead
from fastvoc.engine.convolutions import Convolution
from fastvoc.engine.parts import Front, Memory, Part, Shapes, Without, reserve


class OverlapAdd:
    """Sums of overlapping frames, and of their squared windows; it keeps the frames that the next ones overlap.

    With the order in which frames are added, the sums are those of the whole to the bit.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    size, hop : int
        Length of a frame, and from one to the next, in samples.
    certain : int
        How many samples of the latest frame no other can change, or end the wave before.
    ends : int
        How many samples of the last frame belong to the wave.
    latest_first : bool
        Whether a sum begins with its latest frame, as in Griffin-Lim, or its earliest, as in `torch.istft`.
    """

    def __init__(self, shapes: Shapes, size: int, hop: int, *, certain: int, ends: int, latest_first: bool) -> None:
        self.size = size
        self.hop = hop
        self.certain = certain
        self.ends = ends
        self.latest_first = latest_first
        self.overlapping = -(-size // hop) - 1
        self.frames = reserve(shapes, size, self.overlapping)
        self.weights = reserve(shapes, 1, self.overlapping)  # 0 for what stands before the first frame

    def __call__(self, memory: Memory, frames: Tensor, window: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """(B, size, n) and (size,) → the sums, (B, 1, m), and those of the squared windows, of the same shape."""
        batch, _, count = frames.shape
        if not count and not last:
            return frames[:, :1], frames[:, :1]
        frames = torch.cat([memory[self.frames], frames], dim=-1)
        weights = torch.cat([memory[self.weights], frames.new_ones(batch, 1, count)], dim=-1)
        memory[self.frames], memory[self.weights] = frames[..., count:].clone(), weights[..., count:].clone()
        latest = (frames.shape[-1] - 1) * self.hop
        pieces = torch.cat([frames, weights * window.square()[:, None]])
        # `fold` begins with the latest
        pieces = pieces if self.latest_first else pieces.flip(1, 2)
        sums = F.fold(pieces, (1, latest + self.size), (1, self.size), stride=(1, self.hop)).flatten(2)
        sums = sums if self.latest_first else sums.flip(2)
        begin = (self.overlapping - 1) * self.hop + self.certain
        end = latest + (self.ends if last else self.certain)
        wave, overlap = sums[..., begin:end].split(batch)  # type: ignore[no-untyped-call]
        return wave, overlap


class InverseTransform:
    """`IstftHead` behind its convolution, in pieces."""

    def __init__(self, shapes: Shapes, head: IstftHead) -> None:
        self.head = head
        half = head.fft_size // 2
        self.overlap_add = OverlapAdd(
            shapes, head.fft_size, head.rate, certain=min(head.rate, half), ends=half, latest_first=False
        )

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, fft_size + 2, n) → (B, 1, m)."""
        size = self.head.fft_size
        dtype = rows.dtype
        rows = rows.float() if dtype in (torch.float16, torch.bfloat16) else rows
        log_magnitude, phase = rows.chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp(max=float(size))
        phase = phase.sin() if self.head.phase == "sine" else phase
        window = torch.hann_window(size, dtype=rows.dtype, device=rows.device)
        frames = rows.new_empty(rows.shape[0], size, 0)
        if rows.shape[-1]:
            frames = (torch.fft.irfft(torch.polar(magnitude, phase).mT, n=size) * window).mT
        wave, overlap = self.overlap_add(memory, frames, window, last)
        return (wave / overlap).to(dtype)


def istft_head(shapes: Shapes, head: IstftHead) -> list[Part]:
    """Return the parts of a head that ends in an inverse transform."""
    channels = head.conv.weight.shape[1]
    return [
        Front(shapes, channels, "reflect"),
        Convolution(shapes, head.conv, slope=head.slope),
        InverseTransform(shapes, head),
        Without(shapes, head.fft_size // 2 + max(0, head.rate - head.fft_size // 2)),
    ]

"""From frames to one row for each sample, for networks that make one sample after the other.

Each of them makes the same bits of the same frames, however these are cut: a product with a matrix is computed frame by
frame, from memory that begins alike, since a library sums several at once in another order than one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal, Protocol, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc import ops
from fastvoc.blocks.conv import Conv1d
from fastvoc.config import Kinds, config

Positive = Annotated[int, Field(gt=0, le=65536)]


class Rows(nn.Module, ABC):
    """Makes `hop` rows of each frame, from `past` frames before it and `future` frames behind it.

    Parameters
    ----------
    hop, past, future : int
    """

    def __init__(self, hop: int, past: int, future: int) -> None:
        super().__init__()
        self.hop, self.past, self.future = hop, past, future

    @property
    @abstractmethod
    def multiply_accumulates(self) -> float:
        """How many a sample takes."""

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """Make the rows of whole signals: (B, C, T) → (B, C, T·hop)."""

    @abstractmethod
    def between(self, frames: Tensor, first: int, *, ended: bool) -> Tensor:
        """Make the rows of some frames of a stream.

        Parameters
        ----------
        frames : Tensor, shape (B, C, n)
            With up to `past` frames that came before; fewer only if the stream began with the first of them.
        first : int
            How many these are.
        ended : bool
            Whether no frames follow. Else the last `future` ones wait.

        Returns
        -------
        Tensor, shape (B, C, (n − first − waiting)·hop)
        """

    def ready(self, count: int, first: int, *, ended: bool) -> int:
        """Count the frames whose rows are certain."""
        return max(0, count - first - (0 if ended else self.future))


@config
class RepeatedConfig:
    """Every frame is repeated for each of its samples."""

    kind: Literal["repeated"] = "repeated"
    hop: Positive
    """Samples per frame."""

    def build(self, channels: int) -> Rows:
        """Make the module."""
        return Repeated(self.hop)


def _check_odd(band_taps: int) -> None:
    if band_taps % 2 == 0:
        raise ValueError(f"band_taps {band_taps} is even; a band has as many neighbours above as below")


@config
class StretchedConfig:
    """A convolution over frames, then in turn repetition and smoothing (r9y9/wavenet_vocoder a35fff7, upsample.py)."""

    kind: Literal["stretched"] = "stretched"
    rates: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = (4, 4, 4, 4)
    """How often rows are repeated, stage by stage; each stage smooths with 2·rate + 1 taps."""
    context: Annotated[int, Field(ge=0, le=64)] = 2
    """Frames on both sides that the first convolution reads."""
    band_taps: Annotated[int, Field(ge=1, le=31)] = 1
    """Neighbouring bands that are smoothed together, an odd number."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        _check_odd(self.band_taps)
        return self

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)

    def build(self, channels: int) -> Rows:
        """Make the module."""
        return Stretched(self, channels)


@config
class BandTransposedConfig:
    """Transposed convolutions over bands and time in turn, with a ReLU behind each (r9y9/wavenet_vocoder v0.1.1)."""

    kind: Literal["band-transposed"] = "band-transposed"
    rates: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = (4, 4, 4, 4)
    """How many rows a row becomes, stage by stage; no row meets its neighbours."""
    band_taps: Annotated[int, Field(ge=1, le=31)] = 3
    """Neighbouring bands that meet, an odd number."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        _check_odd(self.band_taps)
        return self

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)

    def build(self, channels: int) -> Rows:
        """Make the module."""
        return BandTransposed(self, channels)


@config
class TransposedConfig:
    """One transposed convolution of which the end is cut off, so that no later frame is seen (nv-wavenet 03f6957)."""

    kind: Literal["transposed"] = "transposed"
    hop: Positive = 200
    """Samples per frame."""
    kernel_size: Positive = 800
    """Samples that a frame reaches."""

    @model_validator(mode="after")
    def _reaching(self) -> Self:
        if self.kernel_size < self.hop:
            raise ValueError(f"kernel_size {self.kernel_size} is less than hop {self.hop}; some would be out of reach")
        return self

    def build(self, channels: int) -> Rows:
        """Make the module."""
        return Transposed(self, channels)


class Repeated(Rows):
    """Every frame `hop` times."""

    def __init__(self, hop: int) -> None:
        super().__init__(hop, 0, 0)

    @property
    def multiply_accumulates(self) -> float:
        """None."""
        return 0.0

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T·hop)."""
        return frames.repeat_interleave(self.hop, dim=-1)

    def between(self, frames: Tensor, first: int, *, ended: bool) -> Tensor:
        """Make the rows of some frames of a stream."""
        return self.forward(frames[..., first:])


class Stretched(Rows):
    """A convolution over frames, then in turn repetition and smoothing.

    Before the first frame and behind the last one stand copies of them, as the original's synthesis lays them around a
    mel; around the smoothed signals stand zeros.
    """

    def __init__(self, config: StretchedConfig, channels: int) -> None:
        # a stage reaches one row of the stage before it to each side
        reach = math.ceil(sum(1 / math.prod(config.rates[:stage]) for stage in range(len(config.rates))))
        super().__init__(config.hop, config.context + reach, config.context + reach)
        self.config = config
        self.first = Conv1d(channels, channels, 2 * config.context + 1)
        self.smooth = nn.ModuleList(_Smoothing(config.band_taps, rate) for rate in config.rates)

    def _stages(self) -> Iterator[_Smoothing]:
        return (cast(_Smoothing, stage) for stage in self.smooth)

    @property
    def multiply_accumulates(self) -> float:
        """How many a sample takes: of the convolution, and of each stage for every band."""
        channels, count, rows = len(self.first.weight), self.first.weight.numel(), 1
        for rate, smooth in zip(self.config.rates, self._stages(), strict=True):
            rows *= rate
            count += channels * rows * smooth.weight.numel()
        return count / self.hop

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T·hop)."""
        side = self.config.context
        return self.unpadded(F.pad(frames, (side, side), "replicate") if side else frames)

    def unpadded(self, frames: Tensor) -> Tensor:
        """Make rows of all but `context` frames at each end: (B, C, n) → (B, C, (n − 2·context)·hop)."""
        x = F.conv1d(frames, self.first.weight, self.first.bias)
        for smooth in self._stages():
            x = smooth(x)
        return x

    def between(self, frames: Tensor, first: int, *, ended: bool) -> Tensor:
        """Make the rows of some frames of a stream."""
        side, begins = self.config.context, first < self.past
        ready = self.ready(frames.shape[-1], first, ended=ended)
        if not ready:
            return frames.new_empty(*frames.shape[:2], 0)
        padded = [frames[..., :1].expand(-1, -1, side)] if begins else []
        padded += [frames, frames[..., -1:].expand(-1, -1, side)] if ended else [frames]
        x = self._framewise(torch.cat(padded, dim=-1))
        start = (first - (0 if begins else side)) * self.hop
        for rate, smooth in zip(self.config.rates, self._stages(), strict=True):
            x = _smoothed(x.repeat_interleave(rate, dim=-1), smooth.weight[0, 0].tolist())
        return x[..., start : start + ready * self.hop]

    def _framewise(self, frames: Tensor) -> Tensor:
        weight, width = self.first.weight.flatten(1), self.first.weight.shape[-1]
        windows = frames.unfold(-1, width, 1).transpose(1, 2).flatten(2)  # (B, n, C·width)
        each = [torch.stack([torch.addmv(self.first.bias, weight, row.clone()) for row in item]) for item in windows]
        return torch.stack(each).mT


class _Smoothing(nn.Module):
    """Repetition, and one small kernel over bands and time behind it, which begins as a mean.

    Of the 2·rate + 1 rows that a result is a sum of, those that repeat one row have their weights summed first: each
    result is a sum of three rows, and all of them a product with a matrix. The gradient of the kernel would else be
    that of a convolution of one channel, which took a quarter of a training step of a small network.
    """

    def __init__(self, high: int, rate: int) -> None:
        super().__init__()
        wide = 2 * rate + 1
        self.rate = rate
        self.weight = nn.Parameter(torch.full((1, 1, high, wide), 1 / (high * wide)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T·rate)."""
        weight, count, channels = self.weight[0, 0], x.shape[-1], x.shape[1]
        # the tap k of the result j of a row reads the row before it, itself, or the one behind it
        taps = torch.arange(weight.shape[1], device=weight.device)
        offsets = torch.arange(self.rate, device=weight.device)[:, None] + taps
        sums = F.one_hot(offsets // self.rate, 3).permute(2, 1, 0).to(weight)  # (3, taps, rate)
        matrices = torch.einsum("hk,skj->hsj", weight, sums)
        high = len(weight) // 2
        padded = F.pad(x, (1, 1, high, high))
        rows = torch.stack([padded[..., first : first + count] for first in range(3)], dim=-1)
        y = torch.stack([rows[:, h : h + channels] @ matrix for h, matrix in enumerate(matrices)])
        return y.sum(0).flatten(-2) if len(y) > 1 else y[0].flatten(-2)


def _smoothed(x: Tensor, weight: list[list[float]]) -> Tensor:
    """Convolve bands and time with a small kernel, value by value in one order: (B, C, T) → (B, C, T)."""
    high, wide = len(weight) // 2, len(weight[0]) // 2
    channels, count = x.shape[1:]
    padded = F.pad(x, (wide, wide, high, high))
    y = torch.zeros_like(x)
    for row, taps in enumerate(weight):
        for tap, value in enumerate(taps):
            y = y + padded[:, row : row + channels, tap : tap + count] * value
    return y


class BandTransposed(Rows):
    """Transposed convolutions over bands and time, each as wide in time as its rate, with a ReLU behind it."""

    def __init__(self, config: BandTransposedConfig, channels: int) -> None:
        super().__init__(config.hop, 0, 0)
        self.config, self.channels = config, channels
        self.stages = nn.ModuleList(_Spreading(config.band_taps, rate) for rate in config.rates)

    @property
    def multiply_accumulates(self) -> float:
        """How many a sample takes: of each value of each stage, as many as bands meet."""
        count, rows = 0, 1
        for rate in self.config.rates:
            rows *= rate
            count += self.channels * rows * self.config.band_taps
        return count / self.hop

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T·hop)."""
        x = frames[:, None]
        for stage in self.stages:
            x = stage(x)
        return x[:, 0]

    def between(self, frames: Tensor, first: int, *, ended: bool) -> Tensor:
        """Make the rows of some frames of a stream."""
        x = frames[..., first:]
        for stage in self.stages:
            x = cast(_Spreading, stage).row_by_row(x)
        return x


class _Spreading(nn.Module):
    """One small kernel that makes `rate` rows of each from neighbouring bands; it begins as a mean."""

    def __init__(self, band_taps: int, rate: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1, band_taps, rate), 1 / band_taps))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, C, T) → (B, 1, C, T·rate)."""
        high, rate = self.weight.shape[2:]
        return F.conv_transpose2d(x, self.weight, self.bias, stride=(1, rate), padding=(high // 2, 0)).relu()

    def row_by_row(self, x: Tensor) -> Tensor:
        """Do the same value by value in one order: (B, C, T) → (B, C, T·rate)."""
        weight, channels = self.weight[0, 0], x.shape[1]
        high = len(weight) // 2
        padded = F.pad(x, (0, 0, high, high))
        y = self.bias.expand(*x.shape, weight.shape[1])
        for tap, values in enumerate(weight.flip(0)):
            y = y + padded[:, tap : tap + channels, :, None] * values
        return y.relu().flatten(-2)


class Transposed(Rows):
    """One transposed convolution over the frames so far."""

    def __init__(self, config: TransposedConfig, channels: int) -> None:
        frames = -(-config.kernel_size // config.hop)
        super().__init__(config.hop, frames - 1, 0)
        self.config = config
        self.weight = nn.Parameter(torch.empty(channels, channels, config.kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=1 / math.sqrt(channels * frames))

    @property
    def multiply_accumulates(self) -> float:
        """How many a sample takes: each frame meets every weight once."""
        return self.weight.numel() / self.hop

    def forward(self, frames: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T·hop)."""
        rows = F.conv_transpose1d(frames, self.weight, self.bias, stride=self.hop)
        count = frames.shape[-1] * self.hop
        return F.pad(rows, (0, max(0, count - rows.shape[-1])))[..., :count]

    def between(self, frames: Tensor, first: int, *, ended: bool) -> Tensor:
        """Make the rows of some frames of a stream."""
        ready = self.ready(frames.shape[-1], first, ended=ended)
        if not ready:
            return frames.new_empty(*frames.shape[:2], 0)
        begin = max(0, first - self.past)
        frames, earlier = frames[..., begin:], first - begin
        kernel = self.config.kernel_size
        if _is_native(frames):
            with ops.use_backend("cpu"):  # which gives a row the same bits, whatever is beside it
                rows = ops.upsample(
                    frames.float(), self.weight.float(), self.bias.float(), stride=self.hop, crop=(0, kernel - self.hop)
                )
            return rows[..., earlier * self.hop :]
        matrix = self.weight.flatten(1).T  # (C · kernel, C)
        parts = torch.stack([torch.stack([matrix @ frame.clone() for frame in item.T]) for item in frames])
        parts = parts.view(*parts.shape[:2], -1, kernel).transpose(1, 2)  # (B, C, frames, kernel)
        reach = self.past + 1
        parts = F.pad(parts, (0, reach * self.hop - kernel, reach - 1, 0))
        parts = parts.view(*parts.shape[:3], reach, self.hop)
        rows = self.bias[:, None, None].expand(len(frames), -1, frames.shape[-1], self.hop)
        for number in range(reach):
            rows = rows + parts[:, :, reach - 1 - number : parts.shape[2] - number, number]
        return rows.flatten(2)[..., earlier * self.hop :]


def _is_native(frames: Tensor) -> bool:
    """Whether the operators' kernels for the CPU are to run on some frames."""
    return (
        frames.device.type == "cpu"
        and frames.dtype in (torch.float32, torch.bfloat16)
        and ops.forced_backend() in (None, "cpu")
        and ops.backends()["cpu"] is None
    )


class RowsSettings(Protocol):
    """What the configuration of such a module offers."""

    @property
    def kind(self) -> str:
        """Its name in configurations."""

    @property
    def hop(self) -> int:
        """Samples per frame."""

    def build(self, channels: int) -> Rows:
        """Make the module, with random weights."""


ROWS = Kinds("conditioning")
for _rows in (RepeatedConfig, StretchedConfig, BandTransposedConfig, TransposedConfig):
    ROWS.add(_rows)

RowsConfig = Annotated[RowsSettings, ROWS]

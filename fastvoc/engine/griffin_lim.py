"""The Griffin-Lim network in pieces: each round of Griffin-Lim waits for the frames that share samples with one."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.engine.convolutions import Convolution, Residual
from fastvoc.engine.parts import Memory, Part, Queue, Shapes, Without, reserve
from fastvoc.engine.transform import OverlapAdd
from fastvoc.models import GriffinLimNet

FEWEST_COLUMNS = 16
"""From 12 columns on, products were measured to be those of many to the bit (MKL, AMD EPYC family 26, 2026-11-20)."""


@dataclass(frozen=True)
class Frames:
    """Frames between two rounds."""

    spectrum: Tensor  # (B, bins, n), complex
    rebuilt: Tensor | None  # (B, bins, n), complex: what the round before heard in its wave
    magnitude: Tensor  # (B, bins, n)
    mel: Tensor  # (B, bands, n)


class Rounds:
    """`GriffinLimNet` in pieces: the network, then the rounds, each of which remembers a few frames."""

    def __init__(self, shapes: Shapes, generator: GriffinLimNet) -> None:
        config = generator.config
        self.generator = generator
        self.held = reserve(shapes, config.mel_bands, 0)
        self.begun = reserve(shapes, 1, 0)
        self.mel = Queue(shapes, config.mel_bands)
        slope = config.slope
        self.network: list[Part] = [
            Convolution(shapes, generator.stem),
            Convolution(shapes, generator.narrow, slope=slope),
            Residual(shapes, generator.residual),
            Convolution(shapes, generator.correction, slope=slope),
        ]
        rounds = config.iterations + config.revisions
        self.rounds = [Round(shapes, generator, first=n == 0, revises=n >= config.iterations) for n in range(rounds)]
        side = (config.fft_size - config.hop) // 2
        self.wave = Wave(shapes, config.fft_size, config.hop, ends=config.fft_size - side)
        self.without = Without(shapes, side)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, 1, m)."""
        config = self.generator.config
        dtype = rows.dtype
        rows = torch.cat([memory[self.held], rows], dim=-1)
        # fewer frames than overlap are a wave of its own kind, see `Wave`
        if not memory[self.begun].shape[-1] and rows.shape[-1] < config.fft_size // config.hop and not last:
            memory[self.held] = rows
            return rows.new_empty(rows.shape[0], 1, 0)
        memory[self.held] = rows[..., :0].clone()
        memory[self.begun] = rows.new_ones(rows.shape[0], 1, 1)
        frames = self._estimate(memory, rows, last)
        window = torch.hann_window(config.fft_size, device=rows.device, dtype=frames.magnitude.dtype)
        for part in self.rounds:
            frames = part(memory, frames, window, last)
        wave = self.wave(memory, frames.spectrum, window, last)
        return self.without(memory, wave, last).to(dtype)

    def _estimate(self, memory: Memory, mel: Tensor, last: bool) -> Frames:
        config = self.generator.config
        self.mel.put(memory, mel)
        rows = (mel - config.mel_mean) / config.mel_scale
        for part in self.network:
            rows = part(memory, rows, last)
        correction = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        mel = self.mel.take(memory, rows.shape[-1])
        prior = _towards(self.generator, mel, torch.ones_like(correction), config.updates[0])
        log_magnitude = prior.clamp(min=config.mel_floor).log() + correction
        estimate = log_magnitude.clamp(max=self.generator.loudest).exp()
        magnitude = _towards(self.generator, mel, estimate, config.updates[1])
        pulse = 1 - 2 * (torch.arange(self.generator.bins, device=mel.device) % 2)[:, None]
        return Frames(magnitude * pulse.to(magnitude.dtype.to_complex()), None, magnitude, mel)


class Round:
    """To the wave and back: one round of `fastvoc.audio.griffin_lim.retrieve_phase`."""

    def __init__(self, shapes: Shapes, generator: GriffinLimNet, *, first: bool, revises: bool) -> None:
        config = generator.config
        self.generator = generator
        self.revises = revises
        self.wave = Wave(shapes, config.fft_size, config.hop, ends=config.fft_size)
        self.heard = reserve(shapes, 1, 0)
        self.rebuilt = None if first else Queue(shapes, generator.bins)
        self.magnitude = Queue(shapes, generator.bins)
        self.mel = Queue(shapes, config.mel_bands)

    def __call__(self, memory: Memory, frames: Frames, window: Tensor, last: bool) -> Frames:
        """Frames to those of which all that overlap are known."""
        config = self.generator.config
        size, hop = config.fft_size, config.hop
        self.mel.put(memory, frames.mel)
        if not self.revises:
            self.magnitude.put(memory, frames.magnitude)
        if self.rebuilt is not None and frames.rebuilt is not None:
            self.rebuilt.put(memory, frames.rebuilt)
        heard = torch.cat([memory[self.heard], self.wave(memory, frames.spectrum, window, last)], dim=-1)
        count = max(0, (heard.shape[-1] - size) // hop + 1)
        memory[self.heard] = heard[..., count * hop :].clone()
        rebuilt = frames.spectrum[..., :0]
        if count:
            rebuilt = torch.fft.rfft(heard[:, 0].unfold(-1, size, hop) * window).mT
        mel = self.mel.take(memory, count)
        if self.revises:
            reached = (rebuilt.real.square() + rebuilt.imag.square()).clamp(min=1e-14).sqrt()
            magnitude = _towards(self.generator, mel, reached, 1)
        else:
            magnitude = self.magnitude.take(memory, count)
        ahead = rebuilt
        if self.rebuilt is not None:
            momentum = config.momentum / (1 + config.momentum)
            ahead = torch.sub(rebuilt, self.rebuilt.take(memory, count), alpha=momentum)
        power = ahead.real.square() + ahead.imag.square()
        return Frames(ahead * (magnitude * (power + 1e-16).rsqrt()), rebuilt, magnitude, mel)


class Wave:
    """Overlapping frames to the wave whose transforms are nearest to them."""

    def __init__(self, shapes: Shapes, size: int, hop: int, *, ends: int) -> None:
        self.overlap_add = OverlapAdd(shapes, size, hop, certain=hop, ends=ends, latest_first=True)
        self.begun = reserve(shapes, 1, 0)
        self.size = size
        self.hop = hop

    def __call__(self, memory: Memory, spectrum: Tensor, window: Tensor, last: bool) -> Tensor:
        """(B, bins, n) → (B, 1, m)."""
        count = spectrum.shape[-1]
        frames = window.new_empty(spectrum.shape[0], self.size, 0)
        if count:
            frames = (torch.fft.irfft(spectrum.mT, n=self.size) * window).mT
        wave, overlap = self.overlap_add(memory, frames, window, last)
        # The gain at the ends is bounded by the greatest overlap, which a wave of few frames does not reach.
        fresh = not memory[self.begun].shape[-1]
        most = min(count, self.size // self.hop) if last and fresh else self.size // self.hop
        if count:
            memory[self.begun] = window.new_ones(spectrum.shape[0], 1, 1)
        greatest = _greatest_overlap(self.size, self.hop, most, window.dtype, window.device)
        return wave * (1 / overlap.clamp(min=0.01 * greatest))


@functools.lru_cache(maxsize=64)
def _greatest_overlap(size: int, hop: int, frames: int, dtype: torch.dtype, device: torch.device) -> float:
    squared = torch.hann_window(size, dtype=dtype, device=device).square()[None, :, None].expand(-1, -1, frames)
    return float(F.fold(squared, (1, (frames - 1) * hop + size), (1, size), stride=(1, hop)).max())


def _towards(generator: GriffinLimNet, mel: Tensor, magnitude: Tensor, updates: int) -> Tensor:
    """Move magnitudes towards a mel as the generator does for all frames at once.

    Products with a matrix of few columns add in another order, and Griffin-Lim makes much of the smallest rounding.
    """
    count = mel.shape[-1]
    few = (0, max(0, FEWEST_COLUMNS - count))
    frames = F.pad(magnitude.mT, (0, 0, *few)).mT  # bins stay neighbours in memory
    return generator.towards(F.pad(mel, few), frames, updates)[..., :count]

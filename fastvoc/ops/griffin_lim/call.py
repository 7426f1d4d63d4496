"""A call of `griffin_lim`: what fits, what comes out, and its definition."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.ops import check

MOST_ROUNDS = 4096
"""Of each kind, and of updates."""


class GriffinLim(NamedTuple):
    """One call of `griffin_lim`, with its arguments, of which `before` and `after` are the updates."""

    x: Tensor
    mel: Tensor
    filters: Tensor
    hop: int
    before: int = 8
    after: int = 4
    iterations: int = 16
    revisions: int = 16
    momentum: float = 0.99
    floor: float = 1e-5

    @property
    def size(self) -> int:
        """Of the transform and of its window, in samples."""
        return 2 * (self.x.shape[1] - 1)

    @property
    def ceiling(self) -> float:
        """The window's sum: no wave in [−1, 1] has a larger magnitude."""
        return self.size / 2

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "griffin_lim"
        check.activation(where, "x", self.x)
        check.activation(where, "mel", self.mel)
        check.alike(where, self.x, mel=self.mel, filters=self.filters)
        (batch, bins, frames), bands = self.x.shape, self.mel.shape[1]
        check.shape(where, "mel", self.mel, (batch, bands, frames), "as many frames as x has")
        check.shape(where, "filters", self.filters, (bands, bins), "a row per band of mel, a column per channel of x")
        if bins < 2 or bands < 1 or frames < 1:
            raise ValueError(
                f"{where}: x has shape {tuple(self.x.shape)} and mel has {bands} bands; expected at least two "
                "channels, one band and one frame"
            )
        if not 1 <= self.hop <= self.size or self.size % self.hop or (self.size - self.hop) % 2:
            raise ValueError(
                f"{where}: hop is {self.hop}; expected an even part of the transform's {self.size} samples, which "
                f"{bins} channels are of"
            )
        for name in ("before", "after", "iterations", "revisions"):
            if not 0 <= getattr(self, name) <= MOST_ROUNDS:
                raise ValueError(f"{where}: {name} is {getattr(self, name)}; expected a number from 0 to {MOST_ROUNDS}")
        if not (0 <= self.momentum < 1 and 0 < self.floor < 1):
            raise ValueError(
                f"{where}: momentum is {self.momentum} and floor {self.floor}; expected a momentum from 0 to below 1, "
                "and a floor between 0 and 1"
            )

    def empty(self) -> Tensor:
        """Return a result without values."""
        batch, _, frames = self.x.shape
        return self.x.new_empty(batch, 1, frames * self.hop)

    def reference(self) -> Tensor:
        """Magnitudes, and the wave of their rounds."""
        if not len(self.x):
            return self.empty()
        return self.wave(self.magnitude()).to(self.x.dtype)

    def magnitude(self) -> Tensor:
        """Estimate magnitudes, (B, bins, T), in single precision at least."""
        x = at_least_single(self.x)
        prior = self.towards(torch.ones_like(x), self.before)
        # max(prior, floor) · e^x, and no more than a wave can have, so that the exponential stays finite
        logarithm = prior.clamp(min=self.floor).log() + x
        return self.towards(logarithm.clamp(max=math.log(self.ceiling)).exp(), self.after)

    def towards(self, magnitude: Tensor, updates: int) -> Tensor:
        """Move magnitudes, (B, bins, T), towards those that have the mel (Lee and Seung 2000, eq. 5, filters fixed)."""
        filters = self.filters.to(magnitude.dtype)
        target = self.mel.to(magnitude.dtype).clamp(max=math.log(self.ceiling)).exp()
        reach = filters.sum(dim=0)[:, None]  # Fᵀ 1
        for _ in range(updates):
            ratio = target / (filters @ magnitude).clamp(min=self.floor)  # target / max(F m, floor)
            # m · Fᵀ ratio / Fᵀ 1; where no filter reaches, the mel says nothing and the magnitude stays
            magnitude = magnitude * torch.where(reach > 0, filters.mT @ ratio / reach.clamp(min=1e-12), 1.0)
        return magnitude

    def wave(self, magnitude: Tensor) -> Tensor:
        """Find phases for magnitudes, (B, bins, T), and return their wave, (B, 1, T·hop)."""
        size, hop, ahead_by = self.size, self.hop, self.momentum / (1 + self.momentum)
        window = torch.hann_window(size, dtype=magnitude.dtype, device=magnitude.device)
        # frames before bins: each transform reads and writes neighbouring memory
        magnitude = magnitude.mT.contiguous()
        frames, bins = magnitude.shape[-2:]
        overlap = _overlap_add(window.square().expand(1, frames, -1), hop)
        # at the very ends, where one window alone fades to zero, a division by it would amplify errors without bound
        gain = 1 / overlap.clamp(min=(0.01 * overlap.max().double()).to(overlap.dtype))

        def inverse(spectrum: Tensor) -> Tensor:  # Griffin and Lim, eq. 6
            return _overlap_add(torch.fft.irfft(spectrum, n=size) * window, hop) * gain

        # a pulse in the middle of a frame turns by half a circle from bin to bin
        pulse = 1 - 2 * (torch.arange(bins, device=magnitude.device) % 2)
        spectrum = magnitude * pulse.to(magnitude.dtype.to_complex())
        before: Tensor | None = None
        for number in range(self.iterations + self.revisions):
            rebuilt = torch.fft.rfft(inverse(spectrum).unfold(-1, size, hop) * window)
            if number >= self.iterations:
                magnitude = self.towards(_squared(rebuilt).clamp(min=1e-14).sqrt().mT, 1).mT
            ahead = rebuilt if before is None else torch.sub(rebuilt, before, alpha=ahead_by)
            # below 1e-8 there is no sound, and dividing by less would make gradients overflow
            spectrum = ahead * (magnitude * (_squared(ahead) + 1e-16).rsqrt())
            before = rebuilt
        side = (size - hop) // 2
        return inverse(spectrum)[:, None, side : side + frames * hop]


def at_least_single(x: Tensor) -> Tensor:
    """Magnitudes span five decades and a transform needs single precision, whatever a network computes in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _squared(x: Tensor) -> Tensor:
    """Square the magnitudes: the root of `Tensor.abs` guards against overflow, which takes twice as long."""
    return x.real.square() + x.imag.square()


def _overlap_add(pieces: Tensor, hop: int) -> Tensor:
    """(B, frames, size) → (B, (frames − 1) · hop + size): every piece begins `hop` samples after the one before."""
    batch, frames, size = pieces.shape
    parts = size // hop
    hops = pieces.new_zeros(batch, frames + parts - 1, hop)
    for part in range(parts):
        hops[:, part : part + frames] += pieces[..., part * hop : (part + 1) * hop]
    return hops.flatten(1)

"""The call of `griffin_lim` in graphs: one native run where there is a kernel, and its rounds one by one elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.blocks.heads import Inverse, OverlapAdd, hann_window, overlap_of
from fastvoc.graph import INPUT, Composed, Graph, Native, Node, Pointwise, Window
from fastvoc.ops.griffin_lim.call import GriffinLim, at_least_single
from fastvoc.ops.griffin_lim.cpu import WINDOW, Packed, cannot_transform

FEWEST_COLUMNS = 16
"""From 12 columns on, products were measured to be those of many to the bit (MKL, AMD EPYC family 26, 2026-11-20)."""


class GriffinLimCall(Composed):
    """A call of `griffin_lim`, whose input is `x` and `mel`, one above the other: (B, bins + bands, T) → (B, 1, T·hop).

    As a graph it is made of the estimate and of its rounds, one by one.

    Parameters
    ----------
    filters : Tensor, shape (bands, bins)
    hop : int
    **settings
        The other fields of `fastvoc.ops.griffin_lim.call.GriffinLim`.
    """

    amplifies = True

    def __init__(self, filters: Tensor, hop: int, **settings: Any) -> None:
        self.filters, self.hop, self.settings = filters, hop, settings
        self.bins = filters.shape[1]
        self.size = 2 * (self.bins - 1)
        self.graph = self._rounds()

    def packed(self, dtype: torch.dtype) -> Node | None:
        """Return the same with tables and filters packed once; its rows are in float32 whatever the dtype."""
        return None if cannot_transform(self.size, self.hop) else PackedGriffinLim(self)

    def _call(self, rows: Tensor) -> GriffinLim:
        rows = at_least_single(rows)
        filters = self.filters.to(rows.dtype)
        return GriffinLim(rows[:, : self.bins], rows[:, self.bins :], filters, self.hop, **self.settings)

    def _rounds(self) -> Graph:
        size, hop, graph = self.size, self.hop, Graph()
        iterations = self.settings["iterations"]
        magnitude = graph.add(Pointwise(self._estimate), INPUT)
        spectrum = graph.add(Pointwise(self._pulse), magnitude)
        before: list[int] = []
        for number in range(iterations + self.settings["revisions"]):
            frames = graph.add(Inverse(size), spectrum)
            rebuilt = graph.add(_Spectra(size, hop), graph.add(_Wave(size, hop), frames))
            if number >= iterations:
                magnitude = graph.add(Pointwise(self._revised), rebuilt, INPUT)
            spectrum = graph.add(Pointwise(self._ahead), rebuilt, magnitude, *before)
            before = [rebuilt]
        graph.add(_Wave(size, hop, side=(size - hop) // 2), graph.add(Inverse(size), spectrum))
        return graph

    def _estimate(self, rows: Tensor) -> Tensor:
        """`magnitude` for some frames."""
        # products with a matrix of few columns add in another order, and rounds make much of the smallest rounding
        padded, count = _padded(rows), rows.shape[-1]
        return self._call(padded).magnitude()[..., :count]

    def _pulse(self, magnitude: Tensor) -> Tensor:
        """Give magnitudes their first phases: a pulse in the middle of a frame turns by half a circle per bin."""
        pulse = 1 - 2 * (torch.arange(self.bins, device=magnitude.device) % 2)[:, None]
        return magnitude * pulse.to(magnitude.dtype.to_complex())

    def _revised(self, rebuilt: Tensor, rows: Tensor) -> Tensor:
        reached = (rebuilt.real.square() + rebuilt.imag.square()).clamp(min=1e-14).sqrt()
        frames = _padded(reached.mT.contiguous().mT)  # bins stay neighbours in memory
        return self._call(_padded(rows)).towards(frames, 1)[..., : rows.shape[-1]]

    def _ahead(self, rebuilt: Tensor, magnitude: Tensor, before: Tensor | None = None) -> Tensor:
        momentum = self.settings["momentum"] / (1 + self.settings["momentum"])
        ahead = rebuilt if before is None else torch.sub(rebuilt, before, alpha=momentum)
        power = ahead.real.square() + ahead.imag.square()
        return ahead * (magnitude * (power + 1e-16).rsqrt())


def _padded(rows: Tensor) -> Tensor:
    few = max(0, FEWEST_COLUMNS - rows.shape[-1])
    return F.pad(rows.mT, (0, 0, 0, few)).mT if few else rows


class _Wave(OverlapAdd):
    """Frames to the wave whose transforms are nearest to them (Griffin and Lim 1984, eq. 6).

    Parameters
    ----------
    size, hop : int
    side : int, optional
        Samples to leave out at both ends.
    """

    def __init__(self, size: int, hop: int, *, side: int = 0) -> None:
        super().__init__(size, hop, start=side)

    def length(self, count: int) -> int:
        """Count the samples from the first frame to the last."""
        return (count - 1) * self.hop + self.size - 2 * self.start if count else 0

    def levelled(self, wave: Tensor, overlap: Tensor, window: Window) -> Tensor:
        """Bound the gain at the ends by the greatest overlap, which a wave of few frames does not reach."""
        most = self.size // self.hop
        most = min(window.known, most) if window.ended else most
        greatest = _greatest_overlap(self.size, self.hop, most, overlap.dtype, overlap.device)
        return wave * (1 / overlap.clamp(min=0.01 * greatest))


class _Spectra(Node):
    """A wave (B, 1, samples) to the spectra of its frames, (B, size // 2 + 1, n)."""

    def __init__(self, size: int, hop: int) -> None:
        self.size, self.hop = size, hop

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Return the samples of frames `first … last`."""
        return first * self.hop, last * self.hop + self.size - 1

    def length(self, count: int) -> int:
        """Count the frames of so many samples."""
        return max(0, (count - self.size) // self.hop + 1)

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Transform frames `first … last`."""
        (wave,) = window.rows
        hann = hann_window(self.size, wave.dtype, wave.device)
        spectra: Tensor = torch.fft.rfft(wave[:, 0].unfold(-1, self.size, self.hop) * hann)
        return spectra.mT


@functools.lru_cache(maxsize=64)
def _greatest_overlap(size: int, hop: int, frames: int, dtype: torch.dtype, device: torch.device) -> float:
    return float(overlap_of(size, hop, frames, True, dtype, device).max())


class PackedGriffinLim(Native):
    """The same by the kernel of the CPU, whose streams remember the latest frames of every round.

    Parameters
    ----------
    call : GriffinLimCall
        Of sizes that the kernel has.
    """

    def __init__(self, call: GriffinLimCall) -> None:
        self.graph = call.graph
        fields = [call.settings[name] for name in GriffinLim._fields[4:]]
        self._packed = Packed(call.filters, call.hop, *fields)

    def whole(self, rows: Tensor) -> Tensor:
        """Run on whole signals: (B, bins + bands, T) → (B, 1, T·hop)."""
        return self._packed.whole(rows.float())

    def start(self, batch: int) -> Tensor:
        """Return the state of streams of which nothing has come, as bytes: (batch, size)."""
        return self._packed.start(batch)

    def advance(self, state: Tensor, rows: Tensor, *, ended: bool, known: int) -> tuple[Tensor, Tensor]:
        """Return the state behind further rows, (B, bins + bands, n), and the samples that are certain with them."""
        state, rows = state.clone(), rows.float()
        windows = torch.split(rows, WINDOW, dim=-1) if rows.shape[-1] else (rows,)
        waves = [
            self._packed.advance(state, window, ended=ended and place == len(windows))
            for place, window in enumerate(windows, 1)
        ]
        return state, torch.cat(waves, dim=-1)

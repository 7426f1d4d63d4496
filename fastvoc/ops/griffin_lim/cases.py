"""Shapes of `griffin_lim`: a second of the vocoder that comes with the package, and edges for tests.

What a round divides by may be near zero, where frames that overlap cancel; a rounding becomes a phase there. So every
mel is of pulses, one for as many frames as overlap: nothing cancels, and what kernels owe the definition can be said in
roundings.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.griffin_lim.call import GriffinLim


def forward() -> list[Case[GriffinLim]]:
    """Return the cases of the operator."""
    return [
        _case("griffin-lim-net", 1, 80, 1024, 256, 86, rounds=(16, 16), model=True),
        # what a stream asks for behind what it remembers: its cost is that of all rounds for a few frames
        _case("griffin-lim-net, 8 frames", 1, 80, 1024, 256, 8, rounds=(16, 16), model=True),
        _case("no rounds", 2, 6, 64, 16, 19, rounds=(0, 0), model=False),
        _case("no revisions", 1, 6, 64, 16, 33, rounds=(3, 0), model=False),
        _case("revisions alone, no momentum", 1, 6, 64, 16, 33, rounds=(0, 3), momentum=0.0, model=False),
        _case("no updates", 1, 6, 64, 16, 21, rounds=(1, 1), updates=(0, 0), model=False),
        _case("fewer frames than overlap", 3, 5, 64, 16, 3, rounds=(1, 1), model=False),
        _case("one frame", 1, 5, 64, 16, 1, rounds=(2, 2), model=False),
        _case("no overlap", 2, 4, 32, 32, 20, rounds=(1, 1), model=False),
        _case("half overlap", 1, 4, 32, 16, 35, rounds=(1, 1), model=False),
        _case("much overlap", 1, 7, 48, 6, 40, rounds=(1, 1), model=False),
        _case("threes and fives, three frames overlap", 1, 9, 90, 30, 50, rounds=(1, 1), model=False),
        _case("odd hop", 1, 6, 50, 10, 20, rounds=(1, 1), model=False),
        _case("no batch", 0, 4, 16, 4, 9, rounds=(1, 1), model=False),
    ]


def _case(
    name: str,
    batch: int,
    bands: int,
    size: int,
    hop: int,
    frames: int,
    *,
    rounds: tuple[int, int],
    updates: tuple[int, int] = (8, 4),
    momentum: float = 0.99,
    model: bool,
) -> Case[GriffinLim]:
    bins, overlap = size // 2 + 1, size // hop

    def make(draw: Callable[..., Tensor], frames: int) -> GriffinLim:
        x, mel = draw(batch, bins, frames, scale=0.03), draw(batch, bands, frames, scale=0.3)
        pulses = torch.where(torch.arange(frames, device=mel.device) % overlap == 0, 1.0, -5.0).to(mel.dtype)
        return GriffinLim(x, mel + pulses, _triangles(draw, bands, bins), hop, *updates, *rounds, momentum)

    def flops(frames: int) -> int:
        # transforms as 2.5 n log2 n, some thirty for each bin of a round, filters that overlap by half
        transform = 2.5 * size * (size.bit_length() - 1)
        moves = 4 * bins * (sum(updates) + rounds[1])
        return int(batch * frames * (sum(rounds) * (2 * transform + 30 * bins) + transform + 2 * moves))

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=flops,
        elements=lambda frames: batch * frames * (bins + bands + hop),
        model=model,
    )


def _triangles(draw: Callable[..., Tensor], bands: int, bins: int) -> Tensor:
    """Return filters as a mel has them: triangles that overlap by half, and reach all bins but the outermost."""
    like = draw(bands, bins)
    edges = torch.linspace(0, bins - 1, bands + 2, dtype=torch.float64)
    bin_numbers = torch.arange(bins, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bin_numbers - left) / (centre - left), (right - bin_numbers) / (right - centre)
    return like.copy_(torch.minimum(rising, falling).clamp(min=0))

"""BigVGAN's parts: Snake between two low-pass filters, and the residual blocks and the head around it.

Lee et al. 2022, arXiv:2206.04658, §3.2 to §3.4; original: NVIDIA/BigVGAN 7d2b454, bigvgan.py and activations.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc import graph as graphs
from fastvoc import ops
from fastvoc.blocks.conv import Conv1d
from fastvoc.graph import Graph, Pointwise, foreign


class SmoothSnake(nn.Module):
    """Snake at twice the rate between two low-pass filters, so that what it adds does not fold back (aliasing).

    Parameters
    ----------
    channels : int
    divisor : bool
        Whether what the sine is divided by is learned apart from its frequency (SnakeBeta).
    logarithmic : bool
        Whether the parameters are logarithms.
    """

    def __init__(self, channels: int, *, divisor: bool, logarithmic: bool) -> None:
        super().__init__()
        self.logarithmic = logarithmic
        start = torch.zeros if logarithmic else torch.ones
        self.alpha = nn.Parameter(start(channels))
        self.beta = nn.Parameter(start(channels)) if divisor else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        return ops.smooth_snake(x, self.alpha, self.beta, logarithmic=self.logarithmic)

    def lower(self, graph: Graph, x: int) -> int:
        """Add the call of `smooth_snake` to a graph."""
        node = graphs.SmoothSnake(alpha=self.alpha, beta=self.beta, logarithmic=self.logarithmic)
        return graph.add(node, x)


class SmoothResidualBlocks(nn.Module):
    """The mean of residual blocks that run side by side over one input, with a `SmoothSnake` before each convolution.

    A unit adds to its input what its convolutions make of it; see `ResidualBlocks` for the form of HiFi-GAN's, which
    these have (AMPBlock1 with two convolutions in a unit, AMPBlock2 with one).

    Parameters
    ----------
    channels : int
    branches : sequence
        Per branch, per unit, per convolution: ``(kernel size, dilation)``.
    divisor, logarithmic : bool
        As in `SmoothSnake`.
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[Sequence[Sequence[tuple[int, int]]]],
        *,
        divisor: bool,
        logarithmic: bool,
    ) -> None:
        super().__init__()
        # branch → unit → convolutions
        self.branches = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(Conv1d(channels, channels, taps, dilation=dilation) for taps, dilation in unit)
                for unit in branch
            )
            for branch in branches
        )
        # branch → one for each convolution, in their order
        self.activations = nn.ModuleList(
            nn.ModuleList(
                SmoothSnake(channels, divisor=divisor, logarithmic=logarithmic) for unit in branch for _ in unit
            )
            for branch in branches
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        total: Tensor | None = None
        for units, activations in zip(*self._parts(), strict=True):
            y, active = x, iter(activations)
            for convs in units:
                inner = y
                for conv in convs[:-1]:
                    inner = conv(next(active)(inner))
                y = self._ends(convs[-1], next(active)(inner), y)
            total = y if total is None else total + y
        assert total is not None
        return total / len(self.branches)

    def lower(self, graph: Graph, x: int) -> int:
        """Add all to a graph; the last convolution of each branch adds the branches before, the very last divides."""
        total: int | None = None
        for number, (units, activations) in enumerate(zip(*self._parts(), strict=True)):
            y, active = x, iter(activations)
            for position, convs in enumerate(units):
                inner = y
                for conv in convs[:-1]:
                    inner = graph.lower(conv, graph.lower(next(active), inner))
                ends = position == len(units) - 1
                y = self._lower_end(
                    graph,
                    convs[-1],
                    graph.lower(next(active), inner),
                    y,
                    total if ends else None,
                    len(self.branches) if ends and number == len(self.branches) - 1 else 1,
                )
            total = y
        assert total is not None
        return total

    def _parts(self) -> tuple[Any, Any]:
        """Return branches and activations, of which lists of modules do not tell what they hold."""
        return self.branches, self.activations

    @staticmethod
    def _ends(conv: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        if foreign(conv) is None:
            return conv(x, residual=skip)  # type: ignore[no-any-return]
        return skip + conv(x)  # type: ignore[no-any-return]

    @staticmethod
    def _lower_end(graph: Graph, conv: nn.Module, x: int, skip: int, partial: int | None, divisor: int) -> int:
        added = [skip] if partial is None else [skip, partial]
        if foreign(conv) is None:
            return conv.lower(  # type: ignore[operator, no-any-return]
                graph, x, *added, residual=True, partial=partial is not None, divisor=float(divisor)
            )
        y = graph.lower(conv, x)
        for other in added:
            y = graph.add(Pointwise(torch.add), other, y)
        return y if divisor == 1 else graph.add(Pointwise(lambda x: x / divisor), y)


class SmoothHead(nn.Module):
    """`SmoothSnake`, convolution, and what keeps a wave within one.

    Parameters
    ----------
    channels : int
    final : {"tanh", "clamp"}
    divisor, logarithmic : bool
        As in `SmoothSnake`.
    """

    rate = 1

    def __init__(self, channels: int, *, final: str, divisor: bool, logarithmic: bool) -> None:
        super().__init__()
        self.final = final
        self.activation = SmoothSnake(channels, divisor=divisor, logarithmic=logarithmic)
        self.conv = Conv1d(channels, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T) in [−1, 1]."""
        x = self.activation(x)
        if self.final == "tanh":
            return self.conv(x, tanh=True)  # type: ignore[no-any-return]
        return self.limit(self.conv(x))

    def lower(self, graph: Graph, x: int) -> int:
        """Add the calls of `smooth_snake` and of `conv1d` to a graph."""
        x = graph.lower(self.activation, x)
        if self.final == "tanh":
            return graph.lower(self.conv, x, tanh=True)
        return graph.add(Pointwise(self.limit), graph.lower(self.conv, x))

    @staticmethod
    def limit(wave: Tensor) -> Tensor:
        """Cut what is beyond one."""
        return wave.clamp(-1, 1)

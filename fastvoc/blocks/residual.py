"""Residual blocks: MelGAN's stack, HiFi-GAN's two blocks and the mean of several (its MRF), as one module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks.conv import Conv1d
from fastvoc.graph import Graph, LeakyReLU, Pointwise, foreign


class ResidualBlocks(nn.Module):
    """The mean of residual blocks that run side by side over one input.

    A block is a chain of units; a unit adds to its input what a short chain of convolutions makes of it, each
    preceded by a leaky ReLU::

        x ─┬─ lrelu ─ conv(k, d) ─ lrelu ─ conv(k', 1) ─ + ─ …
           └──────────── identity or 1×1 ────────────────┘

    ======================  ========  =======================  ==========
    paper                   branches  convolutions of a unit   shortcut
    ======================  ========  =======================  ==========
    MelGAN                  1         (3, 3ʲ) (1, 1)           1×1
    HiFi-GAN, ResBlock1     k = 3,…   (k, d) (k, 1)            identity
    HiFi-GAN, ResBlock2     k = 3,…   (k, d)                   identity
    ======================  ========  =======================  ==========

    Parameters
    ----------
    channels : int
    branches : sequence
        Per branch, per unit, per convolution: ``(kernel size, dilation)``. All branches have the same form.
    slope : float
        Of the leaky ReLU.
    shortcut : bool
        Whether each unit adds a 1×1 convolution of its input instead of the input itself.
    padding_mode : {"zero", "reflect", "replicate"}
    causal : bool
    activate_first : bool
        Whether the first unit begins with a leaky ReLU (all do but the Keras tutorial's).
    """

    def __init__(
        self,
        channels: int,
        branches: Sequence[Sequence[Sequence[tuple[int, int]]]],
        *,
        slope: float,
        shortcut: bool = False,
        padding_mode: str = "zero",
        causal: bool = False,
        activate_first: bool = True,
    ) -> None:
        super().__init__()
        self.slope = slope
        self.shortcut = shortcut
        self.padding_mode = padding_mode
        self.causal = causal
        self.activate_first = activate_first
        self.convs_per_unit = len(branches[0][0])

        def conv(kernel_size: int, dilation: int) -> Conv1d:
            return Conv1d(
                channels,
                channels,
                kernel_size,
                dilation=dilation,
                padding_mode=padding_mode,
                causal=causal,
            )

        # branch → unit → convolutions, the 1×1 shortcut last
        self.branches = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList([*(conv(*taps) for taps in unit), *([conv(1, 1)] if shortcut else [])]) for unit in branch
            )
            for branch in branches
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        convs: list[Any] = [*self._elements()]
        if not all(map(self._fits, convs)):
            return self._one_by_one(x)
        return ops.residual(
            x,
            [conv.weight for conv in convs],
            [conv.bias for conv in convs],
            [conv.dilation for conv in convs],
            branches=len(self.branches),
            convs_per_unit=self.convs_per_unit,
            shortcut=self.shortcut,
            slope=self.slope,
            padding_mode=self.padding_mode,
            causal=self.causal,
            activate_first=self.activate_first,
        )

    def _one_by_one(self, x: Tensor) -> Tensor:
        """Do the same by calling each convolution, where others have wrapped or hooked one."""
        results = []
        for branch in self.branches:
            result = x
            units: list[list[nn.Module]] = [list(unit) for unit in branch]  # type: ignore[attr-defined]
            for position, convs in enumerate(units):
                skip = convs.pop()(result) if self.shortcut else result
                for number, conv in enumerate(convs):
                    active = self.activate_first or position > 0 or number > 0
                    result = conv(F.leaky_relu(result, self.slope) if active else result)
                result = result + skip
            results.append(result)
        total = results[0]
        for result in results[1:]:
            total = total + result
        return total / len(results)

    def _elements(self) -> Iterator[nn.Module]:
        """Yield what stands in the place of each convolution."""
        for branch in self.branches:
            for unit in branch:  # type: ignore[attr-defined]
                yield from unit

    def lower(self, graph: Graph, x: int) -> int:
        """Add every convolution to a graph; the last of each branch adds the branches before, the very last divides."""
        total: int | None = None
        for number, branch in enumerate(self.branches):
            y, units = x, [list(unit) for unit in branch]  # type: ignore[attr-defined]
            for position, convs in enumerate(units):
                skip = self._add(graph, convs.pop(), y) if self.shortcut else y
                for n, conv in enumerate(convs):
                    slope = self.slope if self.activate_first or position or n else 1.0
                    ends = n == len(convs) - 1
                    mean = ends and position == len(units) - 1
                    y = self._add(
                        graph,
                        conv,
                        y,
                        slope=slope,
                        residual=skip if ends else None,
                        partial=total if mean else None,
                        divisor=len(self.branches) if mean and number == len(self.branches) - 1 else 1,
                    )
            total = y
        return x if total is None else total

    def _add(
        self,
        graph: Graph,
        conv: nn.Module,
        x: int,
        *,
        slope: float = 1.0,
        residual: int | None = None,
        partial: int | None = None,
        divisor: int = 1,
    ) -> int:
        added = [n for n in (residual, partial) if n is not None]
        if foreign(conv) is None:
            return conv.lower(  # type: ignore[operator, no-any-return]
                graph,
                x,
                *added,
                slope=slope,
                residual=residual is not None,
                partial=partial is not None,
                divisor=float(divisor),
            )
        y = graph.lower(conv, x if slope == 1.0 else graph.add(LeakyReLU(slope), x))
        for other in added:
            y = graph.add(Pointwise(torch.add), other, y)
        return y if divisor == 1 else graph.add(Pointwise(lambda x: x / divisor), y)

    def _fits(self, conv: nn.Module) -> bool:
        """Whether a convolution does what its weights and the settings of all say, so that nobody has to call it."""
        return (
            isinstance(conv, Conv1d)
            and not (conv._forward_hooks or conv._forward_pre_hooks or "forward" in conv.__dict__)
            and not (conv._backward_hooks or conv._backward_pre_hooks)
            and type(conv).forward is Conv1d.forward
            and type(conv).__call__ is nn.Module.__call__
            and (conv.padding_mode, conv.causal) == (self.padding_mode, self.causal)
        )

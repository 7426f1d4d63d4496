"""Residual blocks: MelGAN's stack, HiFi-GAN's two blocks and the mean of several (its MRF), as one module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastvoc import ops
from fastvoc.blocks.conv import Conv1d


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
        convs = self._convs()
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

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Input samples that outputs `first … last` read: those of the branch that reaches farthest."""
        reaches = []
        per_branch = len(self._convs()) // len(self.branches)
        for start in range(0, len(self._convs()), per_branch):
            a, b = first, last
            for conv in self._convs()[start : start + per_branch]:
                a, b = conv.needs(a, b)
            reaches.append((a, b))
        return min(a for a, _ in reaches), max(b for _, b in reaches)

    def _convs(self) -> list[Conv1d]:
        return [module for module in self.modules() if isinstance(module, Conv1d)]

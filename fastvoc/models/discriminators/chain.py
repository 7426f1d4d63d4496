"""Chains of convolutions whose outputs are the feature maps of a discriminator."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops

Maps = list[Tensor]
"""Feature maps of a sub-discriminator, the score last."""


def chain(convs: nn.ModuleList, x: Tensor, paddings: Sequence[tuple[int, int]], slope: float) -> Maps:
    """Run convolutions along time, a leaky ReLU behind each but the last; their outputs are the feature maps.

    The modules only hold what learns: `fastvoc.ops` run them, channels-last. Weights may have further axes of size 1.
    """
    maps = []
    for conv, padding in zip(convs, paddings, strict=True):
        assert isinstance(conv, (nn.Conv1d, nn.Conv2d))
        weight = conv.weight.flatten(2)
        if conv is convs[-1]:
            x = ops.conv1d(x, weight, conv.bias, padding=padding)
        else:
            x = ops.strided_conv1d(
                x, weight, conv.bias, stride=conv.stride[0], padding=padding, groups=conv.groups, slope=slope
            )
        maps.append(x)
    return maps


class WaveChain(nn.Module):
    """A chain of 1-D convolutions over a wave, whose padding in front of the first one has a mode of its own."""

    def __init__(
        self, convs: Sequence[nn.Module], paddings: Sequence[tuple[int, int]], mode: str, slope: float
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.paddings = [(0, 0), *paddings[1:]]
        self.first_padding = paddings[0]
        self.mode = mode
        self.slope = slope

    def forward(self, wave: Tensor) -> Maps:
        """(B, 1, T) → the feature maps and the score."""
        # only the first padding reflects: the originals mirror the wave and zero-pad the features
        return chain(self.convs, F.pad(wave, self.first_padding, self.mode), self.paddings, self.slope)

"""The block of Vocos, ConvNeXt in one dimension, and the layer norm over channels that stands around a stack of them.

Liu et al. 2022, arXiv:2201.03545, §2; Siuzdak 2023, arXiv:2306.00814, §3.2; reference: gemelo-ai/vocos c859e3b,
vocos/modules.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.graph import Graph, Node, Pointwise, Window
from fastvoc.ops.convnext.cpu import Packed

EPS = 1e-6
"""Added to variances."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each frame.

    Parameters
    ----------
    channels : int
    conditions : int
        How many pairs of factors and offsets there are to choose from, such as one for each bandwidth of a codec
        (AdaLayerNorm of the original); 0 is a norm with a single pair.
    condition : int
        The number of the pair that is used.
    """

    def __init__(self, channels: int, *, conditions: int = 0, condition: int = 0) -> None:
        super().__init__()
        shape = (conditions, channels) if conditions else (channels,)
        self.condition = condition if conditions else None
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        weight, bias = (tensor.to(x.dtype) for tensor in self._affine())  # plans hand on single precision
        return F.layer_norm(x.mT, weight.shape, weight, bias, EPS).mT

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Return the factors and offsets that are used, each (C,)."""
        if self.condition is None:
            return self.weight, self.bias
        return self.weight[self.condition], self.bias[self.condition]

    def lower(self, graph: Graph, x: int) -> int:
        """Add the function of rows to a graph."""
        return graph.add(Pointwise(self.forward), x)


class ConvNext(nn.Module):
    """One call of `fastvoc.ops.convnext`: depthwise convolution, layer norm, product, GELU, product, scale, input.

    Its weights are its own rather than those of layers inside, because one operator reads them all.

    Parameters
    ----------
    channels, hidden : int
        Widths outside, and between the products.
    kernel_size : int
        Of the depthwise convolution, odd.
    scale : float
        What the layer scale begins with.
    conditions, condition : int
        Of the norm, as in `ChannelNorm`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        kernel_size: int = 7,
        scale: float = 1.0,
        conditions: int = 0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        norms = (conditions, channels) if conditions else (channels,)
        self.condition = condition if conditions else None
        self.depthwise = drawn(channels, 1, kernel_size)
        self.depthwise_bias = nn.Parameter(torch.zeros(channels))
        self.norm = nn.Parameter(torch.ones(norms))
        self.norm_bias = nn.Parameter(torch.zeros(norms))
        self.expand = drawn(hidden, channels)
        self.expand_bias = nn.Parameter(torch.zeros(hidden))
        self.contract = drawn(channels, hidden)
        self.contract_bias = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def weights(self) -> tuple[Tensor, ...]:
        """Return what `fastvoc.ops.convnext` takes beside its input, in its order."""
        norm: Tensor = self.norm
        norm_bias: Tensor = self.norm_bias
        if self.condition is not None:
            norm, norm_bias = norm[self.condition], norm_bias[self.condition]
        return (
            *(self.depthwise, self.depthwise_bias, norm, norm_bias),
            *(self.expand, self.expand_bias, self.contract, self.contract_bias, self.scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        weights = self.weights()
        side = weights[0].shape[-1] // 2
        return ops.convnext(x, *weights, padding=(side, side), eps=EPS)

    def lower(self, graph: Graph, x: int) -> int:
        """Add the call of `convnext` to a graph."""
        return graph.add(ConvNextCall(self.weights()), x)


class ConvNextCall(Node):
    """A call of `convnext` of which every row reads as many rows before as behind it.

    Parameters
    ----------
    weights : tuple of Tensor
        What `fastvoc.ops.convnext` takes beside its input.
    """

    def __init__(self, weights: tuple[Tensor, ...]) -> None:
        self.weights = weights
        self.side = weights[0].shape[-1] // 2

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` read."""
        return first - self.side, last + self.side

    def zeros(self, window: Window, first: int, last: int) -> tuple[int, int]:
        """Count the rows before and behind the signal that rows `first … last` read, which are zeros."""
        before, after = self.needs(first, last)
        return window.first - before, after + 1 - window.first - window.rows[0].shape[-1]

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`."""
        return ops.convnext(window.rows[0], *self.weights, padding=self.zeros(window, first, last), eps=EPS)

    def packed(self, dtype: torch.dtype) -> Node:
        """Return the same with weights packed once."""
        return PackedConvNextCall(self.weights, dtype)


class PackedConvNextCall(ConvNextCall):
    """The same by the kernel of the CPU, in float32 but for what is multiplied.

    Parameters
    ----------
    weights : tuple of Tensor
    dtype : torch.dtype
        What products multiply in, float32 or bfloat16.
    """

    def __init__(self, weights: tuple[Tensor, ...], dtype: torch.dtype) -> None:
        super().__init__(weights)
        self._packed = Packed(weights, EPS, dtype=dtype)

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`."""
        return self._packed(window.rows[0].float(), *self.zeros(window, first, last))


def drawn(*shape: int) -> nn.Parameter:
    """Return a weight as the original begins with it: normal of 0.02, cut off at ±2."""
    weight = nn.Parameter(torch.empty(shape))
    nn.init.trunc_normal_(weight, std=0.02)
    return weight

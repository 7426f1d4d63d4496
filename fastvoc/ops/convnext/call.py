"""A call of `convnext`: what fits, what comes out, and its definition."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import check
from fastvoc.ops.layout import empty_channels_last, to_channels_last


class Convnext(NamedTuple):
    """One call of `convnext`, with its arguments, of which `left` and `right` are the padding."""

    x: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    norm: Tensor
    norm_bias: Tensor
    expand: Tensor
    expand_bias: Tensor
    contract: Tensor
    contract_bias: Tensor
    scale: Tensor
    left: int = 0
    right: int = 0
    eps: float = 1e-6

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the result: batch, channels, frames."""
        batch, channels, frames = self.x.shape
        return batch, channels, frames + self.left + self.right - self.taps + 1

    @property
    def taps(self) -> int:
        """Of the depthwise convolution."""
        return self.depthwise.shape[2]

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "convnext"
        check.activation(where, "x", self.x)
        check.alike(where, self.x, **self.weights())
        channels = self.x.shape[1]
        if self.depthwise.dim() != 3 or self.depthwise.shape[:2] != (channels, 1) or self.depthwise.shape[2] % 2 == 0:
            raise ValueError(
                f"{where}: depthwise has shape {tuple(self.depthwise.shape)} but x has {channels} channels; "
                f"expected ({channels}, 1, K) with an odd number of taps K"
            )
        if self.expand.dim() != 2 or self.expand.shape[1] != channels:
            raise ValueError(
                f"{where}: expand has shape {tuple(self.expand.shape)} but x has {channels} channels; "
                f"expected (hidden, {channels})"
            )
        hidden = self.expand.shape[0]
        check.not_empty(where, "expand", self.expand)
        check.shape(where, "expand_bias", self.expand_bias, (hidden,), "one number per row of expand")
        check.shape(where, "contract", self.contract, (channels, hidden), "what expand has, turned")
        for name in ("depthwise_bias", "norm", "norm_bias", "contract_bias", "scale"):
            check.shape(where, name, getattr(self, name), (channels,), "one number per channel of x")
        check.frames(where, "padding", self.left, self.right)
        if not 0 < self.eps < 1:
            raise ValueError(f"{where}: eps is {self.eps}; expected a number between 0 and 1")
        if self.shape[2] < 1:
            frames = self.x.shape[2] + self.left + self.right
            raise ValueError(f"{where}: x has {frames} frames with padding; needs at least {self.taps}")

    def weights(self) -> dict[str, Tensor]:
        """Return all tensors but the input, by name."""
        return dict(zip(self._fields[1:10], self[1:10], strict=True))

    def empty(self) -> Tensor:
        """Return a result without values, channels-last."""
        _, channels, frames = self.shape
        return empty_channels_last(self.x, channels, frames)

    def own(self) -> Tensor:
        """Return the frame under the middle tap of each that is made; a view, unless zeros are around it."""
        before, behind = self.taps // 2 - self.left, self.taps // 2 - self.right
        padded = F.pad(self.x, (max(0, -before), max(0, -behind))) if before < 0 or behind < 0 else self.x
        return padded[..., max(0, before) :][..., : self.shape[2]]

    def reference(self) -> Tensor:
        """Depthwise convolution, layer norm, product, GELU, product, scale, and the input added."""
        channels, middle = self.x.shape[1], self.taps // 2
        padded = F.pad(self.x, (self.left, self.right))
        # z[c, t] = b[c] + sum_k w[c, k] x[c, t + k - left]
        z = F.conv1d(padded, self.depthwise, self.depthwise_bias, groups=channels).mT
        # n = (z - mean z) / sqrt(var z + eps) · norm + norm_bias, over the channels of each frame
        n = F.layer_norm(z, (channels,), self.norm, self.norm_bias, self.eps)
        h = F.gelu(F.linear(n, self.expand, self.expand_bias))  # h = g Φ(g), g = E n + e
        y = self.scale * F.linear(h, self.contract, self.contract_bias)  # y = γ (C h + c)
        frames = self.shape[2]
        return to_channels_last(padded[..., middle : middle + frames] + y.mT)  # the frame under the middle tap


def folded(
    norm: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the product that does what a product and the affine parts around it do, in float64.

    ``scale · (weight (n · norm + norm_bias) + bias)`` is ``weight' n + bias'``.

    Parameters
    ----------
    norm, norm_bias : Tensor, shape (in,)
    weight : Tensor, shape (out, in)
    bias : Tensor, shape (out,)
    scale : Tensor, shape (out,), optional
    """
    wide = weight.double()
    turned, shifted = wide * norm.double(), bias.double() + wide @ norm_bias.double()
    if scale is None:
        return turned, shifted
    return torch.mul(turned, scale.double()[:, None]), shifted * scale.double()

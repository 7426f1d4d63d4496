"""A call of `gated`: what fits, what comes out, and its definition, which is composed of `conv1d`."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.gate import gate
from fastvoc.ops.layout import empty_like_layout


class Gated(NamedTuple):
    """One call of `gated`, with its arguments, of which `left` and `right` are the padding."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    condition: Tensor | None
    out_weight: Tensor
    out_bias: Tensor | None
    skip: Tensor | None
    skip_channels: int
    dilation: int = 1
    left: int = 0
    right: int = 0
    causal: bool = False
    sigmoid_first: bool = False
    scale: float = 1.0

    @property
    def frames(self) -> int:
        """Frames of the results."""
        return self.x.shape[2] + self.left + self.right - self.dilation * (self.weight.shape[2] - 1)

    @property
    def residual_channels(self) -> int:
        """Channels of the first result: those of `x`, or none."""
        return self.out_weight.shape[0] - self.skip_channels

    @property
    def before(self) -> int:
        """Frames that a convolution reads before its own."""
        return around(self.weight.shape[2], self.dilation, causal=self.causal)[0]

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        x, weight, out_weight = self.x, self.weight, self.out_weight
        check.activation("gated", "x", x)
        others = {"bias": self.bias, "condition": self.condition, "out_bias": self.out_bias, "skip": self.skip}
        check.alike("gated", x, weight=weight, out_weight=out_weight, **others)
        batch, channels, frames = x.shape
        if weight.dim() != 3 or weight.shape[1] != channels or weight.shape[0] % 2:
            raise ValueError(
                f"gated: weight has shape {tuple(weight.shape)} but x has {channels} channels; "
                f"expected (2 G, {channels}, K)"
            )
        check.not_empty("gated", "weight", weight)
        gates, taps = weight.shape[0] // 2, weight.shape[2]
        if out_weight.dim() != 3 or out_weight.shape[1:] != (gates, 1):
            raise ValueError(
                f"gated: out_weight has shape {tuple(out_weight.shape)}; expected (channels, {gates}, 1), half of the "
                "rows of weight"
            )
        if self.skip_channels < 0 or self.residual_channels not in (0, channels):
            raise ValueError(
                f"gated: out_weight has {out_weight.shape[0]} rows and skip_channels is {self.skip_channels}; the "
                f"others must be {channels}, as many as x has channels, or none"
            )
        check.not_empty("gated", "out_weight", out_weight)
        check.step("gated", "dilation", self.dilation)
        check.frames("gated", "padding", self.left, self.right)
        if not math.isfinite(self.scale):
            raise ValueError(f"gated: scale is {self.scale}; expected a finite number")
        most = around(taps, self.dilation, causal=self.causal)
        if self.left > most[0] or self.right > most[1]:
            raise ValueError(
                f"gated: padding is {(self.left, self.right)}; expected at most {most}, which keep the length"
            )
        if self.frames < 1:
            needed = sum(most) + 1 - self.left - self.right
            raise ValueError(
                f"gated: x has {frames} frames; needs at least {needed} for {taps} taps at dilation {self.dilation}"
            )
        check.shape("gated", "bias", self.bias, (2 * gates,), "one number per row of weight")
        check.shape("gated", "out_bias", self.out_bias, (out_weight.shape[0],), "one number per row of out_weight")
        check.shape("gated", "condition", self.condition, (batch, 2 * gates, self.frames), "a row per row of weight")
        check.shape("gated", "skip", self.skip, (batch, self.skip_channels, self.frames), "as the second result")

    def empty(self) -> tuple[Tensor, Tensor]:
        """Return results without values, in the memory order of `x`."""
        sizes = self.residual_channels, self.skip_channels
        residual, skip = (empty_like_layout(self.x, channels, self.frames) for channels in sizes)
        return residual, skip

    def reference(self) -> tuple[Tensor, Tensor]:
        """Convolve, add the condition, gate, and make the residual and the skip connection of it."""
        x, out_bias, channels = self.x, self.out_bias, self.residual_channels
        a = conv1d(  # a[o, t] = b[o] + sum_ik w[o, i, k] x[i, t - left + k d] + c[o, t], with zeros beyond the ends
            x,
            self.weight,
            self.bias,
            dilation=self.dilation,
            padding=(self.left, self.right),
            residual=self.condition,
        )
        g = gate(
            a, sigmoid_first=self.sigmoid_first
        )  # g = tanh(first half) sigmoid(second half), or the other way round
        residual, skip = self.empty()
        if channels:
            own = x[..., self.before - self.left :][..., : self.frames]  # x[t]
            bias = None if out_bias is None else out_bias[:channels]
            residual = conv1d(g, self.out_weight[:channels], bias, residual=own)  # r = x + (v g + u)
            residual = residual if self.scale == 1.0 else residual * self.scale  # r <- s r
        if self.skip_channels:
            bias = None if out_bias is None else out_bias[channels:]
            skip = conv1d(g, self.out_weight[channels:], bias, residual=self.skip)  # k = v' g + u' + k before
        return residual, skip


def around(taps: int, dilation: int, *, causal: bool) -> tuple[int, int]:
    """Return the frames before and behind its own that a convolution reads, which padding lays around a signal."""
    span = (taps - 1) * dilation
    return (span, 0) if causal else (span // 2, span - span // 2)

"""A call of `strided_conv1d`, and of its gradient: what fits, what comes out, and their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import check
from fastvoc.ops.layout import empty_channels_last, gradients_like, in_layout_of, to_channels_last
from fastvoc.ops.op import run


class StridedConv1d(NamedTuple):
    """One call of `strided_conv1d`, with its arguments, of which `left` and `right` are the padding."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    stride: int = 1
    left: int = 0
    right: int = 0
    groups: int = 1
    slope: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the result: batch, channels, frames."""
        (batch, _, frames), (out, _, taps) = self.x.shape, self.weight.shape
        return batch, out, (frames + self.left + self.right - taps) // self.stride + 1

    @property
    def settings(self) -> tuple[int, int, int, int, float]:
        """All that is no tensor."""
        return self[3:]

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        shape = self.fit("strided_conv1d", bias=self.bias)
        check.shape("strided_conv1d", "bias", self.bias, shape[1:2], "one number per output channel")

    def fit(self, where: str, **others: Tensor | None) -> tuple[int, int, int]:
        """Return the shape of the result; refuse, in the name of `where`, what does not fit, or tensors unlike `x`."""
        check.activation(where, "x", self.x)
        check.alike(where, self.x, weight=self.weight, **others)
        channels, weight, groups = self.x.shape[1], self.weight, self.groups
        if groups < 1 or channels % groups or weight.dim() != 3 or weight.shape[1] * groups != channels:
            raise ValueError(
                f"{where}: weight has shape {tuple(weight.shape)} but x has {channels} channels in {groups} groups; "
                f"expected (C_out, {channels} / groups, K)"
            )
        check.not_empty(where, "weight", weight)
        out, _, taps = weight.shape
        if out % groups:
            raise ValueError(f"{where}: weight has {out} output channels; expected a multiple of {groups} groups")
        check.step(where, "stride", self.stride)
        check.frames(where, "padding", self.left, self.right)
        check.positive_slope(where, self.slope)
        frames = self.x.shape[2] + self.left + self.right
        if frames < taps:
            raise ValueError(f"{where}: x has {frames} frames with padding; needs at least {taps}")
        return self.shape

    def empty(self) -> Tensor:
        """Return a result without values, channels-last."""
        _, channels, frames = self.shape
        return empty_channels_last(self.x, channels, frames)

    def reference(self) -> Tensor:
        """Pad with zeros, convolve with a stride in groups, add bias, leaky ReLU."""
        # z[o, t] = b[o] + sum_i sum_k w[o, i, k] x[first(o) + i, t stride + k - left], with first(o) that of o's group
        z = F.conv1d(self.padded(), self.weight, self.bias, self.stride, groups=self.groups)
        y = z if self.slope == 1.0 else F.leaky_relu(z, self.slope)  # y = max(z, 0) + slope min(z, 0)
        return to_channels_last(y)

    def padded(self) -> Tensor:
        """Return the padded input."""
        return F.pad(self.x, (self.left, self.right))

    def saved(self, result: Tensor) -> tuple[StridedConv1d, Tensor]:
        """Return what the gradient is made of."""
        return StridedConv1d(self.x, self.weight, None, *self.settings), result

    def differentiate(self, result: Tensor, grad: Tensor, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Return the gradients of x, weight and bias."""
        wanted = needs[0], needs[1], needs[2]
        return tuple(run(StridedConv1dBackward(grad, self.x, self.weight, result, *self.settings, wanted)))


class StridedConv1dBackward(NamedTuple):
    """One call of the gradient of `strided_conv1d`, from that of its result `y`, whose signs tell the slope."""

    grad: Tensor
    x: Tensor
    weight: Tensor
    y: Tensor
    stride: int
    left: int
    right: int
    groups: int
    slope: float
    needs: tuple[bool, bool, bool]

    @property
    def forward(self) -> StridedConv1d:
        """The call that is differentiated, without its bias."""
        return StridedConv1d(self.x, self.weight, None, *self[4:-1])

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "strided_conv1d_backward"
        shape = self.forward.fit(where, grad=self.grad, y=self.y)
        check.shape(where, "grad", self.grad, shape, "as the result")
        check.shape(where, "y", self.y, shape, "as the result, which it is")
        check.needs(where, self.needs)

    def empty(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of x, weight and bias without values; those that are not needed have no elements."""
        return gradients_like(self.x, self.weight, self.weight.shape[0], self.needs)

    def reference(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias; empty where not needed."""
        grad, x, needs = self.grad, self.x, self.needs
        # dz = dy (1 if y > 0 else slope): a positive slope keeps the sign
        g = grad if self.slope == 1.0 else torch.ops.aten.leaky_relu_backward(grad, self.y, self.slope, True)
        grad_padded, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            g,
            self.forward.padded(),
            self.weight,
            [self.weight.shape[0]],
            [self.stride],
            [0],
            [1],
            False,
            [0],
            self.groups,
            needs,
        )  # dx[i, t stride + k - left] += w[o, i, k] dz[o, t]; dw[o, i, k] = sum_t dz[o, t] x[i, t stride + k - left]
        return (
            in_layout_of(x, grad_padded[..., self.left : self.left + x.shape[2]]) if needs[0] else x.new_empty(0),
            grad_weight.contiguous() if needs[1] else x.new_empty(0),
            grad_bias if needs[2] else x.new_empty(0),
        )

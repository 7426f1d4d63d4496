"""A call of `upsample`, and of its gradient: what fits, what comes out, and their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import check
from fastvoc.ops.layout import empty_like_layout, gradients_like, in_layout_of
from fastvoc.ops.op import run


class Upsample(NamedTuple):
    """One call of `upsample`, with its arguments, of which `left` and `right` are the crop."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    stride: int
    left: int = 0
    right: int = 0
    slope: float = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the result: batch, channels, frames."""
        (batch, _, frames), (_, out, taps) = self.x.shape, self.weight.shape
        return batch, out, (frames - 1) * self.stride + taps - self.left - self.right

    @property
    def settings(self) -> tuple[int, int, int, float]:
        """All that is no tensor."""
        return self[3:]

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        shape = self.fit("upsample", bias=self.bias)
        check.shape("upsample", "bias", self.bias, shape[1:2], "one number per output channel")

    def fit(self, where: str, **others: Tensor | None) -> tuple[int, int, int]:
        """Return the shape of the result; refuse, in the name of `where`, what does not fit, or tensors unlike `x`."""
        check.activation(where, "x", self.x)
        check.alike(where, self.x, weight=self.weight, **others)
        (_, channels, frames), weight, crop = self.x.shape, self.weight, (self.left, self.right)
        if weight.dim() != 3 or weight.shape[0] != channels:
            raise ValueError(
                f"{where}: weight has shape {tuple(weight.shape)} but x has {channels} channels; "
                f"expected ({channels}, C_out, K)"
            )
        check.not_empty(where, "weight", weight)
        check.step(where, "stride", self.stride)
        check.frames(where, "crop", *crop)
        check.slope(where, self.slope)
        shape = self.shape
        if frames < 1 or shape[2] < 1:
            full = max(shape[2] + sum(crop), 0)
            raise ValueError(
                f"{where}: x has {frames} frames, which become {full} before the crop of {crop}; "
                "expected at least one frame to be left"
            )
        return shape

    def empty(self) -> Tensor:
        """Return a result without values, in the memory order of `x`."""
        _, channels, frames = self.shape
        return empty_like_layout(self.x, channels, frames)

    def reference(self) -> Tensor:
        """Leaky ReLU, transposed convolution, crop, add bias."""
        u, left, right = self.activated(), self.left, self.right  # u = max(x, 0) + slope min(x, 0)
        # y[o, t] = b[o] + sum_i sum_s w[i, o, t + left - s stride] u[i, s], t in [0, (T - 1) stride + K - left - right)
        if 0 <= left - right < self.stride:
            y = F.conv_transpose1d(
                u, self.weight, self.bias, stride=self.stride, padding=left, output_padding=left - right
            )
        else:
            y = F.conv_transpose1d(u, self.weight, self.bias, stride=self.stride)
            y = y[..., left : y.shape[-1] - right]
        return in_layout_of(self.x, y)

    def activated(self) -> Tensor:
        """Return the input behind its leaky ReLU."""
        return self.x if self.slope == 1.0 else F.leaky_relu(self.x, self.slope)

    def saved(self, result: Tensor) -> tuple[Upsample, None]:
        """Return what the gradient is made of."""
        return Upsample(self.x, self.weight, None, *self.settings), None

    def differentiate(self, result: None, grad: Tensor, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Return the gradients of x, weight and bias."""
        wanted = needs[0], needs[1], needs[2]
        return tuple(run(UpsampleBackward(grad, self.x, self.weight, *self.settings, wanted)))


class UpsampleBackward(NamedTuple):
    """One call of the gradient of `upsample`, from that of its result."""

    grad: Tensor
    x: Tensor
    weight: Tensor
    stride: int
    left: int
    right: int
    slope: float
    needs: tuple[bool, bool, bool]

    @property
    def forward(self) -> Upsample:
        """The call that is differentiated, without its bias."""
        return Upsample(self.x, self.weight, None, *self[3:-1])

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "upsample_backward"
        shape = self.forward.fit(where, grad=self.grad)
        check.shape(where, "grad", self.grad, shape, "as the result")
        check.needs(where, self.needs)

    def empty(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of x, weight and bias without values; those that are not needed have no elements."""
        return gradients_like(self.x, self.weight, self.weight.shape[1], self.needs)

    def reference(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias; empty where not needed."""
        grad, x, weight, stride, left, right, slope, needs = self
        if not 0 <= left - right < stride:
            grad, left, right = F.pad(grad, (left, right)), 0, 0
        grad_u, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            self.forward.activated(),
            weight,
            [weight.shape[1]],
            [stride],
            [left],
            [1],
            True,
            [left - right],
            1,
            needs,
        )  # dw[i, o, k] = sum_s u[i, s] g[o, s stride + k - left]; db[o] = sum_t g[o, t]
        if needs[0] and slope != 1.0:  # du[i, s] = sum_ok w[i, o, k] g[o, s stride + k - left]
            grad_u = torch.ops.aten.leaky_relu_backward(grad_u, x, slope, False)  # dx = du (1 if x > 0 else slope)
        return (
            in_layout_of(x, grad_u) if needs[0] else x.new_empty(0),
            grad_weight.contiguous() if needs[1] else x.new_empty(0),
            grad_bias if needs[2] else x.new_empty(0),
        )

"""A call of `conv1d`, and of its gradient: what fits, what comes out, and their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import check
from fastvoc.ops.layout import empty_like_layout, gradients_like, in_layout_of
from fastvoc.ops.op import run


class Conv1d(NamedTuple):
    """One call of `conv1d`, with its arguments, of which `left` and `right` are the padding."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    residual: Tensor | None = None
    dilation: int = 1
    left: int = 0
    right: int = 0
    padding_mode: str = "zero"
    slope: float = 1.0
    tanh: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the result: batch, channels, frames."""
        (batch, _, frames), (out, _, taps) = self.x.shape, self.weight.shape
        return batch, out, frames + self.left + self.right - self.dilation * (taps - 1)

    @property
    def settings(self) -> tuple[int, int, int, str, float, bool]:
        """All that is no tensor."""
        return self[4:]

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        shape = self.fit("conv1d", bias=self.bias, residual=self.residual)
        check.shape("conv1d", "bias", self.bias, shape[1:2], "one number per output channel")
        check.shape("conv1d", "residual", self.residual, shape, "as the result")

    def fit(self, where: str, **others: Tensor | None) -> tuple[int, int, int]:
        """Return the shape of the result; refuse, in the name of `where`, what does not fit, or tensors unlike `x`."""
        check.activation(where, "x", self.x)
        check.alike(where, self.x, weight=self.weight, **others)
        (_, channels, frames), weight, most = self.x.shape, self.weight, max(self.left, self.right)
        if weight.dim() != 3 or weight.shape[1] != channels:
            raise ValueError(
                f"{where}: weight has shape {tuple(weight.shape)} but x has {channels} channels; "
                f"expected (C_out, {channels}, K)"
            )
        check.not_empty(where, "weight", weight)
        check.padding_mode(where, self.padding_mode)
        check.step(where, "dilation", self.dilation)
        check.frames(where, "padding", self.left, self.right)
        check.slope(where, self.slope)
        check.reach(where, frames, most, self.padding_mode)
        shape = self.shape
        if shape[2] < 1:
            taps, padded = weight.shape[2], frames + self.left + self.right
            raise ValueError(
                f"{where}: x has {frames} frames, {padded} with padding; "
                f"needs at least {padded - shape[2] + 1} for {taps} taps at dilation {self.dilation}"
            )
        return shape

    def empty(self) -> Tensor:
        """Return a result without values, in the memory order of `x`."""
        _, channels, frames = self.shape
        return empty_like_layout(self.x, channels, frames)

    def reference(self) -> Tensor:
        """Leaky ReLU, pad, convolve, add bias, add residual, tanh."""
        a, native = self.padded()  # a[t] = u[t - left], u = max(x, 0) + slope min(x, 0)
        y = F.conv1d(a, self.weight, self.bias, dilation=self.dilation, padding=native)
        # y[o, t] = b[o] + sum_ik w[o, i, k] a[i, t + k d]
        y = y if self.residual is None else y + self.residual  # y <- y + r
        y = torch.tanh(y) if self.tanh else y  # y <- tanh y
        return in_layout_of(self.x, y)

    def activated(self) -> Tensor:
        """Return the input behind its leaky ReLU."""
        return self.x if self.slope == 1.0 else F.leaky_relu(self.x, self.slope)

    def padded(self) -> tuple[Tensor, int]:
        """Return the activated and padded input, and the zeros on each side that are left to the convolution itself."""
        u, sides = self.activated(), (self.left, self.right)
        if self.padding_mode == "zero":
            return (u, self.left) if self.left == self.right else (F.pad(u, sides), 0)
        return (F.pad(u, sides, self.padding_mode) if any(sides) else u), 0

    def saved(self, result: Tensor) -> tuple[Conv1d, Tensor | None]:
        """Return what the gradient is made of."""
        return Conv1d(self.x, self.weight, None, None, *self.settings), result if self.tanh else None

    def differentiate(self, result: Tensor | None, grad: Tensor, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Return the gradients of x, weight, bias and residual."""
        if result is not None:
            grad = grad * (1 - result * result)
        wanted = needs[0], needs[1], needs[2]
        if not any(wanted):
            return None, None, None, grad
        return *run(Conv1dBackward(grad, self.x, self.weight, *self.settings[:-1], wanted)), grad


class Conv1dBackward(NamedTuple):
    """One call of the gradient of `conv1d`, from the gradient of the convolution's result, before residual and tanh."""

    grad: Tensor
    x: Tensor
    weight: Tensor
    dilation: int
    left: int
    right: int
    padding_mode: str
    slope: float
    needs: tuple[bool, bool, bool]

    @property
    def forward(self) -> Conv1d:
        """The call that is differentiated, without what its gradient does not depend on."""
        return Conv1d(self.x, self.weight, None, None, *self[3:-1])

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "conv1d_backward"
        shape = self.forward.fit(where, grad=self.grad)
        check.shape(where, "grad", self.grad, shape, "as the result of the convolution")
        check.needs(where, self.needs)

    def empty(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of x, weight and bias without values; those that are not needed have no elements."""
        return gradients_like(self.x, self.weight, self.weight.shape[0], self.needs)

    def reference(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias; empty where not needed."""
        forward, x, weight, needs = self.forward, self.x, self.weight, self.needs
        a, native = forward.padded()
        # dw[o, i, k] = sum_t g[o, t] a[i, t + k d]; db[o] = sum_t g[o, t]; da[i, s] = sum_ok w[o, i, k] g[o, s - k d]
        grad_a, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            self.grad, a, weight, [weight.shape[0]], [1], [native], [self.dilation], False, [0], 1, needs
        )
        grad_x = x.new_empty(0)
        if needs[0]:
            if native == 0 and (self.left or self.right):
                grad_a = self._unpadded(grad_a)  # each copy gives back to its source
            if self.slope != 1.0:
                grad_a = torch.ops.aten.leaky_relu_backward(grad_a, x, self.slope, False)
                # dx = du (1 if x > 0 else slope)
            grad_x = in_layout_of(x, grad_a)
        return (
            grad_x,
            grad_weight.contiguous() if needs[1] else x.new_empty(0),
            grad_bias if needs[2] else x.new_empty(0),
        )

    def _unpadded(self, grad: Tensor) -> Tensor:
        """Apply the adjoint of padding."""
        if self.padding_mode == "zero":
            return grad[..., self.left : self.left + self.x.shape[-1]]
        given_back: Tensor = _ADJOINTS[self.padding_mode](grad, self.forward.activated(), [self.left, self.right])
        return given_back


_ADJOINTS = {
    "reflect": torch.ops.aten.reflection_pad1d_backward,
    "replicate": torch.ops.aten.replication_pad1d_backward,
}

"""The C++ kernels of `smooth_snake` and of its gradient."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.ops.cpu import convolution, gradients, refuses
from fastvoc.ops.layout import empty_like_layout
from fastvoc.ops.op import Prepared
from fastvoc.ops.smooth_snake.call import SMALLEST, SmoothSnake, SmoothSnakeBackward, in_double


def prepare(call: SmoothSnake) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return refuses(call.x) or partial(_run, call)


def prepare_backward(call: SmoothSnakeBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return refuses(call.x) or partial(_run_backward, call)


def packed(call: SmoothSnake | SmoothSnakeBackward) -> Tensor:
    """Return, per channel, the frequency and what multiplies the sine, as the library takes them.

    Returns
    -------
    Tensor, shape (C, 1, 2), float32
    """
    frequency, divisor = in_double(call).forward.scales()
    return torch.cat([frequency, 1 / (divisor + SMALLEST)], dim=1)[:, None].float()


class _Call(NamedTuple):
    """A call as the library describes it: of a weight with two numbers for each of as many groups as channels."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    groups: int
    slope: float

    @property
    def settings(self) -> tuple[int, float]:
        return self[3:]

    def empty(self) -> Tensor:
        return empty_like_layout(self.x, *self.x.shape[1:])


class _Backward(NamedTuple):
    grad: Tensor
    x: Tensor
    weight: Tensor
    needs: tuple[bool, bool, bool]

    @property
    def forward(self) -> _Call:
        return _described(self.x, self.weight)

    def empty(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.forward.empty() if self.needs[0] else self.x.new_empty(0),
            torch.empty_like(self.weight) if self.needs[1] else self.x.new_empty(0),
            self.x.new_empty(0),
        )


def _described(x: Tensor, weight: Tensor) -> _Call:
    return _Call(x, weight, None, x.shape[1], 1.0)


def _run(call: SmoothSnake) -> Tensor:
    return convolution("smooth_snake", _described(call.x, packed(call)))


def _run_backward(call: SmoothSnakeBackward) -> tuple[Tensor, Tensor, Tensor]:
    weight, needs = packed(call), call.needs
    needs = needs[0], needs[1], needs[2] and call.beta is not None
    inner = _Backward(call.grad, call.x, weight, (needs[0], needs[1] or needs[2], False))
    grad_x, grad_weight, _ = gradients("smooth_snake", inner)
    none = call.x.new_empty(0)
    if not inner.needs[1]:
        return grad_x, none, none
    # of amount = 1 / (b + 1e-9): db = -damount amount²
    frequency, amount = grad_weight[:, 0, 0].double(), grad_weight[:, 0, 1].double()
    alpha, beta = in_double(call).of_parameters(frequency, -amount * weight[:, 0, 1].double().square())
    return grad_x, alpha if needs[1] else none, beta if needs[2] else none

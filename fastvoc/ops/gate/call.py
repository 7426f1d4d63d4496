"""A call of `gate`, and of its gradient: what lies between the convolutions of a gated layer while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.layout import empty_like_layout, in_layout_of
from fastvoc.ops.op import run


class Gate(NamedTuple):
    """One call of `gate`: the hyperbolic tangent of one half of the channels times the sigmoid of the other.

    Its gradient needs `x`, and computes both functions again.
    """

    x: Tensor
    sigmoid_first: bool = False

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        self.fit("gate")

    def fit(self, where: str, **others: Tensor) -> None:
        """Refuse, in the name of `where`, what does not fit, or tensors unlike `x`."""
        check.activation(where, "x", self.x)
        check.alike(where, self.x, **others)
        if self.x.shape[1] % 2:
            raise ValueError(f"{where}: x has {self.x.shape[1]} channels; expected an even number, two for each gate")

    def empty(self) -> Tensor:
        """Return a result without values, in the memory order of `x`."""
        return empty_like_layout(self.x, self.x.shape[1] // 2, self.x.shape[2])

    def reference(self) -> Tensor:
        """Gate."""
        tanh, sigmoid = self.halves()
        return in_layout_of(self.x, tanh * sigmoid)  # g = tanh(a) sigmoid(b)

    def halves(self) -> tuple[Tensor, Tensor]:
        """Return the hyperbolic tangent and the sigmoid."""
        first, second = self.x.chunk(2, dim=1)
        return (second.tanh(), first.sigmoid()) if self.sigmoid_first else (first.tanh(), second.sigmoid())

    def saved(self, result: Tensor) -> tuple[Gate, None]:
        """Return what the gradient is made of."""
        return self, None

    def differentiate(self, result: None, grad: Tensor, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Return the gradient of x."""
        return (run(GateBackward(grad, self.x, self.sigmoid_first)),)


class GateBackward(NamedTuple):
    """One call of the gradient of `gate`."""

    grad: Tensor
    x: Tensor
    sigmoid_first: bool = False

    @property
    def forward(self) -> Gate:
        """The call that is differentiated."""
        return Gate(self.x, self.sigmoid_first)

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        self.forward.fit("gate_backward", grad=self.grad)
        batch, channels, frames = self.x.shape
        check.shape("gate_backward", "grad", self.grad, (batch, channels // 2, frames), "as the result")

    def empty(self) -> Tensor:
        """Return a gradient without values, in the memory order of `x`."""
        return empty_like_layout(self.x, *self.x.shape[1:])

    def reference(self) -> Tensor:
        """Gradient of x."""
        tanh, sigmoid = self.forward.halves()
        a = torch.ops.aten.tanh_backward(self.grad * sigmoid, tanh)  # da = dg sigmoid(b) (1 - tanh² a)
        b = torch.ops.aten.sigmoid_backward(self.grad * tanh, sigmoid)  # db = dg tanh(a) sigmoid(b) (1 - sigmoid(b))
        return in_layout_of(self.x, torch.cat([b, a] if self.sigmoid_first else [a, b], dim=1))

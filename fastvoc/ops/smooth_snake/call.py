"""A call of `smooth_snake`, and of its gradient: what fits, what comes out, and their definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops import check
from fastvoc.ops.layout import empty_like_layout, in_layout_of
from fastvoc.ops.op import run

REACH = 5
"""Frames before and behind a frame that its result depends on."""

HALF = (
    *(0.002028966449896242, 0.00938946394406788, -0.02554346406529466),
    *(-0.05765737547536495, 0.1285726090813288, 0.4432098000653667),
)
FILTER = HALF + HALF[::-1]
"""A sinc of a quarter of the rate under a Kaiser window (β from 51 dB and a transition of 0.3), of sum 1: up and down.

It is computed in float64; published files hold it in float32, and BigVGAN's code makes it anew.
"""

SMALLEST = 1e-9
"""What is added to what divides."""


class SmoothSnake(NamedTuple):
    """One call of `smooth_snake`, with its arguments."""

    x: Tensor
    alpha: Tensor
    beta: Tensor | None = None
    logarithmic: bool = True

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        self.fit("smooth_snake")

    def fit(self, where: str, **others: Tensor | None) -> None:
        """Refuse, in the name of `where`, what does not fit, or tensors unlike `x`."""
        check.activation(where, "x", self.x)
        check.alike(where, self.x, alpha=self.alpha, beta=self.beta, **others)
        channels = self.x.shape[1]
        for name, tensor in (("alpha", self.alpha), ("beta", self.beta)):
            check.shape(where, name, tensor, (channels,), "one number per channel")
        if channels == 0 or self.x.shape[2] == 0:
            raise ValueError(
                f"{where}: x has shape {tuple(self.x.shape)}; expected at least one channel and one frame, which is "
                "repeated beyond the ends"
            )

    def empty(self) -> Tensor:
        """Return a result without values, in the memory order of `x`."""
        return empty_like_layout(self.x, *self.x.shape[1:])

    def reference(self) -> Tensor:
        """Double the rate, apply Snake, halve the rate."""
        x = widened(self.x)
        even, odd = doubled(x)
        even, odd = self.snake(even), self.snake(odd)
        return in_layout_of(self.x, halved(even, odd).to(self.x.dtype))

    def scales(self) -> tuple[Tensor, Tensor]:
        """Return, per channel, the frequency in the sine and what the sine is divided by, each (C, 1)."""
        a = widened(self.alpha)
        b = a if self.beta is None else widened(self.beta)
        return (a.exp()[:, None], b.exp()[:, None]) if self.logarithmic else (a[:, None], b[:, None])

    def snake(self, u: Tensor) -> Tensor:
        """Return s = u + sin²(a u) / (b + 1e-9)."""
        a, b = self.scales()
        return u + (a * u).sin().square() / (b + SMALLEST)

    def saved(self, result: Tensor) -> tuple[SmoothSnake, None]:
        """Return what the gradient is made of."""
        return self, None

    def differentiate(self, result: None, grad: Tensor, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Return the gradients of x, alpha and beta."""
        wanted = needs[0], needs[1], needs[2] and self.beta is not None
        return tuple(run(SmoothSnakeBackward(grad, self.x, self.alpha, self.beta, self.logarithmic, wanted)))


class SmoothSnakeBackward(NamedTuple):
    """One call of the gradient of `smooth_snake`."""

    grad: Tensor
    x: Tensor
    alpha: Tensor
    beta: Tensor | None
    logarithmic: bool
    needs: tuple[bool, bool, bool]

    @property
    def forward(self) -> SmoothSnake:
        """The call that is differentiated."""
        return SmoothSnake(self.x, self.alpha, self.beta, self.logarithmic)

    @property
    def of_the_parameters(self) -> bool:
        """Whether the gradient of alpha or beta is wanted."""
        return self.needs[1] or (self.needs[2] and self.beta is not None)

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        where = "smooth_snake_backward"
        self.forward.fit(where, grad=self.grad)
        check.shape(where, "grad", self.grad, tuple(self.x.shape), "as the result")
        check.needs(where, self.needs, "x, alpha and beta")

    def empty(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradients of x, alpha and beta without values; those that are not needed have no elements."""
        x, channels = self.x, self.x.shape[1]
        return (
            empty_like_layout(x, *x.shape[1:]) if self.needs[0] else x.new_empty(0),
            x.new_empty(channels) if self.needs[1] else x.new_empty(0),
            x.new_empty(channels) if self.needs[2] and self.beta is not None else x.new_empty(0),
        )

    def reference(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, alpha and beta; empty where not needed."""
        (a, b), dtype = self.forward.scales(), self.x.dtype
        signals = zip(doubled(widened(self.x)), halved_backward(widened(self.grad)), strict=True)
        inputs, frequencies, divisors = [], [], []
        for u, g in signals:
            # ds = du (1 + a sin(2 a u) / b);  ds/da = u sin(2 a u) / b;  ds/db = -sin²(a u) / b²
            slope = (2 * a * u).sin() / (b + SMALLEST)
            inputs.append(g * (1 + a * slope))
            frequencies.append((g * u * slope).sum((0, 2)))
            divisors.append(-(g * ((a * u).sin() / (b + SMALLEST)).square()).sum((0, 2)))
        made = self.of_parameters(frequencies[0] + frequencies[1], divisors[0] + divisors[1])
        none = self.x.new_empty(0)
        return (
            in_layout_of(self.x, doubled_backward(*inputs).to(dtype)) if self.needs[0] else none,
            made[0] if self.needs[1] else none,
            made[1] if self.needs[2] and self.beta is not None else none,
        )

    def of_sums(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of alpha and beta from what a kernel has summed over parts of time.

        Parameters
        ----------
        sums : Tensor, shape (2, B, parts, C)
            Of g u sin(2 a u), and of g sin²(a u).
        """
        frequency, divisor = sums.sum((1, 2), dtype=torch.float64)
        exact = in_double(self)
        amount = 1 / (exact.forward.scales()[1][:, 0] + SMALLEST)
        frequency, divisor = exact.of_parameters(frequency * amount, -divisor * amount.square())
        none, dtype = self.x.new_empty(0), self.x.dtype
        return (
            frequency.to(dtype) if self.needs[1] else none,
            divisor.to(dtype) if self.needs[2] and self.beta is not None else none,
        )

    def of_parameters(self, frequency: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of alpha and beta from those of the frequency and of the divisor, (C,)."""
        if self.logarithmic:  # of e^α: dα = da e^α
            a, b = self.forward.scales()
            frequency, divisor = frequency * a[:, 0], divisor * b[:, 0]
        both = frequency + divisor if self.beta is None else frequency
        return both.to(self.x.dtype), divisor.to(self.x.dtype)


def in_double(call: SmoothSnake | SmoothSnakeBackward) -> SmoothSnakeBackward:
    """Return a call whose parameters are in double precision, in which so few numbers cost nothing."""
    beta = None if call.beta is None else call.beta.double()
    return SmoothSnakeBackward(call.x, call.x, call.alpha.double(), beta, call.logarithmic, (True, True, True))


def widened(x: Tensor) -> Tensor:
    """Return the values in single precision at least, in which everything is computed and rounded once at the end."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def doubled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even and the odd frames of x at twice the rate, its ends repeated."""
    # u[2n] = 2 sum_j f[2j] x[n - 3 + j];  u[2n + 1] = 2 sum_j f[2j + 1] x[n - 2 + j]
    padded = F.pad(x, (3, 3), "replicate")
    return 2 * _filtered(padded[..., :-1], FILTER[0::2]), 2 * _filtered(padded[..., 1:], FILTER[1::2])


def halved(even: Tensor, odd: Tensor) -> Tensor:
    """Return s at half the rate, its ends repeated, from its even and odd frames."""
    # y[t] = sum_j f[j] s[2t - 5 + j]: even frames meet odd taps; s begins with an even and ends with an odd one
    first, last = even[..., :1], odd[..., -1:]
    evens = torch.cat([first, first, even, last, last, last], dim=-1)
    odds = torch.cat([first, first, first, odd, last, last], dim=-1)
    return _filtered(evens, FILTER[1::2]) + _filtered(odds, FILTER[0::2])


def doubled_backward(even: Tensor, odd: Tensor) -> Tensor:
    """Return the gradient of x from those of the even and the odd frames of `doubled`."""
    padded = F.pad(_spread(even, FILTER[0::2]), (0, 1)) + F.pad(_spread(odd, FILTER[1::2]), (1, 0))
    return 2 * _with_ends(padded[..., 3:-3], padded[..., :3], padded[..., -3:])


def halved_backward(grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the even and the odd frames of s from that of `halved`."""
    evens, odds = _spread(grad, FILTER[1::2]), _spread(grad, FILTER[0::2])
    first = torch.cat([evens[..., :2], odds[..., :3]], dim=-1)
    last = torch.cat([evens[..., -3:], odds[..., -2:]], dim=-1)
    none = grad[..., :0]
    return _with_ends(evens[..., 2:-3], first, none), _with_ends(odds[..., 3:-2], none, last)


def _filtered(x: Tensor, taps: Sequence[float]) -> Tensor:
    frames = x.shape[-1] - len(taps) + 1
    total = taps[0] * x[..., :frames]
    for place, tap in enumerate(taps[1:], start=1):
        total = total + tap * x[..., place : place + frames]
    return total


def _spread(grad: Tensor, taps: Sequence[float]) -> Tensor:
    """Return the gradient of what `_filtered` read."""
    side = len(taps) - 1
    return _filtered(F.pad(grad, (side, side)), taps[::-1])


def _with_ends(grad: Tensor, before: Tensor, behind: Tensor) -> Tensor:
    """Add to the first and the last frame what their copies beyond the ends receive."""
    frames = grad.shape[-1]
    grad = grad + F.pad(before.sum(-1, keepdim=True), (0, frames - 1))
    return grad + F.pad(behind.sum(-1, keepdim=True), (frames - 1, 0))

"""A call of `residual`: what fits, what comes out, and its definition, which is composed of `conv1d`."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.layout import empty_like_layout


class Residual(NamedTuple):
    """One call of `residual`, with its arguments."""

    x: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    dilations: list[int]
    branches: int = 1
    convs_per_unit: int = 2
    shortcut: bool = False
    slope: float = 0.1
    padding_mode: str = "zero"
    causal: bool = False
    activate_first: bool = True

    @property
    def per_unit(self) -> int:
        """Weights of a unit."""
        return self.convs_per_unit + self.shortcut

    @property
    def per_branch(self) -> int:
        """Weights of a branch."""
        return len(self.weights) // self.branches

    def padding(self, number: int) -> tuple[int, int]:
        """Return how many frames the convolution with that weight reads before and behind its own."""
        span = (self.weights[number].shape[-1] - 1) * self.dilations[number]
        return (span, 0) if self.causal else (span // 2, span - span // 2)

    def slope_before(self, number: int) -> float:
        """Return the slope of the leaky ReLU before the convolution with that weight."""
        return 1.0 if number % self.per_branch == 0 and not self.activate_first else self.slope

    def check(self) -> None:
        """Refuse a call whose arguments do not fit."""
        x, weights, biases, dilations, branches, convs_per_unit, shortcut, slope, padding_mode, *_ = self
        check.activation("residual", "x", x)
        per_unit = self.per_unit
        if convs_per_unit < 1 or branches < 1 or not weights or len(weights) % (branches * per_unit):
            raise ValueError(
                f"residual: there are {len(weights)} weights; expected a multiple of "
                f"{branches} branches times {per_unit} weights per unit"
            )
        if len(biases) != len(weights) or len(dilations) != len(weights):
            raise ValueError(
                f"residual: there are {len(weights)} weights, {len(biases)} biases and {len(dilations)} dilations; "
                "expected as many of each"
            )
        check.padding_mode("residual", padding_mode)
        check.slope("residual", slope)
        channels, frames = x.shape[1:]
        if frames < 1:
            raise ValueError("residual: x has 0 frames; needs at least 1")
        check.all_alike("residual", x, "weights", weights)
        check.all_alike("residual", x, "biases", biases)
        for n, (weight, bias, dilation) in enumerate(zip(weights, biases, dilations, strict=True)):
            taps = 1 if shortcut and n % per_unit == convs_per_unit else weight.shape[-1] if weight.dim() else 1
            if weight.shape != (channels, channels, taps) or bias.shape != (channels,):
                check.shape(
                    "residual", f"weights[{n}]", weight, (channels, channels, taps), "(channels, channels, taps)"
                )
                check.shape("residual", f"biases[{n}]", bias, (channels,), "one number per channel")
            if channels * taps == 0 or not 1 <= dilation <= check.MOST_STEP:
                check.not_empty("residual", f"weights[{n}]", weight)
                check.step("residual", f"dilations[{n}]", dilation)
            check.reach("residual", frames, max(self.padding(n)), padding_mode)

    def empty(self) -> Tensor:
        """Return a result without values, in the memory order of `x`."""
        return empty_like_layout(self.x, self.x.shape[1], self.x.shape[2])

    def reference(self) -> Tensor:
        """Run residual blocks side by side over one input and return their mean."""
        weights, biases = self.weights, self.biases
        total: Tensor | None = None
        for start in range(0, len(weights), self.per_branch):
            y = self.x
            for unit in range(start, start + self.per_branch, self.per_unit):
                last = unit + self.convs_per_unit - 1
                skip = conv1d(y, weights[last + 1], biases[last + 1]) if self.shortcut else y
                # s = y, or a 1x1 convolution of it
                z = y
                for n in range(unit, last + 1):
                    z = conv1d(  # z <- w_n * pad(lrelu(z)) + b_n; the last one of a unit adds s
                        z,
                        weights[n],
                        biases[n],
                        dilation=self.dilations[n],
                        padding=self.padding(n),
                        padding_mode=self.padding_mode,
                        slope=self.slope_before(n),
                        residual=skip if n == last else None,
                    )
                y = z
            total = y if total is None else total + y
        if total is None:
            raise ValueError("residual: there are no weights; expected at least one unit per branch")
        return total / self.branches if self.branches > 1 else total  # mean over branches

"""The definition of `residual`, composed of `conv1d`."""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops.conv1d import conv1d


def residual(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    dilations: list[int],
    branches: int,
    convs_per_unit: int,
    shortcut: bool,
    slope: float,
    padding_mode: str,
    causal: bool,
    activate_first: bool,
) -> Tensor:
    """Run residual blocks side by side over one input and return their mean."""
    per_unit = convs_per_unit + shortcut
    per_branch = len(weights) // branches
    total: Tensor | None = None
    for start in range(0, len(weights), per_branch):
        y = x
        for unit in range(start, start + per_branch, per_unit):
            last = unit + convs_per_unit - 1
            skip = (
                conv1d(y, weights[last + 1], biases[last + 1]) if shortcut else y
            )  # s = y, or a 1x1 convolution of it
            z = y
            for n in range(unit, last + 1):
                span = (weights[n].shape[-1] - 1) * dilations[n]
                z = conv1d(  # z <- w_n * pad(lrelu(z)) + b_n; the last one of a unit adds s
                    z,
                    weights[n],
                    biases[n],
                    dilation=dilations[n],
                    padding=(span, 0) if causal else (span // 2, span - span // 2),
                    padding_mode=padding_mode,
                    slope=1.0 if n == start and not activate_first else slope,
                    residual=skip if n == last else None,
                )
            y = z
        total = y if total is None else total + y
    if total is None:
        raise ValueError("residual: there are no weights; expected at least one unit per branch")
    return total / branches if branches > 1 else total  # mean over branches

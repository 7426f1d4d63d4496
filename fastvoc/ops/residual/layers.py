"""`residual` as the layers of a network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastvoc.ops._network import NOTHING, Layer


def add_residual(
    layers: list[Layer],
    x: int,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    dilations: Sequence[int],
    branches: int,
    convs_per_unit: int,
    shortcut: bool,
    slope: float,
    padding_mode: str,
    causal: bool,
    activate_first: bool,
) -> int:
    """Add residual blocks over the result of layer `x`, and return the number of the layer that makes their mean."""

    def add(
        n: int, source: int, *, slope: float, residual: int = NOTHING, partial: int = NOTHING, divisor: int = 1
    ) -> int:
        span = (weights[n].shape[-1] - 1) * dilations[n]
        layers.append(
            Layer(
                kind="conv1d",
                input=source,
                weight=weights[n],
                bias=biases[n],
                padding=(span, 0) if causal else (span // 2, span - span // 2),
                padding_mode=padding_mode,
                dilation=dilations[n],
                slope=slope,
                residual=residual,
                partial=partial,
                divisor=float(divisor),
            )
        )
        return len(layers) - 1

    per_unit, per_branch = convs_per_unit + shortcut, len(weights) // branches
    total = NOTHING
    for start in range(0, len(weights), per_branch):
        y = x
        for unit in range(start, start + per_branch, per_unit):
            last = unit + convs_per_unit - 1
            skip = add(last + 1, y, slope=1.0) if shortcut else y
            ends = unit + per_unit == start + per_branch
            z = y
            for n in range(unit, last + 1):
                z = add(
                    n,
                    z,
                    slope=1.0 if n == start and not activate_first else slope,
                    residual=skip if n == last else NOTHING,
                    partial=total if n == last and ends else NOTHING,
                    divisor=branches if n == last and ends and start + per_branch == len(weights) else 1,
                )
            y = z
        total = y
    return total

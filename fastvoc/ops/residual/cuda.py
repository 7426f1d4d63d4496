"""`residual` on a GPU: a network with a layer for each convolution."""

from __future__ import annotations

from fastvoc.ops.cuda import operator
from fastvoc.ops.network import INPUT, NOTHING, Layer
from fastvoc.ops.op import Prepared
from fastvoc.ops.residual.call import Residual


def prepare(call: Residual) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return operator.prepare(call, _layers, _operands)


def _operands(call: Residual) -> operator.Operands:
    return operator.Operands([(layer.weight, layer.bias) for layer in _layers(call)], call.x)


def _layers(call: Residual) -> list[Layer]:
    """List a layer for each convolution; the last makes the mean of the branches."""
    layers: list[Layer] = []

    def add(
        n: int, source: int, *, slope: float, residual: int = NOTHING, partial: int = NOTHING, divisor: int = 1
    ) -> int:
        layers.append(
            Layer(
                kind="conv1d",
                input=source,
                weight=call.weights[n],
                bias=call.biases[n],
                padding=call.padding(n),
                padding_mode=call.padding_mode,
                dilation=call.dilations[n],
                slope=slope,
                residual=residual,
                partial=partial,
                divisor=float(divisor),
            )
        )
        return len(layers) - 1

    per_unit, per_branch = call.per_unit, call.per_branch
    total = NOTHING
    for start in range(0, len(call.weights), per_branch):
        y = INPUT
        for unit in range(start, start + per_branch, per_unit):
            last = unit + call.convs_per_unit - 1
            skip = add(last + 1, y, slope=1.0) if call.shortcut else y
            ends = unit + per_unit == start + per_branch
            z = y
            for n in range(unit, last + 1):
                z = add(
                    n,
                    z,
                    slope=1.0 if n == start and not call.activate_first else call.slope,
                    residual=skip if n == last else NOTHING,
                    partial=total if n == last and ends else NOTHING,
                    divisor=call.branches if n == last and ends and start + per_branch == len(call.weights) else 1,
                )
            y = z
        total = y
    return layers

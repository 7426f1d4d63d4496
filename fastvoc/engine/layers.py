"""The layers that a generator is made of, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks import CausalUpsample, Conv1d, PqmfHead, ResidualBlocks, Upsample, WaveHead
from fastvoc.models.generator import TrunkGenerator

INPUT, NOTHING = -1, -2


class Steps(NamedTuple):
    """The values of an 8-bit signal: scale · (q − zero_point), q = 0 … 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer of a network reads, does and adds; results are named by the number of their layer."""

    kind: str
    input: int
    weight: Tensor
    bias: Tensor | None
    padding: tuple[int, int]
    padding_mode: str = "zero"
    dilation: int = 1
    stride: int = 1
    slope: float = 1.0
    residual: int = NOTHING
    partial: int = NOTHING
    divisor: float = 1.0
    slope_after: float = 1.0
    tanh: bool = False
    int8: Steps | None = None


def layers_of(generator: TrunkGenerator) -> list[Layer]:
    """List the layers of a generator, up to the wave, or to the features that an inverse transform begins with."""
    layers: list[Layer] = []
    trunk, head = generator.trunk, generator.head
    x = _add_conv(layers, trunk.stem, INPUT)
    for up, residual in zip(trunk.up, trunk.residual, strict=True):
        x = _add_upsample(layers, up, x, slope=trunk.slope, slope_after=trunk.slope_after)
        x = _add_residual(layers, residual, x)  # type: ignore[arg-type]
    if isinstance(head, WaveHead):
        x = _add_conv(layers, head.conv, x, slope=head.slope, tanh=True)
        if isinstance(head, PqmfHead):
            _add(
                layers,
                kind="upsample",
                input=x,
                weight=head.filters,
                bias=None,
                padding=head.crop,
                stride=head.rate,
            )
    return layers


def operands(layers: list[Layer], x: Tensor) -> Iterator[Tensor]:
    """Run layers one by one: (B, bands, T) → for each, what it multiplies, its input behind the leaky ReLU."""
    results = {INPUT: x}
    for number, layer in enumerate(layers):
        operand = F.leaky_relu(results[layer.input], layer.slope)
        yield operand
        y = _convolved(layer, operand)
        if layer.residual != NOTHING:
            y = y + results[layer.residual]
        if layer.partial != NOTHING:
            y = results[layer.partial] + y
        y = F.leaky_relu(y / layer.divisor, layer.slope_after)
        results[number] = y.tanh() if layer.tanh else y
        needed = {n for after in layers[number + 1 :] for n in (after.input, after.residual, after.partial)}
        results = {n: result for n, result in results.items() if n in needed}


def _convolved(layer: Layer, x: Tensor) -> Tensor:
    if layer.kind == "conv1d":
        return ops.conv1d(
            x,
            layer.weight,
            layer.bias,
            dilation=layer.dilation,
            padding=layer.padding,
            padding_mode=layer.padding_mode,
        )
    left, right = layer.padding
    if layer.padding_mode == "replicate":
        x, left = F.pad(x, (1, 0), "replicate"), left + layer.stride
    return ops.upsample(x, layer.weight, layer.bias, stride=layer.stride, crop=(left, right))


def _add(layers: list[Layer], **values: Any) -> int:
    layers.append(Layer(**values))
    return len(layers) - 1


def _add_conv(layers: list[Layer], conv: Conv1d, source: int, **values: Any) -> int:
    return _add(
        layers,
        kind="conv1d",
        input=source,
        weight=conv.weight,
        bias=conv.bias,
        padding=conv.padding,
        padding_mode=conv.padding_mode,
        dilation=conv.dilation,
        **values,
    )


def _add_upsample(layers: list[Layer], up: Any, source: int, **values: Any) -> int:
    common = {"kind": "upsample", "input": source, "weight": up.weight, "bias": up.bias, "stride": up.rate}
    if isinstance(up, CausalUpsample):
        # the row that it repeats in front, and crops again
        left, right = up.crop[0] - up.rate, up.crop[1]
        return _add(layers, **common, padding=(left, right), padding_mode="replicate", **values)
    if type(up) is not Upsample:
        raise TypeError(f"Plan: {type(up).__name__} has no native form")
    return _add(layers, **common, padding=up.crop, **values)


def _add_residual(layers: list[Layer], blocks: ResidualBlocks, x: int) -> int:
    total = NOTHING
    for number, branch in enumerate(blocks.branches):
        y = x
        units = [list(unit) for unit in branch]  # type: ignore[attr-defined]
        for n, unit in enumerate(units):
            skip = _add_conv(layers, unit.pop(), y) if blocks.shortcut else y
            z = y
            for m, conv in enumerate(unit):
                bare = n == m == 0 and not blocks.activate_first
                last = m == len(unit) - 1
                ends = last and n == len(units) - 1
                z = _add_conv(
                    layers,
                    conv,
                    z,
                    slope=1.0 if bare else blocks.slope,
                    residual=skip if last else NOTHING,
                    partial=total if ends else NOTHING,
                    divisor=float(len(blocks.branches)) if ends and number == len(blocks.branches) - 1 else 1.0,
                )
            y = z
        total = y
    return total

"""The layers that a generator is made of, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks import CausalUpsample, Conv1d, IstftHead, PqmfHead, ResidualBlocks, Upsample, WaveHead
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops._network import INPUT, NOTHING, Layer
from fastvoc.ops.residual.layers import add_residual


def no_layers(generator: Generator) -> str | None:
    """Return why a generator is no list of layers, as a sentence, or None if it is."""
    if not isinstance(generator, TrunkGenerator) or type(generator).forward is not TrunkGenerator.forward:
        return f"{type(generator).__name__} is not a trunk and a head"
    if len(generator.trunk.condition):
        return "it is conditioned on a vector per utterance"
    if not isinstance(generator.head, (WaveHead, IstftHead)):
        return f"{type(generator.head).__name__} has no native form"
    return None


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
    convs = [module for module in blocks.modules() if isinstance(module, Conv1d)]
    return add_residual(
        layers,
        x,
        [conv.weight for conv in convs],
        [conv.bias for conv in convs],
        [conv.dilation for conv in convs],
        branches=len(blocks.branches),
        convs_per_unit=blocks.convs_per_unit,
        shortcut=blocks.shortcut,
        slope=blocks.slope,
        padding_mode=blocks.padding_mode,
        causal=blocks.causal,
        activate_first=blocks.activate_first,
    )

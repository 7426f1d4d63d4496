"""Networks as the native library takes them: a list of layers, each of which reads the results of earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from fastvoc import native

INPUT, NOTHING, OTHER_INPUT = -1, -2, -3
"""Instead of the number of a layer: the network's input; none; a second input, as long as the result."""

Signature = tuple[Any, ...]


class Quantization(NamedTuple):
    """The values of an 8-bit signal: scale · (q − zero_point), q = 0 … 255."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer of a network reads, does and adds; results are named by the number of their layer.

    ``tanh?(leaky_relu_after((partial? + (convolution of leaky_relu(input) + bias? + residual?)) / divisor))``, where
    the convolution is that of `conv1d` or of `upsample`, whose arguments the others are; or the activation
    `smooth_snake` stands in its place, with a weight of two numbers per channel, (C, 1, 2).
    """

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
    gelu: bool = False
    """On a GPU: in place of all that follows the sum."""
    int8: Quantization | None = None

    @property
    def out_channels(self) -> int:
        """Channels of the result."""
        return self.weight.shape[1 if self.kind == "upsample" else 0]

    @property
    def signature(self) -> Signature:
        """Everything but the weights."""
        values = {name: value for name, value in vars(self).items() if name not in ("weight", "bias")}
        return (*values.values(), *self.weight.shape, self.bias is None)

    def out_frames(self, frames: int) -> int:
        """Count the frames of the result of so many."""
        taps, padding = self.weight.shape[-1], sum(self.padding)
        if self.kind == "smooth_snake":
            return frames
        if self.kind == "upsample":
            return (frames - 1) * self.stride + taps - padding
        return frames + padding - self.dilation * (taps - 1)


class Description(NamedTuple):
    """A network as the native library reads it."""

    pointer: Any
    """To a `fastvoc_network`."""
    layers: Any
    """The memory that it points to."""


def describe(layers: Sequence[Layer], *, precision: str, isa: int = 0, in_order: bool = False) -> Description:
    """Describe a network to the native library.

    Parameters
    ----------
    layers : sequence of Layer
        From `with_weights`, and to be kept as long as the description.
    precision : str
        The end of a name in ``fastvoc_plan.h``, such as ``"FLOAT32"``.
    isa, in_order
        As there.
    """
    ffi, library = native.library()
    described = ffi.new("fastvoc_layer[]", [_described(layer) for layer in layers])
    fields = {"isa": isa, "in_order": in_order, "count": len(layers), "layers": described}
    fields["precision"] = getattr(library, f"FASTVOC_{precision}")
    return Description(ffi.new("fastvoc_network *", fields), described)


def with_weights(layers: Sequence[Layer], dtype: torch.dtype) -> list[Layer]:
    """Return layers with contiguous weights of a dtype, copied only if they are not.

    Copies are one piece of memory, which goes back to the system with the last of them: many small ones leave gaps.
    """
    tensors = [tensor for layer in layers for tensor in (layer.weight, layer.bias) if tensor is not None]
    others = {id(tensor): tensor for tensor in tensors if tensor.dtype != dtype or not tensor.is_contiguous()}
    sizes = [tensor.numel() for tensor in others.values()]
    places = torch.split(torch.empty(sum(sizes), dtype=dtype), sizes) if others else ()
    copies = {
        number: place.view(tensor.shape).copy_(tensor.detach())
        for (number, tensor), place in zip(others.items(), places, strict=True)
    }

    def ready(tensor: Tensor | None) -> Any:
        return None if tensor is None else copies.get(id(tensor), tensor.detach())

    return [replace(layer, weight=ready(layer.weight), bias=ready(layer.bias)) for layer in layers]


@overload
def plain(weight: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def plain(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None: ...
def plain(weight: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return a contiguous weight of a dtype, copied only if it is none."""
    return None if weight is None else weight.detach().to(dtype).contiguous()


def frames_of(layers: Sequence[Layer], frames: int) -> dict[int, int]:
    """Count the frames of the input, by the number `INPUT`, and of the result of each layer."""
    counts = {INPUT: frames}
    for number, layer in enumerate(layers):
        counts[number] = layer.out_frames(counts[layer.input])
    return counts


def too_short(layers: Sequence[Layer], frames: int) -> str | None:
    """Say what the operators say of the first layer that has too few frames to reflect, or None."""
    counts = frames_of(layers, frames)
    for layer in layers:
        here, most = counts[layer.input], max(layer.padding)
        if layer.padding_mode == "reflect" and most >= here:
            return f"conv1d: x has {here} frames; needs at least {most + 1} to reflect {most} of them"
    return None


def _described(layer: Layer) -> dict[str, Any]:
    ffi, library = native.library()
    inputs_first = layer.kind != "conv1d"
    tensors = {"weight": layer.weight, "bias": layer.bias}
    return {
        "kind": getattr(library, f"FASTVOC_{layer.kind.upper()}"),
        "input": layer.input,
        "residual": layer.residual,
        "partial": layer.partial,
        "padding_mode": getattr(library, f"FASTVOC_{layer.padding_mode.upper()}"),
        "tanh": layer.tanh,
        "gelu": layer.gelu,
        "in_channels": layer.weight.shape[0 if inputs_first else 1],
        "out_channels": layer.out_channels,
        "taps": layer.weight.shape[2],
        "dilation": layer.dilation,
        "stride": layer.stride,
        "left": layer.padding[0],
        "right": layer.padding[1],
        "slope": layer.slope,
        "divisor": layer.divisor,
        "slope_after": layer.slope_after,
        **({} if layer.int8 is None else {"input_scale": layer.int8.scale, "input_zero_point": layer.int8.zero_point}),
        **{name: ffi.NULL if t is None else ffi.cast("float *", t.data_ptr()) for name, t in tensors.items()},
    }

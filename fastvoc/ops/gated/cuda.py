"""`gated` on a GPU: a convolution that ends in the gate, and both products behind it in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.cuda.device import PRECISIONS, Gpu, gpu, kernels, memory, pointer, refuses, stream
from fastvoc.ops.cuda.operator import REACH
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.network import plain
from fastvoc.ops.op import Prepared, Repeatable, Slower, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_lengths

MOST_ITEMS = 65535
"""Of a batch: the second extent of a grid."""

_compiled: dict[Any, Compiled | str] = {}


def prepare(call: Gated) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    x = call.x
    reason = refuses(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    if x.shape[0] > MOST_ITEMS:
        return f"the batch has {x.shape[0]} items; these kernels take {MOST_ITEMS} at most"
    widest = max(x.shape[1], call.weight.shape[0], call.out_weight.shape[0])
    if (widest + 16) * x.shape[2] >= REACH:
        return f"an item has {REACH} elements or more"
    layer = compiled(gpu(x.device), x.dtype, **_settings(call))
    return layer if isinstance(layer, str) else prepared(Repeatable(_Way(layer)), reason)


class Compiled:
    """A layer compiled for a kind of GPU: its launches, without its weights.

    Parameters
    ----------
    gpu : Gpu
    dtype : torch.dtype
        Of all tensors; torch.float32 is multiplied in TF32. Sums are float32.
    **settings
        All fields of a ``fastvoc_cuda_gated`` but its precision; those that are left out are 0.

    Raises
    ------
    RuntimeError
        If no kernel takes it.
    """

    def __init__(self, gpu: Gpu, dtype: torch.dtype, **settings: Any) -> None:
        ffi, library = native.library()
        self.dtype = dtype
        precision = getattr(library, f"FASTVOC_{PRECISIONS[dtype]}")
        layer = ffi.new("fastvoc_cuda_gated *", {"precision": precision, **settings})
        self.plan = native.host_memory(library.fastvoc_cuda_gated_size(), dtype=torch.uint8)
        native.check(
            "gated",
            library.fastvoc_cuda_gated_make(layer, ffi.new("fastvoc_gpu *", gpu._asdict()), pointer(self.plan)),
        )

    def launches(self, batch: int, frames: int) -> list[tuple[str, float]]:
        """Name the kernels of a run, with the clocks of the GPU that each is predicted to take."""
        ffi, library = native.library()
        plan, made = pointer(self.plan), []
        for number in range(library.fastvoc_cuda_gated_launches(plan)):
            name = ffi.string(library.fastvoc_cuda_gated_kernel(plan, batch, frames, number)).decode()
            made.append((name, library.fastvoc_cuda_gated_clocks(plan, batch, frames, number)))
        return made

    def pack(self, weights: Weights) -> Tensor:
        """Return weights in the order of the kernels, as bytes on their device."""
        ffi, library = native.library()
        given = _tensors(*(tensor for pair in weights for tensor in pair or ()))
        narrow = all(tensor.dtype == self.dtype != torch.float32 for tensor in given)
        dtype = self.dtype if narrow else torch.float32
        own = [(plain(pair[0], dtype), plain(pair[1], dtype)) if pair else None for pair in weights]
        fields = ({"weight": pointer(pair[0]), "bias": pointer(pair[1])} if pair else {} for pair in own)
        described = [ffi.new("fastvoc_cuda_gated_weight *", field) for field in fields]
        plan, device = pointer(self.plan), given[0].device
        made = memory(library.fastvoc_cuda_gated_packed_size(plan), device)
        with stream(device) as current:
            code = library.fastvoc_cuda_gated_pack(plan, kernels(device), narrow, *described, pointer(made), current)
        native.check("gated", code)
        return made

    def run(
        self,
        weights: Tensor,
        x: Tensor,
        condition: Tensor | None,
        skip: Tensor | None,
        residual: Tensor,
        made: Tensor,
        *,
        lengths: Tensor | None = None,
    ) -> None:
        """Run the layer.

        Parameters
        ----------
        weights : Tensor
            From `pack`.
        x : Tensor, shape (B, C, T)
        condition : Tensor, shape (B, M, T_out), optional
        skip : Tensor, shape (B, S, T_out), optional
        residual : Tensor, shape (B, T_out, C)
            Is written; channels are neighbours in memory. Nothing is, where there are none.
        made : Tensor, shape (B, T_out, S)
            The skip connection, likewise; it may be the memory of `skip`.
        lengths : Tensor, shape (B,), int32, optional
            Frames of each item of `x`.
        """
        ffi, library = native.library()
        tensors = {"x": _input(x), "condition": _input(condition), "skip": _input(skip)}
        results = {"residual": _output(residual), "made": _output(made)}
        sizes = {"batch": x.shape[0], "frames": x.shape[2], "lengths": ffi.cast("int *", pointer(lengths))}
        call = ffi.new("fastvoc_cuda_gated_call *", {**sizes, **tensors, **results})
        workspace = memory(library.fastvoc_cuda_gated_workspace_size(pointer(self.plan), call), x.device)
        with stream(x.device) as current:
            code = library.fastvoc_cuda_gated_run(
                pointer(self.plan), kernels(x.device), pointer(weights), pointer(workspace), current, call
            )
        native.check("gated", code)


class Weights(NamedTuple):
    """Those of a layer, each with its bias."""

    convolution: tuple[Tensor, Tensor | None]
    """Of shape (2 G, C, K)."""
    condition: tuple[Tensor, Tensor | None] | None
    """Of shape (2 G, M, 1), where the condition is multiplied."""
    products: tuple[Tensor, Tensor | None]
    """Of shape (C + S, G, 1), or (S, G, 1) without a residual connection."""


class Packed:
    """A gated layer on a GPU whose weights are packed once, with the product of its condition.

    It is what `fastvoc.ops.gated.packed.Packed` is on the CPU, in the dtype of the weights.

    Parameters
    ----------
    weight, bias, condition, out_weight, out_bias, skip_channels, dilation, before
        As there.

    Raises
    ------
    NotImplementedError
        If no kernel takes it.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        condition: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        *,
        skip_channels: int,
        dilation: int,
        before: int,
    ) -> None:
        self.dtype = weight.dtype
        self.channels = len(out_weight) - skip_channels
        layer = compiled_packed(weight, condition, self.channels, skip_channels, dilation=dilation, before=before)
        if isinstance(layer, str):
            raise NotImplementedError(f"gated: {layer}")
        self._layer = layer
        self._weights = layer.pack(Weights((weight, bias), (condition, None), (out_weight, out_bias)))

    def __call__(self, x: Tensor, condition: Tensor, skip: Tensor | None, residual: Tensor, made: Tensor) -> None:
        """Run the layer on rows, (B, T, channels), as that of the CPU does."""
        if condition.shape[0] * condition.shape[1]:
            self._layer.run(self._weights, x.mT, condition.mT, None if skip is None else skip.mT, residual, made)


def compiled_packed(
    weight: Tensor, condition: Tensor, channels: int, skip_channels: int, *, dilation: int, before: int
) -> Compiled | str:
    """Return a layer for `Packed`, or why there is none, as a sentence."""
    settings = {"channels": weight.shape[1], "gates": len(weight) // 2, "taps": weight.shape[2], "dilation": dilation}
    settings |= {"condition": condition.shape[1], "multiplied": True, "skips": skip_channels, "before": before}
    return compiled(gpu(weight.device), weight.dtype, residual=channels > 0, scale=1.0, **settings)


class _Way:
    """What runs the calls of a signature; weights are packed on every call, unless somebody keeps them."""

    def __init__(self, layer: Compiled) -> None:
        self._layer = layer

    def __call__(self, call: Gated) -> tuple[Tensor, Tensor]:
        x, layer = call.x, self._layer
        weights = Weights((call.weight, call.bias), None, (call.out_weight, call.out_bias))
        given = _tensors(*weights.convolution, *weights.products)
        own = packed(("cuda", layer), lambda *_: layer.pack(weights), *given)
        residual, skip = (
            x.new_empty(x.shape[0], call.frames, channels) for channels in (call.residual_channels, call.skip_channels)
        )
        layer.run(own, x, call.condition, call.skip, residual, skip, lengths=ragged_lengths(x.shape[2]))
        return in_layout_of(x, residual.mT), in_layout_of(x, skip.mT)


def compiled(gpu: Gpu, dtype: torch.dtype, **settings: Any) -> Compiled | str:
    """Return a layer with these settings, compiled once; or why there is none, as a sentence."""
    key = (gpu, dtype, *sorted(settings.items()))
    if key not in _compiled:
        try:
            _compiled[key] = Compiled(gpu, dtype, **settings)
        except RuntimeError:
            _compiled[key] = (
                f"{settings['taps']} taps at dilation {settings['dilation']} do not fit into the shared memory of the "
                "GPU; two or three taps of any dilation do, beside a condition that is added"
            )
    return _compiled[key]


def _settings(call: Gated) -> dict[str, Any]:
    gates = call.out_weight.shape[1]
    return {
        "residual": call.residual_channels > 0,
        "sigmoid_first": call.sigmoid_first,
        "scale": call.scale,
        "channels": call.x.shape[1],
        "gates": gates,
        "skips": call.skip_channels,
        "condition": 0 if call.condition is None else 2 * gates,
        "taps": call.weight.shape[2],
        "dilation": call.dilation,
        "left": call.left,
        "right": call.right,
        "before": call.before,
    }


def _tensors(*given: Tensor | None) -> Sequence[Tensor]:
    return [tensor for tensor in given if tensor is not None]


def _input(tensor: Tensor | None) -> dict[str, Any]:
    if tensor is None or not tensor.numel():
        return {}
    return {"data": pointer(tensor), "strides": tensor.stride()}


def _output(rows: Tensor) -> dict[str, Any]:
    return {"data": pointer(rows), "item": rows.stride(0), "row": rows.stride(1)} if rows.numel() else {}

"""`gated` on a GPU: a convolution that ends in the gate, and both products behind it in one launch."""

from __future__ import annotations

from typing import Any

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
    layer = _compile(call, gpu(x.device))
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

    def pack(self, convolution: tuple[Tensor, Tensor | None], products: tuple[Tensor, Tensor | None]) -> Tensor:
        """Return weights, each with its bias, in the order of the kernels, as bytes on their device."""
        ffi, library = native.library()
        given = [tensor for tensor in (*convolution, *products) if tensor is not None]
        narrow = all(tensor.dtype == self.dtype != torch.float32 for tensor in given)
        dtype = self.dtype if narrow else torch.float32
        own = [(plain(weight, dtype), plain(bias, dtype)) for weight, bias in (convolution, products)]
        described = [
            ffi.new("fastvoc_cuda_gated_weight *", {"weight": pointer(weight), "bias": pointer(bias)})
            for weight, bias in own
        ]
        plan, device = pointer(self.plan), given[0].device
        made = memory(library.fastvoc_cuda_gated_packed_size(plan), device)
        with stream(device) as current:
            code = library.fastvoc_cuda_gated_pack(
                plan, kernels(device), narrow, described[0], ffi.NULL, described[1], pointer(made), current
            )
        native.check("gated", code)
        return made


class _Way:
    """What runs the calls of a signature; weights are packed on every call, unless somebody keeps them."""

    def __init__(self, layer: Compiled) -> None:
        self._layer = layer

    def __call__(self, call: Gated) -> tuple[Tensor, Tensor]:
        ffi, library = native.library()
        layer, x = self._layer, call.x
        convolution, products = (call.weight, call.bias), (call.out_weight, call.out_bias)

        def pack(*_: Tensor) -> Tensor:
            return layer.pack(convolution, products)

        weights = (tensor for tensor in (*convolution, *products) if tensor is not None)
        own = packed(("cuda", layer), pack, *weights)
        residual, skip = (
            x.new_empty(x.shape[0], call.frames, channels) for channels in (call.residual_channels, call.skip_channels)
        )
        lengths = ragged_lengths(x.shape[2])
        described = ffi.new(
            "fastvoc_cuda_gated_call *",
            {
                "batch": x.shape[0],
                "frames": x.shape[2],
                "lengths": ffi.cast("int *", pointer(lengths)),
                "x": _input(x),
                "condition": _input(call.condition),
                "skip": _input(call.skip),
                "residual": _output(residual),
                "made": _output(skip),
            },
        )
        workspace = memory(library.fastvoc_cuda_gated_workspace_size(pointer(layer.plan), described), x.device)
        with stream(x.device) as current:
            code = library.fastvoc_cuda_gated_run(
                pointer(layer.plan), kernels(x.device), pointer(own), pointer(workspace), current, described
            )
        native.check("gated", code)
        return in_layout_of(x, residual.mT), in_layout_of(x, skip.mT)


def _compile(call: Gated, gpu: Gpu) -> Compiled | str:
    """Return a layer for this call, compiled once for all of its shape; or why there is none, as a sentence."""
    gates, channels, taps = call.out_weight.shape[1], call.x.shape[1], call.weight.shape[2]
    settings = {
        "residual": call.residual_channels > 0,
        "sigmoid_first": call.sigmoid_first,
        "scale": call.scale,
        "channels": channels,
        "gates": gates,
        "skips": call.skip_channels,
        "condition": 0 if call.condition is None else 2 * gates,
        "taps": taps,
        "dilation": call.dilation,
        "left": call.left,
        "right": call.right,
        "before": call.before,
    }
    key = (gpu, call.x.dtype, *settings.values())
    if key not in _compiled:
        try:
            _compiled[key] = Compiled(gpu, call.x.dtype, **settings)
        except RuntimeError:
            _compiled[key] = (
                f"{taps} taps at dilation {call.dilation} of {channels} channels are more than the GPU holds at once; "
                "it takes two or three taps of any dilation"
            )
    return _compiled[key]


def _input(tensor: Tensor | None) -> dict[str, Any]:
    if tensor is None or not tensor.numel():
        return {}
    return {"data": pointer(tensor), "strides": tensor.stride()}


def _output(rows: Tensor) -> dict[str, Any]:
    return {"data": pointer(rows), "item": rows.stride(0), "row": rows.stride(1)} if rows.numel() else {}

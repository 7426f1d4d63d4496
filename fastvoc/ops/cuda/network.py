"""A network compiled for a kind of GPU: its launches and its memory, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.cuda.device import PRECISIONS, Gpu, Template, kernels, memory, pointer, stream
from fastvoc.ops.network import Layer, describe, plain

_compiled: dict[Any, Network | str] = {}


def compiled(layers: Sequence[Layer], gpu: Gpu, dtype: torch.dtype) -> Network | str:
    """Return a network for these layers, whatever their weights, compiled once; or why there is none, as a sentence."""
    key = (gpu, dtype, *(layer.signature for layer in layers))
    if key not in _compiled:
        try:
            _compiled[key] = Network(layers, gpu, dtype)
        except RuntimeError as error:
            _compiled[key] = str(error)
    return _compiled[key]


class Network:
    """Layers as launches of kernels. Threads may share it: what a run needs of memory is its own.

    Parameters
    ----------
    layers : sequence of Layer
        Their weights are not looked at.
    gpu : Gpu
    dtype : torch.dtype
        Of the operands of multiplications and of what lies between layers; torch.float32 is TF32. Sums are float32.

    Attributes
    ----------
    plan : Tensor
        The native one.
    channels : int
        Of the result.

    Raises
    ------
    RuntimeError
        If the kernels cannot run it.
    """

    def __init__(self, layers: Sequence[Layer], gpu: Gpu, dtype: torch.dtype) -> None:
        ffi, library = native.library()
        self.dtype = dtype
        self._in_channels = layers[0].weight.shape[1 if layers[0].kind == "conv1d" else 0]
        self.channels = layers[-1].out_channels
        description = describe(layers, precision=PRECISIONS[dtype])
        size = library.fastvoc_cuda_plan_size(description.pointer)
        self.plan = native.host_memory(max(size, 0), dtype=torch.uint8)
        code = library.fastvoc_cuda_plan_make(
            description.pointer, ffi.new("fastvoc_gpu *", gpu._asdict()), pointer(self.plan)
        )
        native.check("cuda", code)

    def pack(self, layers: Sequence[Layer]) -> Tensor:
        """Return the weights of layers in the order of the kernels, as bytes on their device.

        Parameters
        ----------
        layers : sequence of Layer
            Like those that were compiled, with weights on one device.
        """
        return Packing(self, layers)([(layer.weight, layer.bias) for layer in layers])

    def out_frames(self, frames: int) -> int:
        """Count the frames of the result of so many."""
        _, library = native.library()
        return int(library.fastvoc_cuda_plan_out_frames(pointer(self.plan), frames))

    def launches(self, batch: int, frames: int) -> list[str]:
        """Name the kernels of a run, in order."""
        ffi, library = native.library()
        plan = pointer(self.plan)
        count = library.fastvoc_cuda_plan_launches(plan, batch, frames)
        names = (library.fastvoc_cuda_plan_kernel(plan, batch, frames, number) for number in range(count))
        return [ffi.string(name).decode() for name in names]

    def clocks(self, batch: int, frames: int) -> list[float]:
        """Predict the clocks of the GPU that each kernel of a run takes, by the model that chose it."""
        _, library = native.library()
        plan = pointer(self.plan)
        count = library.fastvoc_cuda_plan_launches(plan, batch, frames)
        return [library.fastvoc_cuda_plan_clocks(plan, batch, frames, number) for number in range(count)]

    def run(
        self,
        packed: Tensor,
        x: Tensor,
        *,
        dtype: torch.dtype,
        other: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Run the network on the current stream of the device of `x`.

        Parameters
        ----------
        packed : Tensor
            From `pack`.
        x : Tensor, shape (B, C, T)
            In the network's dtype or in float32, in any memory order.
        dtype : torch.dtype
            Of the result: the network's, or float32.
        other : Tensor, shape (B, C_out, T_out), optional
            The second input, as `x`.
        lengths : Tensor, shape (B,), int32, optional
            Frames of each item, at most T, on the device of `x`. What lies behind an item's end is neither read nor
            written.

        Returns
        -------
        Tensor, shape (B, C_out, T_out)
            Channels-last in memory.

        Raises
        ------
        ValueError
            If a tensor is on another device than the weights, has another shape, or is too short or too long.
        TypeError
            If a tensor is of a dtype that the network does not take.
        """
        self._check(packed, x, other, lengths)
        return Run(self, x, dtype, other)(packed, x, other=other, lengths=lengths)

    def _check(self, packed: Tensor, x: Tensor, other: Tensor | None, lengths: Tensor | None) -> None:
        for name, tensor in (("x", x), ("the second input", other), ("lengths", lengths)):
            if tensor is not None and tensor.device != packed.device:
                where = f"on {tensor.device} but the weights are on {packed.device}"
                raise ValueError(f"cuda: {name} is {where}; move one of them")
        if x.dim() != 3 or x.shape[1] != self._in_channels:
            raise ValueError(f"cuda: x has shape {tuple(x.shape)}; expected (batch, {self._in_channels}, frames)")
        if lengths is None:
            return
        if lengths.dtype != torch.int32 or lengths.shape != x.shape[:1] or not lengths.is_contiguous():
            raise ValueError(
                f"cuda: lengths have shape {tuple(lengths.shape)} and are {lengths.dtype}; "
                f"expected ({x.shape[0]},), contiguous, torch.int32"
            )

    def type_of(self, dtype: torch.dtype) -> int:
        """Return what native code calls a dtype of this network's tensors.

        Raises
        ------
        TypeError
            If it takes and makes none of it.
        """
        _, library = native.library()
        if dtype == torch.float32:
            return int(library.FASTVOC_FLOATS)
        if dtype == self.dtype:
            return int(library.FASTVOC_ELEMENTS)
        raise TypeError(f"cuda: a tensor is {dtype}; this network takes and makes {self.dtype} or torch.float32")


class Packing:
    """Puts the weights of a network into the order of its kernels; what does not depend on their values is kept.

    Parameters
    ----------
    network : Network
    layers : sequence of Layer
        Like those that it was compiled of, with weights of the shapes, dtypes and device of those that will be packed.
    """

    def __init__(self, network: Network, layers: Sequence[Layer]) -> None:
        _, library = native.library()
        self._network = network
        multiplied = [layer for layer in layers if layer.kind != "smooth_snake"]
        self._narrow = all(layer.weight.dtype == network.dtype != torch.float32 for layer in multiplied)
        narrow = network.dtype if self._narrow else torch.float32
        self._dtypes = [torch.float32 if layer.kind == "smooth_snake" else narrow for layer in layers]
        self._described = describe(layers, precision=PRECISIONS[network.dtype])
        self._size = library.fastvoc_cuda_plan_packed_size(pointer(network.plan))

    def __call__(self, weights: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Return weights and biases in that order, as bytes on their device."""
        ffi, library = native.library()
        given = zip(weights, self._dtypes, strict=True)
        own = [(plain(weight, dtype), plain(bias, dtype)) for (weight, bias), dtype in given]
        layers = ffi.new("fastvoc_layer[]", len(own))
        ffi.memmove(layers, self._described.layers, ffi.sizeof(layers))
        for layer, (weight, bias) in zip(layers, own, strict=True):
            layer.weight, layer.bias = native.floats(weight), native.floats(bias)
        network = ffi.new("fastvoc_network *", self._described.pointer[0])
        network.layers = layers
        device = weights[0][0].device
        packed = memory(self._size, device)
        with stream(device) as current:
            code = library.fastvoc_cuda_plan_pack(
                network, pointer(self._network.plan), kernels(device), self._narrow, pointer(packed), current
            )
        native.check("cuda", code)
        return packed


class Run:
    """Runs a network on inputs of one shape, dtype, device and order in memory, whose sizes are computed once.

    Parameters
    ----------
    network : Network
    x, dtype, other
        As of `Network.run`, which checks them; other tensors like these can be run.
    """

    def __init__(self, network: Network, x: Tensor, dtype: torch.dtype, other: Tensor | None) -> None:
        _, library = native.library()
        batch, _, frames = x.shape
        rows = network.out_frames(frames) if frames else 0
        if rows < 0:
            raise ValueError(f"cuda: a signal of {frames} frames is too short or too long for these layers")
        if other is not None and other.shape != (batch, network.channels, rows):
            raise ValueError(
                f"cuda: the second input has shape {tuple(other.shape)}; expected {(batch, network.channels, rows)}"
            )
        self._plan = network.plan
        self._shape, self._dtype = (batch, rows, network.channels), dtype
        self._workspace = library.fastvoc_cuda_plan_workspace_size(pointer(network.plan), batch, frames)
        fields = {
            "batch": batch,
            "frames": frames,
            "x_strides": x.stride(),
            "x_type": network.type_of(x.dtype),
            "y_item": rows * network.channels,
            "y_row": network.channels,
            "y_type": network.type_of(dtype),
        }
        if other is not None:
            fields |= {"other_strides": other.stride(), "other_type": network.type_of(other.dtype)}
        self._call = Template("fastvoc_cuda_call *", **fields)

    def __call__(
        self, packed: Tensor, x: Tensor, *, other: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Run it, as `Network.run` does."""
        _, library = native.library()
        y = torch.empty(self._shape, dtype=self._dtype, device=x.device)
        if y.numel() == 0:
            return y.transpose(1, 2)
        workspace = memory(self._workspace, x.device)
        call = self._call(x=x, other=other, lengths=lengths, y=y)
        with stream(x.device) as current:
            code = library.fastvoc_cuda_plan_run(
                pointer(self._plan), kernels(x.device), pointer(packed), pointer(workspace), current, call
            )
        native.check("cuda", code)
        return y.transpose(1, 2)

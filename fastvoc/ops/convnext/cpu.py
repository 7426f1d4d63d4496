"""The C++ kernel of `convnext`: weights packed at every call, or once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.cpu import refuses
from fastvoc.ops.layout import channels_last, empty_channels_last, to_channels_last
from fastvoc.ops.op import Prepared, Slower, prepared


def prepare(call: Convnext) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    if reason := refuses(call.x):
        return reason
    run, frames = functools.partial(_run, call), call.shape[0] * call.shape[2]
    reason = None
    if frames < FEWEST_FRAMES:
        reason = Slower(f"the weights are packed for {frames} frames, which takes longer than these", run)
    return prepared(run, reason)


FEWEST_FRAMES = 64
"""Of a call whose weights are packed for it alone: packing took 1.3 ms, and the definition 2.4 ms for 64 frames (512
and 1536 channels, one core of an AMD EPYC of family 26, 2026-11-30)."""


def _run(call: Convnext) -> Tensor:
    """Run a call whose weights are packed for it: they can change through `.data` without a trace."""
    y: Tensor = call.empty()
    if y.numel():
        packed = Packed(call[1:10], call.eps, dtype=torch.float32)
        packed.into(y, call.x, call.left, call.right)
    return y


class Packed:
    """The weights of a block in the order of the kernels.

    Parameters
    ----------
    weights : sequence of Tensor
        Those of `fastvoc.ops.convnext`, on the CPU, in float32 or bfloat16.
    eps : float
        Added to variances.
    dtype : torch.dtype
        What products multiply in, float32 or bfloat16.
    """

    def __init__(self, weights: Sequence[Tensor], eps: float, *, dtype: torch.dtype) -> None:
        depthwise, expand = weights[0], weights[4]
        # what was packed for one instruction set is read by it alone
        self._isa, self._precision, self._eps = native.isa(), _PRECISIONS[dtype], eps
        self._sizes = depthwise.shape[0], expand.shape[0], depthwise.shape[2]
        # of one frame: what is packed depends neither on their number nor on the padding
        described = self._described(1, self._sizes[2], 0, 0)
        ffi, library = native.library()
        plain = [weight.detach().resolve_neg().float().contiguous() for weight in weights]
        pointers = dict(zip(_FIELDS, map(native.floats, plain), strict=True))
        self._packed = native.host_memory(described.packed_size, dtype=torch.uint8)
        workspace = native.scratch(described.workspace_size // 4)
        structure = ffi.new("fastvoc_convnext_weights *", pointers)
        code = library.fastvoc_convnext_pack(described.pointer, structure, _pointer(self._packed), _pointer(workspace))
        native.check("convnext", code)

    def __call__(self, x: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Run the block: (B, C, T) in float32 → (B, C, T_out), with so many zeros around."""
        y = empty_channels_last(x, x.shape[1], x.shape[2] + left + right - self._sizes[2] + 1)
        if y.numel():
            self.into(y, x, left, right)
        return y

    def into(self, y: Tensor, x: Tensor, left: int, right: int) -> None:
        """Run the block on an input that is not empty, and write its result, which is channels-last."""
        x = x.resolve_neg()
        if not channels_last(x) and x.shape[1] > 1:
            x = to_channels_last(x)
        described = self._described(x.shape[0], x.shape[2], left, right)
        workspace = native.scratch(described.workspace_size // 4)
        code = native.library()[1].fastvoc_convnext_run(
            described.pointer,
            native.floats(x),
            x.stride(0),
            x.stride(2),
            _pointer(self._packed),
            native.floats(y),
            y.stride(0),
            y.stride(2),
            _pointer(workspace),
        )
        native.check("convnext", code)

    def _described(self, batch: int, frames: int, left: int, right: int) -> _Described:
        return _describe(
            self._isa, torch.get_num_threads(), self._precision, batch, frames, *self._sizes, left, right, self._eps
        )


class _Described(NamedTuple):
    """A call as the native library reads it; sizes are in bytes."""

    pointer: Any
    packed_size: int
    workspace_size: int


_NUMBERS = (
    *("isa", "threads", "precision", "batch", "in_frames"),
    *("channels", "hidden", "taps", "left", "right", "eps"),
)


@functools.lru_cache(maxsize=4096)
def _describe(isa: int, threads: int, precision: str, *numbers: float) -> _Described:
    ffi, library = native.library()
    values = (isa, threads, getattr(library, precision), *numbers)
    call = ffi.new("fastvoc_convnext *", dict(zip(_NUMBERS, values, strict=True)))
    native.check("convnext", library.fastvoc_convnext_check(call))
    return _Described(
        pointer=call,
        packed_size=library.fastvoc_convnext_packed_size(call),
        workspace_size=library.fastvoc_convnext_workspace_size(call),
    )


_FIELDS = Convnext._fields[1:10]
_PRECISIONS = {torch.float32: "FASTVOC_FLOAT32", torch.bfloat16: "FASTVOC_BFLOAT16"}


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

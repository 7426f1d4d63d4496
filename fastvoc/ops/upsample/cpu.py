"""The call of the C++ kernel of `upsample`: checks, memory, pointers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops import _native
from fastvoc.ops._layout import empty_like_layout
from fastvoc.ops._op import Slower


def refuses(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; this kernel computes in torch.float32"
    if x.shape[2] == 1:
        # 256 channels to 128, 16 taps: one frame takes 223 us against 62 us, four 219 us against 1070 us (same machine
        # and day as in `conv1d`).
        return Slower("x has a single frame, for which plain PyTorch was measured to be faster")
    return None


def upsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> Tensor:
    """Run the kernel; the weight is packed on every call, for the reason that `conv1d` gives."""
    y = empty_like_layout(x, weight.shape[1], (x.shape[2] - 1) * stride + weight.shape[2] - left - right)
    ffi, library = _native.library()
    call, packed_size, workspace_size = _call(
        _native.isa(), torch.get_num_threads(), *x.shape, *weight.shape[1:], stride, left, right, slope
    )
    memory = _native.scratch(packed_size + workspace_size)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()

    def pointer(tensor: Tensor | None) -> Any:
        return ffi.NULL if tensor is None else ffi.cast("float *", tensor.data_ptr())

    packed = pointer(memory)
    _native.check("upsample", library.fastvoc_upsample_pack(call, pointer(weight), packed))
    code = library.fastvoc_upsample(
        call, pointer(x), x.stride(), packed, pointer(bias), pointer(y), y.stride(), packed + packed_size
    )
    _native.check("upsample", code)
    return y


@functools.lru_cache(maxsize=1024)
def _call(
    isa: int,
    threads: int,
    batch: int,
    in_channels: int,
    in_frames: int,
    out_channels: int,
    taps: int,
    stride: int,
    left: int,
    right: int,
    slope: float,
) -> tuple[Any, int, int]:
    """Return the native description of a call, and how many floats it needs for packed weights and for work."""
    ffi, library = _native.library()
    call = ffi.new(
        "fastvoc_upsample_call *",
        {
            "isa": isa,
            "threads": threads,
            "batch": batch,
            "in_channels": in_channels,
            "in_frames": in_frames,
            "out_channels": out_channels,
            "taps": taps,
            "stride": stride,
            "left": left,
            "right": right,
            "slope": slope,
        },
    )
    _native.check("upsample", library.fastvoc_upsample_check(call))
    return call, library.fastvoc_upsample_packed_size(call), library.fastvoc_upsample_workspace_size(call)

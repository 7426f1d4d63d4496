"""The calls of the C++ kernels of `upsample` and of its gradient: checks, memory, pointers."""

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


def refuses_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; these kernels compute in torch.float32"
    if x.shape[2] == 1:
        # 512 channels to 256, 16 taps: one frame takes 2.6 ms against 1.2 ms, two 2.7 ms against 3.7 ms (as above).
        return Slower("x has a single frame, for which plain PyTorch was measured to be faster")
    return None


def upsample_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels for the gradients that are needed: x's; weight's; bias's."""
    none = x.new_empty(0)
    grad_x = empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else none
    grad_weight = x.new_empty(tuple(weight.shape)) if needs[1] else none
    grad_bias = x.new_empty(weight.shape[1]) if needs[2] else none
    ffi, library = _native.library()
    call = _described(_native.isa(), torch.get_num_threads(), *x.shape, *weight.shape[1:], stride, left, right, slope)
    memory = _native.scratch(library.fastvoc_upsample_backward_workspace_size(call))
    weight = weight.contiguous()

    def pointer(tensor: Tensor, needed: bool = True) -> Any:
        return ffi.cast("float *", tensor.data_ptr()) if needed else ffi.NULL

    code = library.fastvoc_upsample_backward(
        call,
        pointer(grad),
        grad.stride(),
        pointer(x),
        x.stride(),
        pointer(weight),
        pointer(grad_x, needs[0]),
        grad_x.stride() if needs[0] else (0, 0, 0),
        pointer(grad_weight, needs[1]),
        pointer(grad_bias, needs[2]),
        pointer(memory),
    )
    _native.check("upsample_backward", code)
    return grad_x, grad_weight, grad_bias


def _call(*settings: Any) -> tuple[Any, int, int]:
    """Return the native description of a call, and how many floats it needs for packed weights and for work."""
    library = _native.library()[1]
    call = _described(*settings)
    return call, library.fastvoc_upsample_packed_size(call), library.fastvoc_upsample_workspace_size(call)


@functools.lru_cache(maxsize=1024)
def _described(
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
) -> Any:
    """Return the native description of a call, checked."""
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
    return call

"""The calls of the C++ kernels of `downsample` and of its gradient: checks, memory, pointers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops import _native
from fastvoc.ops._layout import empty_channels_last, empty_like_layout


def refuses(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; this kernel computes in torch.float32"
    return None


def downsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> Tensor:
    """Run the kernel; the weight is brought into its order on every call, for the reason that `conv1d` gives."""
    y = empty_channels_last(x, weight.shape[0], (x.shape[2] + left + right - weight.shape[2]) // stride + 1)
    ffi, library = _native.library()
    call = _described(x, weight, stride, left, right, groups, slope)
    memory = _native.scratch(library.fastvoc_downsample_workspace_size(call))
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()

    def pointer(tensor: Tensor | None) -> Any:
        return ffi.NULL if tensor is None else ffi.cast("float *", tensor.data_ptr())

    code = library.fastvoc_downsample(
        call, pointer(x), x.stride(), pointer(weight), pointer(bias), pointer(y), y.stride(), pointer(memory)
    )
    _native.check("downsample", code)
    return y


def refuses_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: int,
    left: int,
    right: int,
    groups: int,
    slope: float,
    needs: list[bool],
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    return refuses(x, weight, None, stride, left, right, groups, slope)


def downsample_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: int,
    left: int,
    right: int,
    groups: int,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels for the gradients that are needed: x's; weight's; bias's."""
    none = x.new_empty(0)
    grad_x = empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else none
    grad_weight = x.new_empty(tuple(weight.shape)) if needs[1] else none
    grad_bias = x.new_empty(weight.shape[0]) if needs[2] else none
    ffi, library = _native.library()
    call = _described(x, weight, stride, left, right, groups, slope)
    memory = _native.scratch(library.fastvoc_downsample_backward_workspace_size(call))
    weight = weight.contiguous()

    def pointer(tensor: Tensor, needed: bool = True) -> Any:
        return ffi.cast("float *", tensor.data_ptr()) if needed else ffi.NULL

    code = library.fastvoc_downsample_backward(
        call,
        pointer(grad),
        grad.stride(),
        pointer(x),
        x.stride(),
        pointer(weight),
        pointer(y),
        y.stride(),
        pointer(grad_x, needs[0]),
        grad_x.stride() if needs[0] else (0, 0, 0),
        pointer(grad_weight, needs[1]),
        pointer(grad_bias, needs[2]),
        pointer(memory),
    )
    _native.check("downsample_backward", code)
    return grad_x, grad_weight, grad_bias


def _described(x: Tensor, weight: Tensor, *settings: Any) -> Any:
    sizes = *x.shape, weight.shape[0], weight.shape[2]
    return _checked(_native.isa(), torch.get_num_threads(), *sizes, *settings)


@functools.lru_cache(maxsize=1024)
def _checked(
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
    groups: int,
    slope: float,
) -> Any:
    """Return the native description of a call, checked."""
    ffi, library = _native.library()
    call = ffi.new(
        "fastvoc_downsample_call *",
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
            "groups": groups,
            "slope": slope,
        },
    )
    _native.check("downsample", library.fastvoc_downsample_check(call))
    return call

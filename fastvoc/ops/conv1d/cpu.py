"""The calls of the C++ kernels of `conv1d` and of its gradient: checks, memory, pointers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops import _native
from fastvoc.ops._layout import empty_like_layout
from fastvoc.ops._op import Slower


def refuses(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; this kernel computes in torch.float32"
    if x.shape[2] + left + right - dilation * (weight.shape[2] - 1) == 1:
        # The packing of the weight decides: with 256 channels and 3 taps, one frame takes 93 us against 37 us, but two
        # take 91 us against 178 us (one core of an AMD EPYC of family 26, 2026-11-20).
        return Slower("the result is a single frame, for which plain PyTorch was measured to be faster")
    return None


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> Tensor:
    """Run the kernel.

    The weight is packed on every call: a tensor can change through `.data` without a trace, so that a cache could be
    stale. Packing moves K * C * C_out numbers once, little beside the K * C * C_out * T multiply-adds that follow.
    """
    span = dilation * (weight.shape[2] - 1)
    y = empty_like_layout(x, weight.shape[0], x.shape[2] + left + right - span)
    ffi, library = _native.library()
    call, packed_size, workspace_size = _call(
        _native.isa(),
        torch.get_num_threads(),
        *x.shape,
        weight.shape[0],
        weight.shape[2],
        dilation,
        left,
        right,
        padding_mode,
        slope,
        tanh,
    )
    memory = _native.scratch(packed_size + workspace_size)
    weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()

    def pointer(tensor: Tensor | None) -> Any:
        return ffi.NULL if tensor is None else ffi.cast("float *", tensor.data_ptr())

    packed = pointer(memory)
    _native.check("conv1d", library.fastvoc_conv1d_pack(call, pointer(weight), packed))
    code = library.fastvoc_conv1d(
        call,
        pointer(x),
        x.stride(),
        packed,
        pointer(bias),
        pointer(residual),
        (0, 0, 0) if residual is None else residual.stride(),
        pointer(y),
        y.stride(),
        packed + packed_size,
    )
    _native.check("conv1d", code)
    return y


def refuses_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; these kernels compute in torch.float32"
    if grad.shape[2] == 1:
        # 256 channels, 3 taps: one frame takes 201 us against 89 us, two 208 us against 262 us (same machine and day).
        return Slower("the gradient is a single frame, for which plain PyTorch was measured to be faster")
    if not needs[0] and grad.shape[0] * grad.shape[2] < 32:
        # The same layer, without x's gradient: 16 frames take 262 us against 155 us (as above).
        return Slower("only the weight's gradient of a few frames is needed; plain PyTorch was measured to be faster")
    return None


def conv1d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels for the gradients that are needed: x's; weight's; bias's."""
    none = x.new_empty(0)
    grad_x = empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else none
    grad_weight = x.new_empty(tuple(weight.shape)) if needs[1] else none
    grad_bias = x.new_empty(weight.shape[0]) if needs[2] else none
    ffi, library = _native.library()
    call = _described(
        _native.isa(),
        torch.get_num_threads(),
        *x.shape,
        weight.shape[0],
        weight.shape[2],
        dilation,
        left,
        right,
        padding_mode,
        slope,
        False,
    )
    memory = _native.scratch(library.fastvoc_conv1d_backward_workspace_size(call))
    weight = weight.contiguous()

    def pointer(tensor: Tensor, needed: bool = True) -> Any:
        return ffi.cast("float *", tensor.data_ptr()) if needed else ffi.NULL

    code = library.fastvoc_conv1d_backward(
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
    _native.check("conv1d_backward", code)
    return grad_x, grad_weight, grad_bias


def _call(*settings: Any) -> tuple[Any, int, int]:
    """Return the native description of a call, and how many floats it needs for packed weights and for work."""
    library = _native.library()[1]
    call = _described(*settings)
    return call, library.fastvoc_conv1d_packed_size(call), library.fastvoc_conv1d_workspace_size(call)


@functools.lru_cache(maxsize=1024)
def _described(
    isa: int,
    threads: int,
    batch: int,
    in_channels: int,
    in_frames: int,
    out_channels: int,
    taps: int,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> Any:
    """Return the native description of a call, checked."""
    ffi, library = _native.library()
    call = ffi.new(
        "fastvoc_conv1d_call *",
        {
            "isa": isa,
            "threads": threads,
            "batch": batch,
            "in_channels": in_channels,
            "in_frames": in_frames,
            "out_channels": out_channels,
            "taps": taps,
            "dilation": dilation,
            "left": left,
            "right": right,
            "padding_mode": getattr(library, f"FASTVOC_{padding_mode.upper()}"),
            "tanh": tanh,
            "slope": slope,
        },
    )
    _native.check("conv1d", library.fastvoc_conv1d_check(call))
    return call

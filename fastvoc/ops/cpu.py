"""How the C++ kernels of convolutions are called: which tensors they take, how a call is described, memory, pointers.

A convolution's record has an input `x`, a `weight` whose last axis is taps, a `bias`, the `shape` of its result, and
`settings`, which the library knows by the names of their fields; that of its gradient has it as `forward`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native


class _Described(NamedTuple):
    """A call as the native library reads it; sizes are in floats."""

    pointer: Any
    """To a `fastvoc_call`, which is not to be written to: equal calls share it."""
    packed_size: int
    """Of the weight in the order of the kernel; 0 if it reads the weight as it is."""
    workspace_size: int
    backward_workspace_size: int


def refuses(x: Tensor) -> str | None:
    """Return why the kernels cannot run on `x`, as a sentence, or None."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.dtype != torch.float32:
        return f"x is {x.dtype}; these kernels compute in torch.float32"
    return None


def convolution(operator: str, call: Any, residual: Tensor | None = None) -> Tensor:
    """Run the kernel of a convolution.

    The weight is packed on every call: a tensor can change through `.data` without a trace, so that a cache could be
    stale. Packing moves K * C * C_out numbers once, little beside the K * C * C_out * T multiply-adds that follow.

    Parameters
    ----------
    operator : str
        As the library names it.
    call : Call
        Of a convolution.
    residual : Tensor, optional
        What `conv1d` adds to its result.
    """
    x, weight, bias = call.x, call.weight.contiguous(), call.bias
    y: Tensor = call.empty()
    described = _describe(operator, call, y.shape[1])
    library = native.library()[1]
    memory = native.scratch(described.packed_size + described.workspace_size)
    bias = None if bias is None else bias.contiguous()
    weights, workspace = native.floats(weight), native.floats(memory)
    if described.packed_size:
        packed, workspace = workspace, workspace + described.packed_size
        native.check(operator, library.fastvoc_call_pack(described.pointer, weights, packed))
        weights = packed
    code = library.fastvoc_call_run(
        described.pointer,
        native.floats(x),
        x.stride(),
        weights,
        native.floats(bias),
        native.floats(residual),
        _strides(residual),
        native.floats(y),
        y.stride(),
        workspace,
    )
    native.check(operator, code)
    return y


def gradients(operator: str, call: Any, y: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels of the gradients of a convolution that are needed: x's; weight's; bias's.

    Parameters
    ----------
    operator : str
        As the library names the convolution.
    call : Call
        Of its gradient.
    y : Tensor, optional
        The convolution's result, which the kernels of `strided_conv1d` read.
    """
    grad, x, weight, needs = call.grad, call.x, call.weight.contiguous(), call.needs
    grad_x, grad_weight, grad_bias = call.empty()
    described = _describe(operator, call.forward, grad.shape[1])
    memory = native.scratch(described.backward_workspace_size)
    code = native.library()[1].fastvoc_call_backward(
        described.pointer,
        native.floats(grad),
        grad.stride(),
        native.floats(x),
        x.stride(),
        native.floats(weight),
        native.floats(y),
        _strides(y),
        native.floats(grad_x if needs[0] else None),
        grad_x.stride() if needs[0] else (0, 0, 0),
        native.floats(grad_weight if needs[1] else None),
        native.floats(grad_bias if needs[2] else None),
        native.floats(memory),
    )
    native.check(f"{operator}_backward", code)
    return grad_x, grad_weight, grad_bias


def _strides(tensor: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if tensor is None else tensor.stride()


def _describe(operator: str, call: Any, out_channels: int) -> _Described:
    kind: Any = type(call)
    isa, threads, taps = native.isa(), torch.get_num_threads(), call.weight.shape[2]
    return _described(operator, kind, isa, threads, call.x.shape, out_channels, taps, call.settings)


@functools.lru_cache(maxsize=4096)
def _described(
    operator: str,
    kind: Any,
    isa: int,
    threads: int,
    shape: tuple[int, int, int],
    out_channels: int,
    taps: int,
    settings: tuple[Any, ...],
) -> _Described:
    ffi, library = native.library()
    sizes = dict(zip(("batch", "in_channels", "in_frames"), shape, strict=True))
    fields: dict[str, Any] = {"kind": getattr(library, f"FASTVOC_{operator.upper()}"), "isa": isa, "threads": threads}
    fields |= {**sizes, "out_channels": out_channels, "taps": taps, "dilation": 1, "stride": 1, "groups": 1}
    fields |= zip(kind._fields[-len(settings) :], settings, strict=True)
    if "padding_mode" in fields:
        fields["padding_mode"] = getattr(library, f"FASTVOC_{fields['padding_mode'].upper()}")
    call = ffi.new("fastvoc_call *", fields)
    native.check(operator, library.fastvoc_call_check(call))
    return _Described(
        pointer=call,
        packed_size=library.fastvoc_call_packed_size(call),
        workspace_size=library.fastvoc_call_workspace_size(call),
        backward_workspace_size=library.fastvoc_call_backward_workspace_size(call),
    )

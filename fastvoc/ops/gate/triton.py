"""The Triton kernels of `gate` and of its gradient: memory and launches."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.gate.call import Gate, GateBackward
from fastvoc.ops.layout import channels_last, in_layout_of
from fastvoc.ops.op import Prepared, prepared
from fastvoc.ops.triton.launch import Launch, refuses


def prepare(call: Gate) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return prepared(partial(_run, call), refuses(call.x))


def prepare_backward(call: GateBackward) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return prepared(partial(_run_backward, call), refuses(call.x))


def _run(call: Gate) -> Tensor:
    g = call.empty()
    launch(call, g)()
    return g


def _run_backward(call: GateBackward) -> Tensor:
    grad_x = call.empty()
    gradient_launch(call, grad_x)()
    return grad_x


def launch(call: Gate, g: Tensor) -> Launch:
    """Describe the launch that writes the result."""
    from fastvoc.ops.triton import gate as kernels

    return _launch(kernels.gate_alone, call, {"a": in_layout_of(call.x, call.x), "g": g})


def gradient_launch(call: GateBackward, grad_x: Tensor) -> Launch:
    """Describe the launch that writes the gradient."""
    from fastvoc.ops.triton import gate as kernels

    x = call.x
    tensors = {"a": in_layout_of(x, x), "grad": in_layout_of(x, call.grad), "grad_a": grad_x}
    return _launch(kernels.gate_gradient, call.forward, tensors)


def _launch(kernel: Any, call: Gate, tensors: dict[str, Tensor]) -> Launch:
    batch, channels, frames = call.x.shape
    gates = batch * channels // 2 * frames
    # the interpreter takes as long for many lanes as for one
    block = 65536 if interpreted() else 1024
    return Launch(
        kernel=kernel,
        grid=(-(-gates // block), 1, 1),
        arguments=tensors
        | {"gates": gates, "length": channels // 2 if channels_last(call.x) else channels // 2 * frames},
        constants={"SIGMOID_FIRST": call.sigmoid_first, "BLOCK": block},
        warps=4,
        stages=1,
    )

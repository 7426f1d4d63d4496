"""The C++ kernels of `gate` and of its gradient."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.cpu import refuses
from fastvoc.ops.gate.call import Gate, GateBackward
from fastvoc.ops.layout import channels_last, in_layout_of
from fastvoc.ops.op import Prepared


def prepare(call: Gate) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return refuses(call.x) or partial(run, call)


def prepare_backward(call: GateBackward) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return refuses(call.x) or partial(_run_backward, call)


def run(call: Gate) -> Tensor:
    """Run the kernel."""
    x, g = in_layout_of(call.x, call.x), call.empty()
    library = native.library()[1]
    native.check("gate", library.fastvoc_gate_run(_described(x, call), native.floats(x), native.floats(g)))
    return g


def _run_backward(call: GateBackward) -> Tensor:
    x, grad, grad_x = in_layout_of(call.x, call.x), in_layout_of(call.x, call.grad), call.empty()
    pointers = map(native.floats, (x, grad, grad_x))
    code = native.library()[1].fastvoc_gate_backward(_described(x, call.forward), *pointers)
    native.check("gate_backward", code)
    return grad_x


def _described(x: Tensor, call: Gate) -> Any:
    batch, channels, frames = x.shape
    blocks, length = (batch * frames, channels // 2) if channels_last(x) else (batch, channels // 2 * frames)
    return _describe(native.isa(), torch.get_num_threads(), call.sigmoid_first, blocks, length)


@functools.lru_cache(maxsize=4096)
def _describe(isa: int, threads: int, sigmoid_first: bool, blocks: int, length: int) -> Any:
    ffi, library = native.library()
    call = ffi.new("fastvoc_gate *", (isa, threads, int(sigmoid_first), blocks, length))
    native.check("gate", library.fastvoc_gate_check(call))
    return call

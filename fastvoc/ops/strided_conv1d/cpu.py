"""The C++ kernels of `strided_conv1d` and of its gradient."""

from __future__ import annotations

from functools import partial

from fastvoc.ops.cpu import convolution, gradients, refuses
from fastvoc.ops.op import Prepared
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward


def prepare(call: StridedConv1d) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return refuses(call.x) or partial(convolution, "strided_conv1d", call)


def prepare_backward(call: StridedConv1dBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return refuses(call.x) or partial(gradients, "strided_conv1d", call, call.y)

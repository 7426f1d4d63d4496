"""`upsample` and its gradient on a GPU: a network of one layer."""

from __future__ import annotations

from fastvoc.ops.cuda import gradients, operator
from fastvoc.ops.network import INPUT, Layer
from fastvoc.ops.op import Prepared
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward


def prepare(call: Upsample) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return operator.prepare([_layer(call)], call.x)


def prepare_backward(call: UpsampleBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return gradients.prepare(call.grad, call.x, _layer(call.forward), call.needs)


def _layer(call: Upsample) -> Layer:
    return Layer(
        kind="upsample",
        input=INPUT,
        weight=call.weight,
        bias=call.bias,
        padding=(call.left, call.right),
        stride=call.stride,
        slope=call.slope,
    )

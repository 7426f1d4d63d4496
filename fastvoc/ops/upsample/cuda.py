"""`upsample` and its gradient on a GPU: a network of one layer."""

from __future__ import annotations

from fastvoc.ops.cuda import gradients, operator
from fastvoc.ops.network import INPUT, Layer
from fastvoc.ops.op import Prepared
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward


def prepare(call: Upsample) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return operator.prepare(call, lambda call: [_layer(call)], _operands)


def prepare_backward(call: UpsampleBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return gradients.prepare(call, _layer(call.forward))


def _operands(call: Upsample) -> operator.Operands:
    return operator.Operands([(call.weight, call.bias)], call.x)


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

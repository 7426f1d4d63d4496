"""`conv1d` and its gradient on a GPU: a network of one layer."""

from __future__ import annotations

from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.cuda import gradients, operator
from fastvoc.ops.network import INPUT, NOTHING, OTHER_INPUT, Layer
from fastvoc.ops.op import Prepared


def prepare(call: Conv1d) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return operator.prepare(call, lambda call: [_layer(call)], _operands)


def prepare_backward(call: Conv1dBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return gradients.prepare(call, _layer(call.forward))


def _operands(call: Conv1d) -> operator.Operands:
    return operator.Operands([(call.weight, call.bias)], call.x, call.residual)


def _layer(call: Conv1d) -> Layer:
    return Layer(
        kind="conv1d",
        input=INPUT,
        weight=call.weight,
        bias=call.bias,
        padding=(call.left, call.right),
        padding_mode=call.padding_mode,
        dilation=call.dilation,
        slope=call.slope,
        residual=NOTHING if call.residual is None else OTHER_INPUT,
        tanh=call.tanh,
    )

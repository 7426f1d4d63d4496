"""`gated` on the CPU: the C++ kernels of `conv1d` and of `gate` one after the other."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fastvoc.ops.conv1d.call import Conv1d
from fastvoc.ops.cpu import convolution, refuses
from fastvoc.ops.gate import cpu as gate
from fastvoc.ops.gate.call import Gate
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.op import Prepared, Slower, prepared


def prepare(call: Gated) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    reason = refuses(call.x)
    if reason is None and call.frames == 1:
        reason = Slower("the result is a single frame, for which plain PyTorch was measured to be faster")
    return prepared(partial(run, call), reason)


def run(call: Gated) -> tuple[Tensor, Tensor]:
    """Run the kernels; a frame does not depend on how many there are."""
    x, out_bias, channels = call.x, call.out_bias, call.residual_channels
    settings = call.dilation, call.left, call.right
    a = convolution("conv1d", Conv1d(x, call.weight, call.bias, call.condition, *settings), call.condition)
    g = gate.run(Gate(a, call.sigmoid_first))
    residual, skip = call.empty()
    if channels:
        own = x[..., call.before - call.left :][..., : call.frames]
        bias = None if out_bias is None else out_bias[:channels]
        residual = convolution("conv1d", Conv1d(g, call.out_weight[:channels], bias, own), own)
        residual = residual if call.scale == 1.0 else residual.mul_(call.scale)
    if call.skip_channels:
        bias = None if out_bias is None else out_bias[channels:]
        skip = convolution("conv1d", Conv1d(g, call.out_weight[channels:], bias, call.skip), call.skip)
    return residual, skip

"""The C++ kernels of `conv1d` and of its gradient."""

from __future__ import annotations

from functools import partial

from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.cpu import convolution, gradients, refuses
from fastvoc.ops.op import Prepared, Slower


def prepare(call: Conv1d) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    if reason := refuses(call.x):
        return reason
    run = partial(convolution, "conv1d", call, call.residual)
    if call.shape[2] == 1:
        # The packing of the weight decides: with 256 channels and 3 taps, one frame takes 93 us against 37 us, but two
        # take 91 us against 178 us (one core of an AMD EPYC of family 26, 2026-11-20).
        return Slower("the result is a single frame, for which plain PyTorch was measured to be faster", run)
    return run


def prepare_backward(call: Conv1dBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    if reason := refuses(call.x):
        return reason
    run = partial(gradients, "conv1d", call)
    batch, _, frames = call.grad.shape
    if frames == 1:
        # 256 channels, 3 taps: one frame takes 201 us against 89 us, two 208 us against 262 us (same machine and day).
        return Slower("the gradient is a single frame, for which plain PyTorch was measured to be faster", run)
    if not call.needs[0] and batch * frames < 32:
        # The same layer, without x's gradient: 16 frames take 262 us against 155 us (as above).
        return Slower(
            "only the weight's gradient of a few frames is needed; plain PyTorch was measured to be faster", run
        )
    return run

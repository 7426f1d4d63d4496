"""The C++ kernels of `upsample` and of its gradient."""

from __future__ import annotations

from functools import partial

from fastvoc.ops.cpu import convolution, gradients, refuses
from fastvoc.ops.op import Prepared, Slower
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward


def prepare(call: Upsample) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    if reason := refuses(call.x):
        return reason
    run = partial(convolution, "upsample", call)
    if call.x.shape[2] == 1:
        # 256 channels to 128, 16 taps: one frame takes 223 us against 62 us, four 219 us against 1070 us (same machine
        # and day as in `conv1d`).
        return Slower("x has a single frame, for which plain PyTorch was measured to be faster", run)
    return run


def prepare_backward(call: UpsampleBackward) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    if reason := refuses(call.x):
        return reason
    run = partial(gradients, "upsample", call)
    if call.x.shape[2] == 1:
        # 512 channels to 256, 16 taps: one frame takes 2.6 ms against 1.2 ms, two 2.7 ms against 3.7 ms (as above).
        return Slower("x has a single frame, for which plain PyTorch was measured to be faster", run)
    return run

"""The Triton kernels of `convnext`: convolution and norm, the product before the GELU, and the one behind it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.ops.availability import interpreted
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.layout import empty_channels_last
from fastvoc.ops.op import Prepared, prepared
from fastvoc.ops.ragged import ragged_arguments, ragged_lengths
from fastvoc.ops.triton.convolution import convolution
from fastvoc.ops.triton.launch import Launch, dense, refuses, strides
from fastvoc.ops.triton.tiles import shape_of, slower

MOST_CHANNELS = 4096
"""That one program normalises: 32 values in each of its threads."""


def prepare(call: Convnext) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    (_, channels, given), hidden, frames = call.x.shape, call.expand.shape[0], call.shape[2]
    reason = refuses(call.x, (hidden, frames))
    if channels > MOST_CHANNELS:
        reason = f"x has {channels} channels; a program normalises {MOST_CHANNELS} at most"
    elif ragged_lengths(given) is not None and frames != given:
        reason = f"{given} frames become {frames}; where items end before the tensor does, a block has to keep them"
    elif ragged_lengths(given) is not None and call.x.dtype == torch.float32:
        reason = "x is torch.float32, which PyTorch multiplies; it does not know where items end"
    return prepared(partial(_run, call), reason or slower(shape_of("convnext", channels, hidden, 1, 1, call.x)))


def _run(call: Convnext) -> Tensor:
    """Run the kernels; float32 is multiplied by PyTorch's own products, since no matrix unit multiplies it exactly."""
    _, channels, frames = call.shape
    normal = empty_channels_last(call.x, channels, frames)
    norm_launch(call, normal)()
    if call.x.dtype != torch.float32:
        hidden = empty_channels_last(call.x, call.expand.shape[0], frames)
        y = call.empty()
        expand_launch(call, normal, hidden)()
        contract_launch(call, hidden, y)()
        return y
    hidden = F.gelu(F.linear(normal.mT, call.expand, call.expand_bias))
    made = F.linear(hidden, call.contract, call.contract_bias)
    return torch.addcmul(call.own().mT, made, call.scale, out=made).mT


def norm_launch(call: Convnext, normal: Tensor) -> Launch:
    """Describe the launch of the convolution and the norm, which fills `normal`, channels-last."""
    from fastvoc.ops.triton import normalise as kernels

    x, (batch, channels, frames) = call.x, call.shape
    wide = max(16, 1 << (channels - 1).bit_length())
    rows = 64 if interpreted() else max(1, 2048 // wide)
    arguments: dict[str, Any] = {
        "x": x,
        "weight": call.depthwise.contiguous(),
        "bias": call.depthwise_bias.contiguous(),
        "norm": call.norm.contiguous(),
        "norm_bias": call.norm_bias.contiguous(),
        "y": normal,
        **ragged_arguments(x.shape[2]),
        **strides("x", x),
        "frames": x.shape[2],
        "out_frames": frames,
        "left": call.left,
        "eps": call.eps,
    }
    return Launch(
        kernel=kernels.convolve_and_normalise,
        grid=(-(-frames // rows), 1, batch),
        arguments=arguments,
        constants={
            "CHANNELS": channels,
            "TAPS": call.taps,
            "X_DENSE": dense(x),
            "BLOCK_ROWS": rows,
            "BLOCK_CHANNELS": wide,
        },
        warps=4,
        stages=1,
    )


def expand_launch(call: Convnext, normal: Tensor, hidden: Tensor) -> Launch:
    """Describe the launch of the product before the GELU, and of that."""
    return convolution(
        normal,
        call.expand.contiguous()[None],
        call.expand_bias,
        hidden,
        name="convnext",
        dilation=1,
        shift=0,
        finish="gelu",
    )


def contract_launch(call: Convnext, hidden: Tensor, y: Tensor) -> Launch:
    """Describe the launch of the product behind the GELU, of its scale, and of the input that is added."""
    return convolution(
        hidden,
        call.contract.contiguous()[None],
        call.contract_bias,
        y,
        name="convnext",
        dilation=1,
        shift=0,
        scale=call.scale,
        beside=call.own(),
    )

"""The Triton kernel that begins `convnext`: a depthwise convolution, and the layer norm of each frame behind it."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["frames", "out_frames", "left", "bucket", "rate"])
def convolve_and_normalise(
    x,
    weight,
    bias,
    norm,
    norm_bias,
    y,
    lengths,
    x_batch,
    x_row,
    x_channel,
    frames,
    out_frames,
    left,
    bucket,
    rate,
    eps,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    X_DENSE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Make BLOCK_ROWS frames of all channels; `y` is (B, out_frames, CHANNELS) without gaps.

    Nothing is rounded between the convolution and the end. `lengths` are as in `kernels.convolve`.
    """
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    item = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channels = tl.arange(0, BLOCK_CHANNELS)
    real = channels < CHANNELS
    x += item * x_batch
    y += item * out_frames * CHANNELS
    if lengths is not None:
        missing = (bucket - tl.load(lengths + item)) * rate
        frames -= missing
        out_frames -= missing
    total = tl.zeros((BLOCK_ROWS, BLOCK_CHANNELS), tl.float32)
    for tap in tl.static_range(TAPS):
        row = rows + (tap - left)
        inside = ((row >= 0) & (row < frames))[:, None] & real[None, :]
        values = tl.load(x + row[:, None] * x_row + channels[None, :] * x_channel, mask=inside, other=0.0)
        w = tl.load(weight + channels * TAPS + tap, mask=real, other=0.0).to(tl.float32)
        total += values.to(tl.float32) * w[None, :]
    total += tl.load(bias + channels, mask=real, other=0.0).to(tl.float32)[None, :]
    mean = tl.sum(total, axis=1) / CHANNELS
    total = tl.where(real[None, :], total - mean[:, None], 0.0)
    variance = tl.sum(total * total, axis=1) / CHANNELS
    total = total * tl.div_rn(variance * 0.0 + 1.0, tl.sqrt_rn(variance + eps))[:, None]
    total *= tl.load(norm + channels, mask=real, other=0.0).to(tl.float32)[None, :]
    total += tl.load(norm_bias + channels, mask=real, other=0.0).to(tl.float32)[None, :]
    mask = (rows < out_frames)[:, None] & real[None, :]
    tl.store(y + rows[:, None] * CHANNELS + channels[None, :], total.to(y.dtype.element_ty), mask=mask)

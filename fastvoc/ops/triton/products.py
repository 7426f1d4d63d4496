"""What the Triton kernels of convolutions share: rows of a padded input, and the sum of the products of all taps."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(x, slope):
    """Leaky ReLU, rounded once."""
    wide = x.to(tl.float32)
    return tl.where(wide > 0, wide, wide * slope).to(x.dtype)


@triton.jit
def bring(row, frames, PADDING: tl.constexpr):
    """Return the row of the input that stands at a row of the padded input, and whether there is one."""
    if PADDING == "reflect":
        row = tl.where(row < 0, -row, row)
        row = tl.where(row >= frames, 2 * (frames - 1) - row, row)
    if PADDING == "replicate":
        row = tl.minimum(tl.maximum(row, 0), frames - 1)
    return row, (row >= 0) & (row < frames)


@triton.jit
def accumulate(
    total,
    x,
    x_row,
    x_channel,
    weight,
    rows,
    columns,
    frames,
    taps,
    dilation,
    shift,
    slope,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDING: tl.constexpr,
    ACTIVATE: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
    FLAT: tl.constexpr = False,
):
    """Add the products of all taps to `total`; the weight lies as (taps, COLUMNS, CHANNELS).

    Taps and channels are one flat loop: unrolling the taps, or nesting the loops, breaks the software pipeline. With
    FLAT, a step goes through as many taps as fill it, which few channels leave room for.
    """
    CHUNKS: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    steps = (taps * CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS if FLAT else taps * CHUNKS
    for step in tl.range(0, steps, num_stages=STAGES):
        if FLAT:
            place = step * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
            taps_here = place // CHANNELS
            channels = place % CHANNELS
            row, inside = bring(rows[:, None] + (taps_here * dilation - shift)[None, :], frames, PADDING)
            values = x + row * x_row + channels[None, :] * x_channel
            weights = weight + (taps_here * COLUMNS)[:, None] * CHANNELS + columns[None, :] * CHANNELS
            weights += channels[:, None]
            a = tl.load(values, mask=inside & (taps_here < taps)[None, :], other=0.0)
            w = tl.load(weights, mask=(columns < COLUMNS)[None, :] & (taps_here < taps)[:, None], other=0.0)
        else:
            tap = step // CHUNKS
            channels = (step % CHUNKS) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
            row, inside = bring(rows + tap * dilation - shift, frames, PADDING)
            values = x + row[:, None] * x_row + channels[None, :] * x_channel
            weights = weight + (tap * COLUMNS + columns)[None, :] * CHANNELS + channels[:, None]
            if CHANNELS % BLOCK_CHANNELS != 0:
                a = tl.load(values, mask=inside[:, None] & (channels < CHANNELS)[None, :], other=0.0)
                w = tl.load(weights, mask=(columns < COLUMNS)[None, :] & (channels < CHANNELS)[:, None], other=0.0)
            else:
                a = tl.load(values, mask=inside[:, None], other=0.0)
                if COLUMNS % BLOCK_COLUMNS != 0:
                    w = tl.load(weights, mask=(columns < COLUMNS)[None, :], other=0.0)
                else:
                    w = tl.load(weights)
        if WIDEN:
            a = a.to(tl.float32)
            w = w.to(tl.float32)
        if ACTIVATE:
            a = activate(a, slope)
        total = tl.dot(a, w, total, input_precision=PRECISION)
    return total

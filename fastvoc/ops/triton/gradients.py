"""The Triton kernels of the gradients for weight and bias: products over time, in parts that are added in order.

For tap `k`, the gradient pairs row `r` of one tensor with row ``r hop + k dilation - shift`` of another, the *fixed*
and the *shifted* one. Time is cut into splits, one program for each, whose sums lie side by side in a workspace until
a second kernel adds them up in order: twice the same call gives twice the same bits.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastvoc.ops.triton.products import activate, bring


@triton.jit
def column_sums(g, g_batch, g_row, g_channel, columns, frames, batch, split, SPLITS, CHANNELS, BLOCK_TIME, BLOCK):
    """Sum one split of a tensor over items and frames, for a tile of its channels."""
    chunks = (frames + BLOCK_TIME - 1) // BLOCK_TIME
    share = (batch * chunks + SPLITS - 1) // SPLITS
    total = tl.zeros((BLOCK_TIME, BLOCK), tl.float32)
    for step in range(split * share, tl.minimum((split + 1) * share, batch * chunks)):
        row = (step % chunks) * BLOCK_TIME + tl.arange(0, BLOCK_TIME)
        values = g + (step // chunks).to(tl.int64) * g_batch + row[:, None] * g_row + columns[None, :] * g_channel
        mask = (row < frames)[:, None] & (columns < CHANNELS)[None, :]
        total += tl.load(values, mask=mask, other=0.0).to(tl.float32)
    return tl.sum(total.to(tl.float64), axis=0).to(tl.float32)


@triton.jit(do_not_specialize=["batch", "frames", "shifted_frames", "taps", "dilation", "shift", "splits"])
def weight_gradient(
    shifted,
    fixed,
    workspace,
    shifted_batch,
    shifted_row,
    shifted_channel,
    fixed_batch,
    fixed_row,
    fixed_channel,
    batch,
    frames,
    shifted_frames,
    hop,
    taps,
    dilation,
    shift,
    splits,
    slope,
    SHIFTED: tl.constexpr,
    FIXED: tl.constexpr,
    GROUPS: tl.constexpr,
    MERGED: tl.constexpr,
    FLAT: tl.constexpr,
    PADDING: tl.constexpr,
    ACTIVATE: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    ATOMIC: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Compute one tile of one tap, for one split of the time.

    ACTIVATE and BIAS name the tensor that goes through the leaky ReLU, and the one whose columns are summed:
    "shifted", "fixed" or "none". A split of the workspace holds (taps, SHIFTED, FIXED) sums, then those of the bias.

    With FLAT, the rows of a tile are the channels of several taps, so that few channels fill one too, and the frames of
    all items are one sequence: `fixed` has no gap between its items, and BIAS is not "shifted". Each of the GROUPS then
    covers MERGED groups of the convolution, and only what pairs channels of the same one is kept: the workspace holds
    (taps, SHIFTED / GROUPS / MERGED, FIXED) sums.
    """
    WIDTH: tl.constexpr = SHIFTED // GROUPS
    OUT: tl.constexpr = FIXED // GROUPS
    ROW_TILES: tl.constexpr = (WIDTH + BLOCK_ROWS - 1) // BLOCK_ROWS
    COLUMN_TILES: tl.constexpr = (OUT + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    place = tl.program_id(0)
    split = tl.program_id(1)
    column_tile = place % COLUMN_TILES
    if FLAT:
        row_tiles = (taps * WIDTH + BLOCK_ROWS - 1) // BLOCK_ROWS
        row_tile = place // COLUMN_TILES % row_tiles
        group = place // COLUMN_TILES // row_tiles
        shifted += group * WIDTH * shifted_channel
        fixed += group * OUT * fixed_channel
        flat = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        m = flat % WIDTH
        taps_here = flat // WIDTH
        first = row_tile == 0
    else:
        tap = place // (ROW_TILES * COLUMN_TILES)
        row_tile = place // COLUMN_TILES % ROW_TILES
        m = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        first = tap == 0
    n = column_tile * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    SUMS: tl.constexpr = WIDTH // MERGED * FIXED
    BIASES: tl.constexpr = 0 if BIAS == "none" else (FIXED if BIAS == "fixed" else SHIFTED)
    if not ATOMIC:
        workspace += split.to(tl.int64) * ((taps * SUMS if WEIGHT else 0) + BIASES)
    if WEIGHT:
        if FLAT:
            steps = (batch * frames + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
        else:
            chunks = (frames + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
            steps = batch * chunks
        share = (steps + splits - 1) // splits
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        begin = split * share
        for step in tl.range(begin, tl.minimum(begin + share, steps), num_stages=STAGES):
            if FLAT:
                time = step * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
                there = (time % frames * hop - shift)[None, :] + (taps_here * dilation)[:, None]
                row, inside = bring(there, shifted_frames, PADDING)
                inside = inside & (time < batch * frames)[None, :] & (taps_here < taps)[:, None]
                items = shifted + (time // frames).to(tl.int64) * shifted_batch
                values = items[None, :] + row * shifted_row + m[:, None] * shifted_channel
                others = fixed + time[:, None] * fixed_row + n[None, :] * fixed_channel
                a = tl.load(values, mask=inside, other=0.0)
                b = tl.load(others, mask=(time < batch * frames)[:, None] & (n < OUT)[None, :], other=0.0)
            else:
                item = (step // chunks).to(tl.int64)
                time = (step % chunks) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
                row, inside = bring(time * hop + tap * dilation - shift, shifted_frames, PADDING)
                inside = inside & (time < frames)
                values = shifted + item * shifted_batch + row[None, :] * shifted_row + m[:, None] * shifted_channel
                others = fixed + item * fixed_batch + time[:, None] * fixed_row + n[None, :] * fixed_channel
                a = tl.load(values, mask=inside[None, :] & (m < SHIFTED)[:, None], other=0.0)
                b = tl.load(others, mask=(time < frames)[:, None] & (n < FIXED)[None, :], other=0.0)
            if WIDEN:
                a = a.to(tl.float32)
                b = b.to(tl.float32)
            if ACTIVATE == "shifted":
                a = activate(a, slope)
            if ACTIVATE == "fixed":
                b = activate(b, slope)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        if FLAT:
            PART: tl.constexpr = WIDTH // MERGED
            where = workspace + (taps_here * PART + m % PART)[:, None] * FIXED + (group * OUT + n)[None, :]
            together = (m // PART)[:, None] == (n // (OUT // MERGED))[None, :]
            real = together & (taps_here < taps)[:, None] & (n < OUT)[None, :]
        else:
            where = workspace + (tap * SHIFTED + m)[:, None] * FIXED + n[None, :]
            real = (m < SHIFTED)[:, None] & (n < FIXED)[None, :]
        if ATOMIC:
            tl.atomic_add(where, total, mask=real)
        else:
            tl.store(where, total, mask=real)
        workspace += taps * SUMS
    if BIAS != "none":
        other_tile = row_tile if BIAS == "fixed" else column_tile
        if first & (other_tile == 0):
            if FLAT:
                sums = column_sums(
                    fixed, fixed_batch, fixed_row, fixed_channel, n, batch * frames,
                    1, split, splits, OUT, BLOCK_CHANNELS, BLOCK_COLUMNS,
                )  # fmt: skip
                there = tl.where(n < OUT, group * OUT + n, BIASES)
            elif BIAS == "fixed":
                sums = column_sums(
                    fixed, fixed_batch, fixed_row, fixed_channel, n, frames,
                    batch, split, splits, FIXED, BLOCK_CHANNELS, BLOCK_COLUMNS,
                )  # fmt: skip
                there = n
            else:
                sums = column_sums(
                    shifted, shifted_batch, shifted_row, shifted_channel, m, shifted_frames,
                    batch, split, splits, SHIFTED, BLOCK_CHANNELS, BLOCK_ROWS,
                )  # fmt: skip
                there = m
            if ATOMIC:
                tl.atomic_add(workspace + there, sums, mask=there < BIASES)
            else:
                tl.store(workspace + there, sums, mask=there < BIASES)


@triton.jit(do_not_specialize=["splits", "weights", "size"])
def add_splits(
    workspace,
    weight,
    bias,
    splits,
    weights,
    size,
    taps_stride,
    shifted_stride,
    fixed_stride,
    SHIFTED: tl.constexpr,
    FIXED: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the splits of a workspace, round once, and put weight and bias where they belong.

    SPLITS of them are added side by side, each to those that stand SPLITS further, and at last to each other: the order
    is the same in every run, and no load waits for the one before.
    """
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.arange(0, SPLITS)
    partial = tl.zeros((SPLITS, BLOCK), tl.float32)
    for first in range(0, splits, SPLITS):
        row = first + rows
        values = workspace + row.to(tl.int64)[:, None] * size + place[None, :]
        partial += tl.load(values, mask=(row < splits)[:, None] & (place < size)[None, :], other=0.0)
    total = tl.sum(partial, axis=0)
    if weight is not None:
        where = (
            place // (SHIFTED * FIXED) * taps_stride
            + place // FIXED % SHIFTED * shifted_stride
            + place % FIXED * fixed_stride
        )
        tl.store(weight + where, total.to(weight.dtype.element_ty), mask=place < weights)
    if bias is not None:
        tl.store(bias + place - weights, total.to(bias.dtype.element_ty), mask=(place >= weights) & (place < size))

"""The Triton kernel of every convolution: a sum of shifted matrix products, with everything around it.

Forward or backward, dilated or transposed, a convolution is one sum: row `r` of the result adds up, for each tap `k`,
row ``r hop + k dilation - shift`` of the input times the matrix of that tap. Padding is arithmetic on that row;
activation, bias, residual and tanh happen on the way in and out. Groups of channels are convolutions side by side.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastvoc.ops.triton.products import accumulate


@triton.jit
def tanh(x):
    """Hyperbolic tangent, with a relative error of a few ulp; Triton's own is foreign code that no interpreter runs."""
    # Lambert's continued fraction to x^7: exact to 1e-10 below 1, and without cancellation at 0.
    small = tl.minimum(tl.abs(x), 1.0)
    square = small * small
    above = small * (135135.0 + square * (17325.0 + square * (378.0 + square)))
    below = 135135.0 + square * (62370.0 + square * (3150.0 + square * 28.0))
    decay = tl.exp(-2.0 * tl.abs(x))
    size = tl.where(tl.abs(x) < 1.0, tl.div_rn(above, below), tl.div_rn(1.0 - decay, 1.0 + decay))
    return tl.where(x < 0, -size, size)


@triton.jit
def copies(rows, image, frames, left, right, PADDING: tl.constexpr):
    """Return the rows of the padded input that hold a copy of each row, far outside where there is none.

    Copy 0 is the row itself. Reflection makes one more at each end; replication copies only the outermost rows.
    """
    if PADDING == "reflect":
        there = tl.where(image == 1, -rows, 2 * (frames - 1) - rows)
        real = tl.where(image == 1, (rows >= 1) & (rows <= left), (rows < frames - 1) & (rows >= frames - 1 - right))
    else:
        there = tl.where(image <= left, -image, frames - 1 + image - left) + rows * 0
        real = tl.where(image <= left, rows == 0, rows == frames - 1)
    return tl.where(image == 0, rows, tl.where(real, there, -(1 << 29)))


@triton.jit(
    do_not_specialize=[
        "frames", "out_frames", "first", "taps", "dilation", "shift", "left", "right", "crop", "bucket",
        "rate", "batch", "item_rows",
    ]
)  # fmt: skip
def convolve(
    x,
    weight,
    bias,
    scale,
    beside,
    y,
    lengths,
    x_batch,
    x_row,
    x_channel,
    beside_batch,
    beside_row,
    beside_channel,
    y_batch,
    y_row,
    y_channel,
    frames,
    out_frames,
    first,
    hop,
    taps,
    dilation,
    shift,
    left,
    right,
    crop,
    bucket,
    rate,
    slope,
    out_slope,
    batch,
    item_rows,
    CHANNELS: tl.constexpr,
    OUT: tl.constexpr,
    GROUPS: tl.constexpr,
    PHASES: tl.constexpr,
    PADDING: tl.constexpr,
    COPIES: tl.constexpr,
    ACTIVATE: tl.constexpr,
    BESIDE: tl.constexpr,
    FINISH: tl.constexpr,
    FOLD: tl.constexpr,
    FLAT: tl.constexpr,
    X_DENSE: tl.constexpr,
    BESIDE_DENSE: tl.constexpr,
    Y_DENSE: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Compute one tile of a convolution, dilated or transposed, or of its gradient for the input.

    A row makes `PHASES` neighbouring frames of `OUT` channels: ``row PHASES + phase - crop``. The weight of each of the
    GROUPS lies behind that of the one before. With FOLD, the rows of all items, `item_rows` each, are one sequence, so
    that short items share a tile; `lengths` is None and COPIES "none" then. FLAT is that of `accumulate`.

    BESIDE is "none"; "add", a residual; "restore", a residual of which the leaky ReLU is stored; or "gate", the input
    whose sign decides the slope of a gradient. FINISH is "none", "tanh", "activate" or "gelu". With `scale`, each
    channel is multiplied by a number before anything is added. COPIES is the padding whose copies give their gradient
    back. With `lengths`, an item has ``(bucket - lengths[item]) rate`` frames fewer. A dense tensor is channels-last
    without gaps: its strides are known when this is compiled, and with them how far addresses are aligned.
    """
    WIDTH: tl.constexpr = CHANNELS // GROUPS
    COLUMNS: tl.constexpr = OUT // GROUPS * PHASES
    TILES: tl.constexpr = (COLUMNS + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if BESIDE_DENSE:
        beside_batch = out_frames * OUT
        beside_row = OUT
        beside_channel = 1
    if Y_DENSE:
        y_batch = out_frames * OUT
        y_row = OUT
        y_channel = 1
    if FOLD:
        place = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        rows = first + place % item_rows
        far = tl.minimum(place // item_rows, batch - 1).to(tl.int64)[:, None]
    else:
        rows = first + tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        item = tl.program_id(2)
        far = item.to(tl.int64)
    if GROUPS == 1:
        columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    else:
        group = tl.program_id(1) // TILES
        columns = tl.program_id(1) % TILES * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
        x += group * WIDTH * x_channel
        weight += group * taps * (COLUMNS * WIDTH)
    x += far * x_batch
    if lengths is not None:
        missing = (bucket - tl.load(lengths + item)) * rate
        frames -= missing
        out_frames -= missing * PHASES
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    if COPIES == "none":
        total = accumulate(
            total, x, x_row, x_channel, weight, rows * hop, columns, frames, taps, dilation, shift, slope,
            WIDTH, COLUMNS, PADDING, ACTIVATE, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES, FLAT,
        )  # fmt: skip
    else:
        begin = tl.program_id(0) * BLOCK_ROWS
        edge = (begin <= left) | (begin + BLOCK_ROWS >= out_frames - 1 - right)
        images = 3 if COPIES == "reflect" else 1 + left + right
        for image in range(tl.where(edge, images, 1)):
            there = copies(rows, image, out_frames, left, right, COPIES)
            total = accumulate(
                total, x, x_row, x_channel, weight, there, columns, frames, taps, dilation, shift, slope,
                WIDTH, COLUMNS, PADDING, ACTIVATE, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES, FLAT,
            )  # fmt: skip
    if PHASES == 1:
        frame = rows[:, None]
        channel = columns[None, :]
    else:
        frame = rows[:, None] * PHASES + (columns // (OUT // GROUPS))[None, :] - crop
        channel = (columns % (OUT // GROUPS))[None, :]
    if GROUPS > 1:
        channel += group * (OUT // GROUPS)
    real = (frame >= 0) & (frame < out_frames) & (columns < COLUMNS)[None, :]
    if FOLD:
        real = real & (place < batch * item_rows)[:, None]
    if bias is not None:
        total += tl.load(bias + channel, mask=(columns < COLUMNS)[None, :], other=0.0).to(tl.float32)
    if scale is not None:
        total *= tl.load(scale + channel, mask=(columns < COLUMNS)[None, :], other=0.0).to(tl.float32)
    if BESIDE != "none":
        beside += far * beside_batch
        other = tl.load(beside + frame * beside_row + channel * beside_channel, mask=real, other=0.0).to(tl.float32)
        if BESIDE == "gate":
            total = tl.where(other > 0, total, total * out_slope)
        elif BESIDE == "restore":
            total += tl.where(other > 0, other, other / slope)
        else:
            total += other
    if FINISH == "tanh":
        total = tanh(total)
    if FINISH == "activate":
        total = tl.where(total > 0, total, total * out_slope)
    if FINISH == "gelu":
        total = 0.5 * total * (1.0 + tl.erf(total * 0.70710678))
    y += far * y_batch
    if Y_DENSE and GROUPS == 1:
        # The frames of a row are one run of memory, which the division above would hide.
        where = rows[:, None] * (PHASES * OUT) - crop * OUT + columns[None, :]
    else:
        where = frame * y_row + channel * y_channel
    tl.store(y + where, total.to(y.dtype.element_ty), mask=real)

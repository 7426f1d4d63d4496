"""The Triton kernel of residual blocks: one convolution of every branch in one launch, or the mean that ends them."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastvoc.ops.triton.products import accumulate


@triton.jit(do_not_specialize=["batch", "frames", "bucket", "rate"])
def convolve_branches(
    x,
    weight,
    bias,
    skip,
    skip_weight,
    y,
    taps_of,
    lengths,
    x_batch,
    x_row,
    x_channel,
    skip_batch,
    skip_row,
    skip_channel,
    y_batch,
    y_row,
    y_channel,
    batch,
    frames,
    bucket,
    rate,
    slope,
    CHANNELS: tl.constexpr,
    BRANCHES: tl.constexpr,
    MEAN: tl.constexpr,
    X_SHARED: tl.constexpr,
    SKIP_SHARED: tl.constexpr,
    PADDING: tl.constexpr,
    ACTIVATE: tl.constexpr,
    SKIP: tl.constexpr,
    X_DENSE: tl.constexpr,
    SKIP_DENSE: tl.constexpr,
    Y_DENSE: tl.constexpr,
    FINISH: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Compute one tile of one branch, or with MEAN of the mean over them all.

    Features lie as (branches, B, T, CHANNELS), or once for all branches where they are shared; the mean is one tensor.
    `taps_of` holds, for each branch, its taps, dilation, shift, and the place of its first tap in `weight`. SKIP is
    "none"; "add", a residual; "restore", a residual of which the leaky ReLU is stored; or "convolve", a residual that
    goes through a 1x1 convolution. FINISH is "none" or "activate". The rest is as in `kernels.convolve`.
    """
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if SKIP_DENSE:
        skip_batch = frames * CHANNELS
        skip_row = CHANNELS
        skip_channel = 1
    if Y_DENSE:
        y_batch = frames * CHANNELS
        y_row = CHANNELS
        y_channel = 1
    place = tl.program_id(2)
    if MEAN:
        item = place
        first_branch = 0
        count = BRANCHES
    else:
        item = place % batch
        first_branch = place // batch
        count = 1
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    if lengths is not None:
        frames -= (bucket - tl.load(lengths + item)) * rate
    far = item.to(tl.int64)
    real = (rows < frames)[:, None] & (columns < CHANNELS)[None, :]
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for number in range(count):
        branch = first_branch + number
        stacked = branch * batch + far
        taps = tl.load(taps_of + 4 * branch)
        dilation = tl.load(taps_of + 4 * branch + 1)
        shift = tl.load(taps_of + 4 * branch + 2)
        start = tl.load(taps_of + 4 * branch + 3)
        features = x + (far if X_SHARED else stacked) * x_batch
        total = accumulate(
            total, features, x_row, x_channel, weight + start * (CHANNELS * CHANNELS),
            rows, columns, frames, taps, dilation, shift, slope,
            CHANNELS, CHANNELS, PADDING, ACTIVATE, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES,
        )  # fmt: skip
        total += tl.load(bias + branch * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)[None, :]
        source = skip + (far if SKIP_SHARED else stacked) * skip_batch
        if SKIP == "convolve":
            total = accumulate(
                total, source, skip_row, skip_channel, skip_weight + branch * (CHANNELS * CHANNELS),
                rows, columns, frames, 1, 1, 0, slope,
                CHANNELS, CHANNELS, "zero", False, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES,
            )  # fmt: skip
        elif SKIP != "none":
            values = source + rows[:, None] * skip_row + columns[None, :] * skip_channel
            other = tl.load(values, mask=real, other=0.0).to(tl.float32)
            if SKIP == "restore":
                total += tl.where(other > 0, other, other / slope)
            else:
                total += other
    if MEAN and BRANCHES > 1:
        total = total / BRANCHES
    if FINISH == "activate":
        total = tl.where(total > 0, total, total * slope)
    y += (first_branch * batch + far) * y_batch
    tl.store(y + rows[:, None] * y_row + columns[None, :] * y_channel, total.to(y.dtype.element_ty), mask=real)

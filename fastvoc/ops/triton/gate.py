"""The Triton kernels of `gated`: the convolution with its gate, and the products of what that lets through; and `gate`.

Rows of the weight that meet in the gate are neighbours, so that both halves of a tile lie in the registers of the same
threads. Where one tile holds all gates, the products follow in the same launch.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastvoc.ops.triton.products import accumulate


@triton.jit
def passed(a, b):
    """Return tanh(a) / (1 + e^-b), by one division."""
    square = a * a
    size = 0.0205528200 + square * -0.00561560340
    size = -0.0537098377 + square * size
    size = 0.133309969 + square * size
    size = -0.333332555 + square * size
    size = 1.0 + square * size
    decay = tl.exp(-2.0 * tl.abs(a))
    small = square < 0.4  # where 1 - e^-2a would cancel
    above = tl.where(small, a * size, tl.where(a < 0, decay - 1.0, 1.0 - decay))
    return above / (tl.where(small, 1.0, 1.0 + decay) * (1.0 + tl.exp(-b)))


@triton.jit
def connect(
    total, x, out_bias, skip, residual, skip_sum, rows, columns, out_frames, own, scale,
    x_row, x_channel, skip_row, skip_channel, residual_row, residual_channel, skip_sum_row, skip_sum_channel,
    RESIDUAL: tl.constexpr, SKIPS: tl.constexpr,
):  # fmt: skip
    """Make a tile of the residual and of the skip connection of products; the columns of the former come first."""
    real = (rows < out_frames)[:, None] & (columns < RESIDUAL + SKIPS)[None, :]
    if out_bias is not None:
        total += tl.load(out_bias + columns, mask=columns < RESIDUAL + SKIPS, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL > 0:
        inner = real & (columns < RESIDUAL)[None, :]
        values = x + (rows + own)[:, None] * x_row + columns[None, :] * x_channel
        made = (total + tl.load(values, mask=inner, other=0.0).to(tl.float32)) * scale
        where = residual + rows[:, None] * residual_row + columns[None, :] * residual_channel
        tl.store(where, made.to(residual.dtype.element_ty), mask=inner)
    if SKIPS > 0:
        outer = real & (columns >= RESIDUAL)[None, :]
        channel = columns - RESIDUAL
        if skip is not None:
            values = skip + rows[:, None] * skip_row + channel[None, :] * skip_channel
            total += tl.load(values, mask=outer, other=0.0).to(tl.float32)
        where = skip_sum + rows[:, None] * skip_sum_row + channel[None, :] * skip_sum_channel
        tl.store(where, total.to(skip_sum.dtype.element_ty), mask=outer)


@triton.jit(do_not_specialize=["frames", "out_frames", "taps", "dilation", "shift", "own", "bucket", "rate"])
def gate(
    x,
    weight,
    bias,
    condition,
    out_weight,
    out_bias,
    skip,
    let_through,
    residual,
    skip_sum,
    lengths,
    x_batch,
    x_row,
    x_channel,
    condition_batch,
    condition_row,
    condition_channel,
    skip_batch,
    skip_row,
    skip_channel,
    residual_batch,
    residual_row,
    residual_channel,
    skip_sum_batch,
    skip_sum_row,
    skip_sum_channel,
    frames,
    out_frames,
    taps,
    dilation,
    shift,
    own,
    bucket,
    rate,
    scale,
    CHANNELS: tl.constexpr,
    GATES: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SKIPS: tl.constexpr,
    SIGMOID_FIRST: tl.constexpr,
    X_DENSE: tl.constexpr,
    SKIP_DENSE: tl.constexpr,
    RESULT_DENSE: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Convolve and gate, for a tile of BLOCK_ROWS frames and half as many gates as BLOCK_COLUMNS.

    The weight lies as (taps, GATES, 2, CHANNELS). What the gate lets through goes to `let_through`, (B, out_frames,
    GATES) without gaps; where there is none, one tile holds all gates, and makes the results of it. Frame `r` is added
    to frame ``r + own`` of `x`. The rest is as in `kernels.convolve`.
    """
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if SKIP_DENSE:
        skip_batch = out_frames * SKIPS
        skip_row = SKIPS
        skip_channel = 1
    if RESULT_DENSE:
        residual_batch = out_frames * RESIDUAL
        residual_row = RESIDUAL
        residual_channel = 1
        skip_sum_batch = out_frames * SKIPS
        skip_sum_row = SKIPS
        skip_sum_channel = 1
    item = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    x += item * x_batch
    if let_through is not None:
        let_through += item * out_frames * GATES
    if lengths is not None:
        missing = (bucket - tl.load(lengths + item)) * rate
        frames -= missing
        out_frames -= missing
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    total = accumulate(
        total, x, x_row, x_channel, weight, rows, columns, frames, taps, dilation, shift, 1.0,
        CHANNELS, 2 * GATES, "zero", False, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES,
    )  # fmt: skip
    first, second = tl.split(tl.reshape(total, (BLOCK_ROWS, BLOCK_COLUMNS // 2, 2)))
    gates = tl.program_id(1) * (BLOCK_COLUMNS // 2) + tl.arange(0, BLOCK_COLUMNS // 2)
    real = (rows < out_frames)[:, None] & (gates < GATES)[None, :]
    if bias is not None:
        first += tl.load(bias + gates, mask=gates < GATES, other=0.0).to(tl.float32)[None, :]
        second += tl.load(bias + GATES + gates, mask=gates < GATES, other=0.0).to(tl.float32)[None, :]
    if condition is not None:
        condition += item * condition_batch
        values = condition + rows[:, None] * condition_row + gates[None, :] * condition_channel
        first += tl.load(values, mask=real, other=0.0).to(tl.float32)
        second += tl.load(values + GATES * condition_channel, mask=real, other=0.0).to(tl.float32)
    through = passed(second, first) if SIGMOID_FIRST else passed(first, second)
    through = through.to(x.dtype.element_ty)
    if let_through is not None:
        tl.store(let_through + rows[:, None] * GATES + gates[None, :], through, mask=real)
    else:
        skip_sum += item * skip_sum_batch
        if RESIDUAL > 0:
            residual += item * residual_batch
        if skip is not None:
            skip += item * skip_batch
        if WIDEN:
            through = through.to(tl.float32)
        for tile in range((RESIDUAL + SKIPS + BLOCK_OUT - 1) // BLOCK_OUT):
            place = tile * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
            mask = (place < RESIDUAL + SKIPS)[None, :] & (gates < GATES)[:, None]
            w = tl.load(out_weight + place[None, :] * GATES + gates[:, None], mask=mask, other=0.0)
            if WIDEN:
                w = w.to(tl.float32)
            connect(
                tl.dot(through, w, input_precision=PRECISION), x, out_bias, skip, residual, skip_sum,
                rows, place, out_frames, own, scale, x_row, x_channel, skip_row, skip_channel,
                residual_row, residual_channel, skip_sum_row, skip_sum_channel, RESIDUAL, SKIPS,
            )  # fmt: skip


@triton.jit(do_not_specialize=["frames", "out_frames", "own", "bucket", "rate"])
def multiply(
    let_through,
    x,
    out_weight,
    out_bias,
    skip,
    residual,
    skip_sum,
    lengths,
    x_batch,
    x_row,
    x_channel,
    skip_batch,
    skip_row,
    skip_channel,
    residual_batch,
    residual_row,
    residual_channel,
    skip_sum_batch,
    skip_sum_row,
    skip_sum_channel,
    frames,
    out_frames,
    own,
    bucket,
    rate,
    scale,
    CHANNELS: tl.constexpr,
    GATES: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SKIPS: tl.constexpr,
    X_DENSE: tl.constexpr,
    SKIP_DENSE: tl.constexpr,
    RESULT_DENSE: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Make a tile of the results of what the gate of `gate` let through."""
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if SKIP_DENSE:
        skip_batch = out_frames * SKIPS
        skip_row = SKIPS
        skip_channel = 1
    if RESULT_DENSE:
        residual_batch = out_frames * RESIDUAL
        residual_row = RESIDUAL
        residual_channel = 1
        skip_sum_batch = out_frames * SKIPS
        skip_sum_row = SKIPS
        skip_sum_channel = 1
    item = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    columns = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    x += item * x_batch
    let_through += item * out_frames * GATES
    skip_sum += item * skip_sum_batch
    if RESIDUAL > 0:
        residual += item * residual_batch
    if skip is not None:
        skip += item * skip_batch
    if lengths is not None:
        out_frames -= (bucket - tl.load(lengths + item)) * rate
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    total = accumulate(
        total, let_through, GATES, 1, out_weight, rows, columns, out_frames, 1, 1, 0, 1.0,
        GATES, RESIDUAL + SKIPS, "zero", False, WIDEN, PRECISION, BLOCK_CHANNELS, BLOCK_COLUMNS, STAGES,
    )  # fmt: skip
    connect(
        total, x, out_bias, skip, residual, skip_sum, rows, columns, out_frames, own, scale,
        x_row, x_channel, skip_row, skip_channel, residual_row, residual_channel, skip_sum_row, skip_sum_channel,
        RESIDUAL, SKIPS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["gates"])
def gate_alone(a, g, gates, length, SIGMOID_FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """Gate BLOCK numbers, whose halves lie `length` apart."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < gates
    first, second = halves(a, at, length, real)
    made = passed(second, first) if SIGMOID_FIRST else passed(first, second)
    tl.store(g + at, made.to(g.dtype.element_ty), mask=real)


@triton.jit(do_not_specialize=["gates"])
def gate_gradient(a, grad, grad_a, gates, length, SIGMOID_FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """Make the gradients of both halves of BLOCK gates."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    real = at < gates
    first, second = halves(a, at, length, real)
    if SIGMOID_FIRST:
        first, second = second, first
    given = tl.load(grad + at, mask=real, other=0.0).to(tl.float32)
    decay = tl.exp(-tl.abs(second))
    sigmoid = tl.where(second < 0, decay, 1.0) / (1.0 + decay)
    tanh = passed(first, tl.zeros_like(first) + 100.0)  # whose sigmoid is 1
    shrink = tl.exp(-2.0 * tl.abs(first))
    of_tanh = given * sigmoid * 4.0 * shrink / ((1.0 + shrink) * (1.0 + shrink))
    of_sigmoid = given * tanh * decay / ((1.0 + decay) * (1.0 + decay))
    if SIGMOID_FIRST:
        of_tanh, of_sigmoid = of_sigmoid, of_tanh
    place = at + at // length * length
    tl.store(grad_a + place, of_tanh.to(grad_a.dtype.element_ty), mask=real)
    tl.store(grad_a + place + length, of_sigmoid.to(grad_a.dtype.element_ty), mask=real)


@triton.jit
def halves(a, at, length, real):
    """Load the first and the second half of gates."""
    place = at + at // length * length
    first = tl.load(a + place, mask=real, other=0.0).to(tl.float32)
    return first, tl.load(a + place + length, mask=real, other=0.0).to(tl.float32)

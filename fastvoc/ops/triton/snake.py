"""The Triton kernels of `smooth_snake` and of its gradient: Snake at twice the rate, in one pass.

A lane makes neighbouring frames of one channel. It goes through time once, and keeps what its filters reach in
registers: six frames of the input, and six even and six odd ones of the doubled signal. Five even and five odd ones are
computed by two lanes each, since none sees what another computes. Six steps are one stretch of a loop: as many frames
later, a register holds the same of the six again, so that nothing has to be moved.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from fastvoc.ops.smooth_snake.call import FILTER, SMALLEST

F0 = tl.constexpr(FILTER[0])
F1 = tl.constexpr(FILTER[1])
F2 = tl.constexpr(FILTER[2])
F3 = tl.constexpr(FILTER[3])
F4 = tl.constexpr(FILTER[4])
F5 = tl.constexpr(FILTER[5])
"""Half of the filter; the other half is the same, backwards, so that its odd taps are its even ones backwards."""

LEAST = tl.constexpr(SMALLEST)
"""What is added to what divides."""

MAGIC = tl.constexpr(12582912.0)
"""1.5 · 2²³: what is added to it is rounded to a whole number."""

QUARTER = tl.constexpr(2.4674011)
"""(π/2)², the largest square that is left of an angle behind whole half turns."""


@triton.jit
def even_taps(v0, v1, v2, v3, v4, v5):
    """Filter six values by taps 0, 2, …, 10; backwards they are taps 1, 3, …, 11. Small taps round first."""
    return F0 * v0 + F1 * v5 + F2 * v1 + F3 * v4 + F4 * v2 + F5 * v3


@triton.jit
def exponential(x):
    """Return e^x to an ulp, between e^-87 and e^88; a GPU's own is an approximation of 2^x, and a few ulp off."""
    x = tl.minimum(tl.maximum(x, -87.0, propagate_nan=tl.PropagateNan.ALL), 88.0, propagate_nan=tl.PropagateNan.ALL)
    whole = (x * 1.44269504 + MAGIC) - MAGIC
    x = (x - whole * 0.693359375) + whole * 2.12194440e-4  # ln 2, of which the first part has nine bits
    size = 0.00139560561 + x * 0.0
    size = 0.00837512857 + x * size
    size = 0.0416660836 + x * size
    size = 0.166664155 + x * size
    size = 0.500000017 + x * size
    size = 1.0 + x * (1.00000004 + x * size)
    return size * ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def scales(alpha, beta, channel, real, LOGARITHMIC: tl.constexpr):
    """Return the frequency in the sine, and the amount that its square is multiplied by, of each lane."""
    a = tl.load(alpha + channel, mask=real, other=0.0).to(tl.float32)
    b = a
    if beta is not None:
        b = tl.load(beta + channel, mask=real, other=0.0).to(tl.float32)
    if LOGARITHMIC:
        a = exponential(a)
        b = exponential(b)
    return a, tl.div_rn(a * 0.0 + 1.0, b + LEAST)


@triton.jit
def reduced(angle):
    """Take whole half turns off an angle: sin² and sin 2x are the same behind it."""
    turns = (angle * 0.318309886 + MAGIC) - MAGIC
    # π in three parts, of which the first two are so short that their products are exact
    return ((angle - turns * 3.140625) - turns * 9.67502593994140625e-4) - turns * 1.509957990978376e-7


@triton.jit
def snake(u, a, amount):
    """Return u + sin²(a u) · amount."""
    angle = reduced(a * u)
    square = tl.minimum(angle * angle, QUARTER)  # where an angle is too large to be reduced, sin² is still one at most
    size = -4.23375050e-6 + square * 8.13450343e-8
    size = 1.41024015e-4 + square * size
    size = -3.17454367e-3 + square * size
    size = 4.44444201e-2 + square * size
    size = -3.33333330e-1 + square * size
    size = 1.0 + square * size
    return u + (square * size) * amount


@triton.jit
def sine_and_cosine(angle):
    """Return both of a reduced angle."""
    angle = tl.minimum(tl.maximum(angle, -1.5707964), 1.5707964)
    square = angle * angle
    sine = 2.75253044e-6 + square * -2.38897790e-8
    sine = -1.98408619e-4 + square * sine
    sine = 8.33333098e-3 + square * sine
    sine = -1.66666666e-1 + square * sine
    cosine = 2.47601614e-5 + square * -2.60514953e-7
    cosine = -1.38883614e-3 + square * cosine
    cosine = 4.16666363e-2 + square * cosine
    cosine = -4.99999994e-1 + square * cosine
    return angle + angle * (square * sine), 1.0 + square * cosine


@triton.jit
def fetch(x, row, frames, x_row, real, wanted, EDGES: tl.constexpr, REPEATED: tl.constexpr):
    """Load a frame of each lane; beyond the ends the outermost ones are repeated, or nothing is."""
    if EDGES:
        mask = real & wanted
        if REPEATED:
            row = tl.minimum(tl.maximum(row, 0), frames - 1)
        else:
            mask = mask & (row >= 0) & (row < frames)
        value = tl.load(x + row * x_row, mask=mask, other=0.0)
    else:
        value = tl.load(x + row * x_row, mask=wanted, other=0.0)
    return value.to(tl.float32)


@triton.jit
def six(x, row, frames, x_row, real, wanted, EDGES: tl.constexpr, REPEATED: tl.constexpr):
    """Load six neighbouring frames of each lane."""
    return (
        fetch(x, row, frames, x_row, real, wanted, EDGES, REPEATED),
        fetch(x, row + 1, frames, x_row, real, wanted, EDGES, REPEATED),
        fetch(x, row + 2, frames, x_row, real, wanted, EDGES, REPEATED),
        fetch(x, row + 3, frames, x_row, real, wanted, EDGES, REPEATED),
        fetch(x, row + 4, frames, x_row, real, wanted, EDGES, REPEATED),
        fetch(x, row + 5, frames, x_row, real, wanted, EDGES, REPEATED),
    )


@triton.jit
def lanes(frames, of_all, CHANNELS: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr, STRETCHES: tl.constexpr):
    """Return the first frame and the channel of each lane, and whether some lane reads beyond the ends.

    Neighbouring lanes are neighbouring channels with LAST, and otherwise neighbouring parts of time. All items have
    the parts of the longest one, which has `of_all` frames.
    """
    FRAMES: tl.constexpr = 6 * STRETCHES - 5
    start = tl.program_id(0) * BLOCK
    lane = start + tl.arange(0, BLOCK)
    if LAST:
        channel = lane % CHANNELS
        first = lane // CHANNELS * FRAMES
        lowest = start // CHANNELS * FRAMES
        highest = (start + BLOCK - 1) // CHANNELS * FRAMES
    else:
        parts = (of_all + FRAMES - 1) // FRAMES
        channel = lane // parts
        first = lane % parts * FRAMES
        lowest = start % parts * FRAMES
        highest = tl.where(start // parts < CHANNELS, lowest + (BLOCK - 1) * FRAMES, frames)
    return first, channel, (lowest < 6) | (highest + FRAMES + 5 > frames)


@triton.jit
def walk(
    x, y, x_row, y_row, first, frames, a, amount, real,
    EDGES: tl.constexpr, STRETCHES: tl.constexpr,
):  # fmt: skip
    """Make the frames of all lanes."""
    nothing = a * 0.0
    e0, e1, e2, e3, e4, e5 = nothing, nothing, nothing, nothing, nothing, nothing
    o0, o1, o2, o3, o4, o5 = nothing, nothing, nothing, nothing, nothing, nothing
    begin, end = nothing, nothing
    if EDGES:
        # what is repeated before the doubled signal, and behind it
        v1, v1, v1, v1, v2, v3 = six(x, first * 0 - 3, frames, x_row, real, True, True, True)
        begin = snake(2.0 * even_taps(v1, v1, v1, v1, v2, v3), a, amount)
        v3, v2, v1, v1, v1, v1 = six(x, first * 0 + frames - 3, frames, x_row, real, True, True, True)
        end = snake(2.0 * even_taps(v1, v1, v1, v1, v2, v3), a, amount)
    x0, x1, x2, x3, x4, x5 = six(x, first - 6, frames, x_row, real, True, EDGES, True)
    n0, n1, n2, n3, n4, n5 = six(x, first, frames, x_row, real, True, EDGES, True)
    for stretch in range(STRETCHES):
        c0, c1, c2, c3, c4, c5 = n0, n1, n2, n3, n4, n5
        row = first + 6 * stretch
        # what the next stretch reads is on its way while this one computes
        n0, n1, n2, n3, n4, n5 = six(x, row + 6, frames, x_row, real, stretch + 1 < STRETCHES, EDGES, True)
        for step in tl.static_range(6):
            x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, c0
            c0, c1, c2, c3, c4 = c1, c2, c3, c4, c5
            even = snake(2.0 * even_taps(x0, x1, x2, x3, x4, x5), a, amount)
            odd = snake(2.0 * even_taps(x5, x4, x3, x2, x1, x0), a, amount)
            if EDGES:
                even = tl.where(row < 2, begin, tl.where(row - 2 >= frames, end, even))
                odd = tl.where(row < 3, begin, tl.where(row - 3 >= frames, end, odd))
            e0, e1, e2, e3, e4, e5 = e1, e2, e3, e4, e5, even
            o0, o1, o2, o3, o4, o5 = o1, o2, o3, o4, o5, odd
            total = even_taps(e5, e4, e3, e2, e1, e0) + even_taps(o0, o1, o2, o3, o4, o5)
            if 6 * stretch + step >= 5:
                mask = real & (row - 5 < frames) if EDGES else None
                tl.store(y + (row - 5) * y_row, total.to(y.dtype.element_ty), mask=mask)
            row += 1


@triton.jit(do_not_specialize=["frames", "bucket", "rate"])
def smooth(
    x,
    alpha,
    beta,
    y,
    lengths,
    x_batch,
    x_row,
    x_channel,
    y_batch,
    y_row,
    y_channel,
    frames,
    bucket,
    rate,
    CHANNELS: tl.constexpr,
    LOGARITHMIC: tl.constexpr,
    LAST: tl.constexpr,
    X_DENSE: tl.constexpr,
    Y_DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
    STRETCHES: tl.constexpr,
):
    """Make 6 · STRETCHES - 5 frames of each of BLOCK lanes; lengths and density are as in `kernels.convolve`."""
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if Y_DENSE:
        y_batch = frames * CHANNELS
        y_row = CHANNELS
        y_channel = 1
    item = tl.program_id(2)
    of_all = frames
    if lengths is not None:
        frames -= (bucket - tl.load(lengths + item)) * rate
    first, channel, edges = lanes(frames, of_all, CHANNELS, LAST, BLOCK, STRETCHES)
    real = (channel < CHANNELS) & (first < frames)
    a, amount = scales(alpha, beta, channel, real, LOGARITHMIC)
    x += item.to(tl.int64) * x_batch + channel * x_channel
    y += item.to(tl.int64) * y_batch + channel * y_channel
    if edges:
        walk(x, y, x_row, y_row, first, frames, a, amount, real, True, STRETCHES)
    else:
        walk(x, y, x_row, y_row, first, frames, a, amount, real, False, STRETCHES)


@triton.jit
def walk_back(
    x, grad, grad_x, x_row, grad_row, grad_x_row, first, frames, a, amount, real,
    INPUT: tl.constexpr, PARAMETERS: tl.constexpr, EDGES: tl.constexpr, STRETCHES: tl.constexpr,
):  # fmt: skip
    """Make the gradients of the frames of all lanes, and sum over them g u sin(2 a u) and g sin²(a u).

    The filters' gradients are the filters backwards, over the same frames. What was repeated beyond an end gives its
    gradient back to the outermost frame: a sum over frames that are at hand then.
    """
    FRAMES: tl.constexpr = 6 * STRETCHES - 5
    nothing = a * 0.0
    e0, e1, e2, e3, e4, e5 = nothing, nothing, nothing, nothing, nothing, nothing
    o0, o1, o2, o3, o4, o5 = nothing, nothing, nothing, nothing, nothing, nothing
    frequency, divisor = nothing, nothing
    x0, x1, x2, x3, x4, x5 = six(x, first - 6, frames, x_row, real, True, EDGES, True)
    g0, g1, g2, g3, g4, g5 = six(grad, first - 6, frames, grad_row, real, True, EDGES, False)
    for stretch in range(STRETCHES):
        row = first + 6 * stretch
        c0, c1, c2, c3, c4, c5 = six(x, row, frames, x_row, real, True, EDGES, True)
        d0, d1, d2, d3, d4, d5 = six(grad, row, frames, grad_row, real, True, EDGES, False)
        for step in tl.static_range(6):
            place = 6 * stretch + step
            x0, x1, x2, x3, x4, x5 = x1, x2, x3, x4, x5, c0
            c0, c1, c2, c3, c4 = c1, c2, c3, c4, c5
            g0, g1, g2, g3, g4, g5 = g1, g2, g3, g4, g5, d0
            d0, d1, d2, d3, d4 = d1, d2, d3, d4, d5
            # of s: even frame `row - 2`, and odd frame `row - 3`
            even = even_taps(g0, g1, g2, g3, g4, g5)
            odd = even_taps(g5, g4, g3, g2, g1, g0)
            if EDGES:
                before = (F0 + F1 + F2 + F3 + F4) * g3 + (F0 + F1 + F2) * g4 + F0 * g5
                behind = (F0 + F1 + F2 + F3 + F4) * g2 + (F0 + F1 + F2) * g1 + F0 * g0
                even = tl.where(row == 2, even + before, even)
                odd = tl.where(row - 3 == frames - 1, odd + behind, odd)
                even = tl.where((row >= 2) & (row - 2 < frames), even, 0.0)
                odd = tl.where((row >= 3) & (row - 3 < frames), odd, 0.0)
            # of u: ds = du (1 + a sin(2 a u) amount); what other lanes sum too counts here only within these frames
            u = 2.0 * even_taps(x0, x1, x2, x3, x4, x5)
            sine, cosine = sine_and_cosine(reduced(a * u))
            slope = 2.0 * sine * cosine
            if PARAMETERS:
                own = tl.where((place >= 2) & (place < FRAMES + 2), even, 0.0)
                frequency += own * (u * slope)
                divisor += own * (sine * sine)
            even = even * (1.0 + a * amount * slope)
            u = 2.0 * even_taps(x5, x4, x3, x2, x1, x0)
            sine, cosine = sine_and_cosine(reduced(a * u))
            slope = 2.0 * sine * cosine
            if PARAMETERS:
                own = tl.where((place >= 3) & (place < FRAMES + 3), odd, 0.0)
                frequency += own * (u * slope)
                divisor += own * (sine * sine)
            odd = odd * (1.0 + a * amount * slope)
            e0, e1, e2, e3, e4, e5 = e1, e2, e3, e4, e5, even
            o0, o1, o2, o3, o4, o5 = o1, o2, o3, o4, o5, odd
            if INPUT:
                # of x: frame `row - 5`
                total = even_taps(e5, e4, e3, e2, e1, e0) + even_taps(o0, o1, o2, o3, o4, o5)
                if EDGES:
                    before = (F0 + F2 + F4) * e2 + (F0 + F2) * e3 + F0 * e4 + (F1 + F3) * o3 + F1 * o4
                    behind = (F0 + F2 + F4) * o3 + (F0 + F2) * o2 + F0 * o1 + (F1 + F3) * e2 + F1 * e1
                    total = tl.where(row == 5, total + before, total)
                    total = tl.where(row - 5 == frames - 1, total + behind, total)
                if place >= 5:
                    mask = real & (row - 5 < frames) if EDGES else None
                    tl.store(grad_x + (row - 5) * grad_x_row, (2.0 * total).to(grad_x.dtype.element_ty), mask=mask)
            row += 1
    return frequency, divisor


@triton.jit(do_not_specialize=["frames", "batch"])
def smooth_gradient(
    grad,
    x,
    alpha,
    beta,
    grad_x,
    sums,
    grad_batch,
    grad_row,
    grad_channel,
    x_batch,
    x_row,
    x_channel,
    grad_x_batch,
    grad_x_row,
    grad_x_channel,
    frames,
    batch,
    CHANNELS: tl.constexpr,
    LOGARITHMIC: tl.constexpr,
    LAST: tl.constexpr,
    GRAD_DENSE: tl.constexpr,
    X_DENSE: tl.constexpr,
    GRAD_X_DENSE: tl.constexpr,
    INPUT: tl.constexpr,
    PARAMETERS: tl.constexpr,
    BLOCK: tl.constexpr,
    STRETCHES: tl.constexpr,
):
    """Make the gradients of 6 · STRETCHES - 5 frames of each of BLOCK lanes.

    `sums` has the shape (2, batch, parts of time, CHANNELS): the gradients of frequency and divisor are sums of them,
    times the amount and minus its square.
    """
    if GRAD_DENSE:
        grad_batch = frames * CHANNELS
        grad_row = CHANNELS
        grad_channel = 1
    if X_DENSE:
        x_batch = frames * CHANNELS
        x_row = CHANNELS
        x_channel = 1
    if GRAD_X_DENSE:
        grad_x_batch = frames * CHANNELS
        grad_x_row = CHANNELS
        grad_x_channel = 1
    item = tl.program_id(2).to(tl.int64)
    first, channel, edges = lanes(frames, frames, CHANNELS, LAST, BLOCK, STRETCHES)
    real = (channel < CHANNELS) & (first < frames)
    a, amount = scales(alpha, beta, channel, real, LOGARITHMIC)
    x += item * x_batch + channel * x_channel
    grad += item * grad_batch + channel * grad_channel
    if INPUT:
        grad_x += item * grad_x_batch + channel * grad_x_channel
    if edges:
        frequency, divisor = walk_back(
            x, grad, grad_x, x_row, grad_row, grad_x_row, first, frames, a, amount, real,
            INPUT, PARAMETERS, True, STRETCHES,
        )  # fmt: skip
    else:
        frequency, divisor = walk_back(
            x, grad, grad_x, x_row, grad_row, grad_x_row, first, frames, a, amount, real,
            INPUT, PARAMETERS, False, STRETCHES,
        )  # fmt: skip
    if PARAMETERS:
        FRAMES: tl.constexpr = 6 * STRETCHES - 5
        parts = (frames + FRAMES - 1) // FRAMES
        place = sums + (item * parts + first // FRAMES) * CHANNELS + channel
        tl.store(place, frequency, mask=real)
        tl.store(place + batch.to(tl.int64) * parts * CHANNELS, divisor, mask=real)

"""The Triton kernels of `gated`: one launch where a tile holds all gates, or two."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.layout import empty_channels_last
from fastvoc.ops.op import Prepared, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_arguments
from fastvoc.ops.triton.launch import Launch, dense, precision, refuses, strides
from fastvoc.ops.triton.tiles import Shape, Tile, shape_of, slower
from fastvoc.ops.triton.tuning import launch_for

MOST_OUT = 64
"""Columns of the products that one launch makes at a time behind its gates: their sums fit beside these."""

LEAST_GATES = 16
"""That a matrix unit multiplies."""


def prepare(call: Gated) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    items = (call.weight.shape[0], call.frames), (call.out_weight.shape[0], call.frames)
    reason = refuses(call.x, *items, beside=call.condition) or refuses(call.x, beside=call.skip)
    return prepared(partial(_run, call), reason or slower(_shape(call)))


def _run(call: Gated) -> tuple[Tensor, Tensor]:
    """Run the kernels."""
    results = call.empty()
    ran = gate_launch(call, *results)()
    if ran.arguments["let_through"] is not None:
        product_launch(call, ran.arguments["let_through"], *results)()
    return results


def gate_launch(call: Gated, residual: Tensor, skip_sum: Tensor) -> Launch:
    """Describe the launch of convolution and gate, and of the products where a tile holds all gates."""
    from fastvoc.ops.triton import gate as kernels

    out, gates, taps = call.out_weight.shape[0], call.out_weight.shape[1], call.weight.shape[2]
    arguments, constants = _common(call, residual, skip_sum)
    condition = call.condition
    batch, channel, row = (0, 0, 0) if condition is None else condition.stride()
    arguments |= {
        "weight": packed("gated", pairs_first, call.weight),
        "bias": None if call.bias is None else call.bias.contiguous(),
        "condition": condition,
        "condition_batch": batch,
        "condition_row": row,
        "condition_channel": channel,
        "taps": taps,
        "dilation": call.dilation,
        "shift": call.left,
    }

    def launch(tile: Tile) -> Launch:
        together = tile.columns >= 2 * max(gates, LEAST_GATES)
        let_through = None if together else empty_channels_last(call.x, gates, call.frames)
        return Launch(
            kernel=kernels.gate,
            grid=(-(-call.frames // tile.rows), -(-2 * gates // tile.columns), call.x.shape[0]),
            arguments=arguments | {"let_through": let_through},
            constants=constants
            | tile.constants()
            | {"SIGMOID_FIRST": call.sigmoid_first, "BLOCK_OUT": min(MOST_OUT, max(16, 1 << (out - 1).bit_length()))},
            warps=tile.warps,
            stages=tile.stages,
        )

    return launch_for(_shape(call), launch)


def product_launch(call: Gated, let_through: Tensor, residual: Tensor, skip_sum: Tensor) -> Launch:
    """Describe the launch of the products of what the gate let through, (B, G, T_out)."""
    from fastvoc.ops.triton import gate as kernels

    out, gates, _ = call.out_weight.shape
    arguments, constants = _common(call, residual, skip_sum)

    def launch(tile: Tile) -> Launch:
        return Launch(
            kernel=kernels.multiply,
            grid=(-(-call.frames // tile.rows), -(-out // tile.columns), call.x.shape[0]),
            arguments=arguments | {"let_through": let_through},
            constants=constants | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    return launch_for(shape_of("gated_product", gates, out, 1, 1, call.x), launch)


def pairs_first(weight: Tensor) -> Tensor:
    """(2 G, C, K) → (K, 2 G, C), the two rows of each gate as neighbours."""
    rows, channels, taps = weight.shape
    return weight.view(2, rows // 2, channels, taps).permute(3, 1, 0, 2).contiguous().view(taps, rows, channels)


def _shape(call: Gated) -> Shape:
    rows, channels, taps = call.weight.shape
    return shape_of("gated", channels, rows, taps, call.dilation, call.x)


def _common(call: Gated, residual: Tensor, skip_sum: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arguments and constants that both kernels have."""
    x, skip = call.x, call.skip if call.skip_channels else None
    results = {"residual": residual if call.residual_channels else None, "skip_sum": skip_sum}
    arguments: dict[str, Any] = {
        "x": x,
        "out_weight": call.out_weight.contiguous(),
        "out_bias": None if call.out_bias is None else call.out_bias.contiguous(),
        "skip": skip,
        **results,
        **ragged_arguments(x.shape[2]),
        **strides("x", x),
        **strides("skip", skip),
        "frames": x.shape[2],
        "out_frames": call.frames,
        "own": call.before - call.left,
        "scale": call.scale,
    }
    made = [tensor for tensor in (residual, skip_sum) if tensor.shape[1]]
    all_dense = all(map(dense, made))
    for name, tensor in results.items():
        arguments |= strides(name, None if all_dense else tensor)
    constants = {
        "CHANNELS": x.shape[1],
        "GATES": call.out_weight.shape[1],
        "RESIDUAL": call.residual_channels,
        "SKIPS": call.skip_channels,
        "X_DENSE": dense(x),
        "SKIP_DENSE": dense(skip),
        "RESULT_DENSE": all_dense,
        "WIDEN": interpreted(),
        "PRECISION": precision(x.dtype),
    }
    return arguments, constants

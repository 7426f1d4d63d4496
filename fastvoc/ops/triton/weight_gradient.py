"""The launches of the gradients for weight and bias."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.triton.launch import Launch, Launches, precision
from fastvoc.ops.triton.tiles import Tile, shape_of
from fastvoc.ops.triton.tuning import launch_for

BLOCK = 2048
"""Numbers that one program adds up at a time: so many sums, times so many of their splits side by side."""

MOST_SPLITS = 32
"""Of the splits of a sum that are added side by side."""


def weight_gradient(
    launches: Launches,
    shifted: Tensor,
    fixed: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    taps: int,
    dilation: int,
    shift: int,
    hop: int = 1,
    padding: str = "zero",
    activated: str = "none",
    biased: str = "fixed",
    slope: float = 1.0,
    groups: int = 1,
    merged: int = 1,
    flat: bool = False,
) -> None:
    """Compute the gradients for the weight and the bias of a convolution, as `gradients` describes it.

    Deterministic, unless ``FASTVOC_ATOMICS=1`` trades that for a smaller workspace: sums are then added in whatever
    order the programs end.

    Parameters
    ----------
    launches : Launches
        Of the calls of this signature.
    shifted : Tensor, shape (B, SHIFTED, shifted_frames)
    fixed : Tensor, shape (B, FIXED, frames)
    weight : Tensor, shape (FIXED, SHIFTED / groups, taps), optional
        Where its gradient goes.
    bias : Tensor, shape (FIXED,) or (SHIFTED,), optional
        Where its gradient goes, the column sums of the tensor that `biased` names.
    groups, merged : int
        Of the convolution, and how many of them a matrix product covers; more than one only with `flat`.
    flat : bool
        Whether a tile covers several taps and the frames of several items; `fixed` is then dense and `biased` "fixed".
    """
    if weight is None and bias is None:
        return
    atomic = os.environ.get("FASTVOC_ATOMICS") == "1"
    name = "atomic sums" if atomic else "sums"
    ready = launches.ready(name, shifted=shifted, fixed=fixed)
    describe = partial(
        describe_launches,
        shifted,
        fixed,
        weight,
        bias,
        taps=taps,
        dilation=dilation,
        shift=shift,
        hop=hop,
        padding=padding,
        activated=activated,
        biased=biased,
        slope=slope,
        groups=groups,
        merged=merged,
        flat=flat,
        atomic=atomic,
    )
    if ready is None:
        sums, _ = describe()
        workspace = launches.begin(name, sums, "shifted", "fixed", "workspace").arguments["workspace"]
    else:
        workspace = _workspace(ready.shapes["workspace"], fixed.device, atomic=atomic)
        ready(shifted=shifted, fixed=fixed, workspace=workspace)
    launches.run(f"{name} of splits", lambda: describe()[1](workspace), workspace=workspace, weight=weight, bias=bias)


def _workspace(shape: Sequence[int], device: torch.device, *, atomic: bool) -> Tensor:
    return (torch.zeros if atomic else torch.empty)(shape, dtype=torch.float32, device=device)


def describe_launches(
    shifted: Tensor,
    fixed: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    taps: int,
    dilation: int,
    shift: int,
    hop: int,
    padding: str,
    activated: str,
    biased: str,
    slope: float,
    groups: int = 1,
    merged: int = 1,
    flat: bool = False,
    atomic: bool = False,
) -> tuple[Launch, Callable[[Tensor], Launch]]:
    """Describe the launches: the sums of the splits, and, of the workspace of the one that ran, their sum."""
    from fastvoc.ops.triton import gradients

    batch, fixed_channels, frames = fixed.shape
    shifted_channels = shifted.shape[1]
    weights = 0 if weight is None else weight.numel()
    size = weights + (0 if bias is None else bias.numel())
    products = groups // merged
    width, columns = shifted_channels // products, fixed_channels // products
    rows = taps * width if flat else width
    shape = shape_of("weight_gradient", rows, columns, taps, abs(dilation), fixed)

    def sums(tile: Tile) -> Launch:
        places = products * -(-rows // tile.rows) * -(-columns // tile.columns)
        places *= 1 if weight is None or flat else taps
        # Four programs for each multiprocessor hide each other's waiting; more would only enlarge the workspace.
        steps = -(-batch * frames // tile.channels) if flat else batch * -(-frames // tile.channels)
        splits = max(1, min(steps, 4 * _multiprocessors(fixed.device) // places))
        workspace = _workspace((1 if atomic else splits, size), fixed.device, atomic=atomic)
        return Launch(
            kernel=gradients.weight_gradient,
            grid=(places, splits, 1),
            arguments={
                "shifted": shifted,
                "fixed": fixed,
                "workspace": workspace,
                "shifted_batch": shifted.stride(0),
                "shifted_row": shifted.stride(2),
                "shifted_channel": shifted.stride(1),
                "fixed_batch": fixed.stride(0),
                "fixed_row": fixed_channels if flat else fixed.stride(2),  # a single frame may have any stride
                "fixed_channel": fixed.stride(1),
                "batch": batch,
                "frames": frames,
                "shifted_frames": shifted.shape[2],
                "hop": hop,
                "taps": taps,
                "dilation": dilation,
                "shift": shift,
                "splits": splits,
                "slope": slope,
            },
            constants={
                "SHIFTED": shifted_channels,
                "FIXED": fixed_channels,
                "GROUPS": products,
                "MERGED": merged,
                "FLAT": flat,
                "PADDING": padding,
                "ACTIVATE": activated if slope != 1.0 else "none",
                "WEIGHT": weight is not None,
                "BIAS": "none" if bias is None else biased,
                "ATOMIC": atomic,
                "WIDEN": interpreted(),
                "PRECISION": precision(fixed.dtype),
            }
            | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    fixed_stride, shifted_stride, taps_stride = (0, 0, 0) if weight is None else weight.stride()

    def add(workspace: Tensor) -> Launch:
        splits = workspace.shape[0]
        # a power of two by which no more than a few lengths differ
        rows = min(MOST_SPLITS, 1 << (splits - 1).bit_length())
        block = BLOCK << 5 if interpreted() else BLOCK  # the interpreter takes as long for many as for few
        return Launch(
            kernel=gradients.add_splits,
            grid=(-(-size // (block // rows)), 1, 1),
            arguments={
                "workspace": workspace,
                "weight": weight,
                "bias": bias,
                "splits": splits,
                "weights": weights,
                "size": size,
                "taps_stride": taps_stride,
                "shifted_stride": shifted_stride,
                "fixed_stride": fixed_stride,
            },
            constants={
                "SHIFTED": shifted_channels // groups,
                "FIXED": fixed_channels,
                "SPLITS": rows,
                "BLOCK": block // rows,
            },
            warps=4,
            stages=1,
        )

    return launch_for(shape, sums), add


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return 4 if interpreted() else torch.cuda.get_device_properties(device).multi_processor_count

"""The launch of a convolution: which tile, which grid, which strides."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.ragged import ragged_arguments
from fastvoc.ops.triton.launch import Launch, Launches, dense, precision, strides
from fastvoc.ops.triton.tiles import Tile, shape_of
from fastvoc.ops.triton.tuning import launch_for


def convolve(
    launches: Launches, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor, *, name: str, **settings: Any
) -> None:
    """Run a convolution, which is described once for all calls of a signature; the arguments are `convolution`'s."""
    bias = None if bias is None else bias.contiguous()
    beside: Tensor | None = settings.get("beside")
    describe = partial(convolution, x, weight, bias, y, name=name, **settings)
    launches.run(name, describe, x=x, weight=weight, bias=bias, beside=beside, y=y)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    name: str,
    dilation: int,
    shift: int,
    hop: int = 1,
    phases: int = 1,
    crop: int = 0,
    padding: str = "zero",
    copies: str = "none",
    padded: tuple[int, int] = (0, 0),
    slope: float = 1.0,
    scale: Tensor | None = None,
    beside: Tensor | None = None,
    role: str = "add",
    finish: str = "none",
    out_slope: float = 1.0,
    flat: bool = False,
    fold: bool = False,
) -> Launch:
    """Describe a launch of `kernels.convolve`, whose arguments these are.

    Parameters
    ----------
    x : Tensor, shape (B, CHANNELS, frames)
    weight : Tensor, shape ([groups,] taps, phases * OUT / groups, CHANNELS / groups), contiguous
        The matrix of each tap; row `r` of the result meets row ``r * hop + tap * dilation - shift`` of `x` in it.
    bias : Tensor, shape (OUT,), contiguous, optional
    y : Tensor, shape (B, OUT, out_frames)
        Where the result goes.
    scale : Tensor, shape (OUT,), optional
        Multiplies the sums with their bias, channel by channel.
    name : str
        Of the operator, for the choice of a tile.
    flat : bool
        Whether a step of the loop multiplies several taps, for groups of few channels.
    fold : bool
        Whether items share tiles, for batches of short ones. Those of a ragged batch never do.
    """
    from fastvoc.ops.triton import kernels

    batch, channels, frames = x.shape
    out, out_frames = y.shape[1:]
    taps, columns, width = weight.shape[-3:]
    groups = channels // width
    if phases == 1:  # rows are frames then
        shift, crop = shift - hop * crop, 0
    first = crop // phases
    rows = (out_frames - 1 + crop) // phases + 1 - first
    arguments: dict[str, Any] = {"x": x, "weight": weight, "bias": bias, "beside": beside, "y": y}
    arguments["scale"] = None if scale is None else scale.contiguous()
    arguments |= ragged_arguments(frames)
    fold = fold and arguments["lengths"] is None
    arguments |= strides("x", x) | strides("beside", beside) | strides("y", y)
    arguments |= {
        "frames": frames,
        "out_frames": out_frames,
        "first": first,
        "hop": hop,
        "taps": taps,
        "dilation": dilation,
        "shift": shift,
        "left": padded[0],
        "right": padded[1],
        "crop": crop,
        "slope": slope,
        "out_slope": out_slope,
        "batch": batch,
        "item_rows": rows,
    }
    constants: dict[str, Any] = {
        "CHANNELS": channels,
        "OUT": out,
        "GROUPS": groups,
        "PHASES": phases,
        "PADDING": padding,
        "COPIES": copies,
        "ACTIVATE": slope != 1.0,
        "BESIDE": "none" if beside is None else role,
        "FINISH": finish,
        "FOLD": fold,
        "FLAT": flat,
        "X_DENSE": dense(x),
        "BESIDE_DENSE": dense(beside),
        "Y_DENSE": dense(y),
        "WIDEN": interpreted(),
        "PRECISION": precision(x.dtype),
    }

    def launch(tile: Tile) -> Launch:
        tiles = -(-(batch * rows if fold else rows) // tile.rows)
        items = 1 if fold else batch
        return Launch(
            kernel=kernels.convolve,
            grid=(tiles, groups * -(-columns // tile.columns), items if out_frames > 0 else 0),
            arguments=arguments,
            constants=constants | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    depth = taps * width if flat else width
    return launch_for(shape_of(name, depth, columns, taps, abs(dilation), x), launch)

"""The launch of a convolution: which tile, which grid, which strides."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastvoc.ops._backends import interpreted
from fastvoc.ops._ragged import ragged_arguments
from fastvoc.ops._triton.launch import Launch, dense, precision, strides
from fastvoc.ops._triton.tiles import Tile, shape_of
from fastvoc.ops._triton.tuning import tile_for


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
    beside: Tensor | None = None,
    role: str = "add",
    finish: str = "none",
    out_slope: float = 1.0,
) -> Launch:
    """Describe a launch of `kernels.convolve`, whose arguments these are.

    Parameters
    ----------
    x : Tensor, shape (B, CHANNELS, frames)
    weight : Tensor, shape (taps, phases * OUT, CHANNELS), contiguous
        The matrix of each tap; row `r` of the result meets row ``r * hop + tap * dilation - shift`` of `x` in it.
    bias : Tensor, shape (OUT,), optional
    y : Tensor, shape (B, OUT, out_frames)
        Where the result goes.
    name : str
        Of the operator, for the choice of a tile.
    """
    from fastvoc.ops._triton import kernels

    batch, channels, frames = x.shape
    out, out_frames = y.shape[1:]
    taps, columns = weight.shape[:2]
    first = crop // phases
    rows = (out_frames - 1 + crop) // phases + 1 - first
    bias = None if bias is None else bias.contiguous()
    arguments: dict[str, Any] = {"x": x, "weight": weight, "bias": bias, "beside": beside, "y": y}
    arguments |= ragged_arguments(frames)
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
    }
    constants: dict[str, Any] = {
        "CHANNELS": channels,
        "OUT": out,
        "PHASES": phases,
        "PADDING": padding,
        "COPIES": copies,
        "ACTIVATE": slope != 1.0,
        "BESIDE": "none" if beside is None else role,
        "FINISH": finish,
        "X_DENSE": dense(x),
        "BESIDE_DENSE": dense(beside),
        "Y_DENSE": dense(y),
        "WIDEN": interpreted(),
        "PRECISION": precision(x.dtype),
    }

    def launch(tile: Tile) -> Launch:
        return Launch(
            kernel=kernels.convolve,
            grid=(-(-rows // tile.rows), -(-columns // tile.columns), batch if out_frames > 0 else 0),
            arguments=arguments,
            constants=constants | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    return launch(tile_for(shape_of(name, channels, columns, taps, abs(dilation), x), launch))

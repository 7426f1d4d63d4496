"""Which tile a kernel works in: measured where somebody has measured, by rule otherwise.

No length takes part in the choice: a new one never tunes again, and results do not depend on how many frames or items
are computed together.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.op import Slower
from fastvoc.ops.triton.launch import precision


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the result that one program makes, and how.

    Parameters
    ----------
    rows, columns : int
        Of the result.
    channels : int
        Of the input that one step of the loop multiplies.
    warps : int
        Of 32 threads.
    stages : int
        Steps of the loop whose loads are under way together.
    """

    rows: int
    columns: int
    channels: int
    warps: int
    stages: int

    def constants(self) -> dict[str, int]:
        """Return what the kernels call these."""
        return {
            "BLOCK_ROWS": self.rows,
            "BLOCK_COLUMNS": self.columns,
            "BLOCK_CHANNELS": self.channels,
            "STAGES": self.stages,
        }


@dataclass(frozen=True)
class Shape:
    """What the choice of a tile may depend on.

    Parameters
    ----------
    name : str
        Of the operator.
    channels, columns, taps, dilation : int
    dtype : str
        Such as ``"float16"``; TF32 is ``"tf32"``.
    capability : int
        Of the GPU: 90 is 9.0. 0 is the interpreter.
    """

    name: str
    channels: int
    columns: int
    taps: int
    dilation: int
    dtype: str
    capability: int


MEASURED: dict[Shape, Tile] = {}
"""Tiles that were the fastest of `candidates`, with the file of `benchmarks/results` that shows it beside each.

It is empty: no GPU has measured these kernels yet, and `rule` decides everything."""


PLAIN: dict[Shape, str] = {}
"""Shapes for which plain PyTorch, which calls cuDNN, was measured to be faster: by how much, and in which file of
`benchmarks/results`. Empty for the same reason."""


def slower(shape: Shape) -> Slower | None:
    """Return why plain PyTorch goes first for a shape, or None."""
    return Slower(PLAIN[shape]) if shape in PLAIN else None


def shape_of(name: str, channels: int, columns: int, taps: int, dilation: int, x: Tensor) -> Shape:
    """Return what the choice of a tile for an input like `x` depends on."""
    dtype = "tf32" if precision(x.dtype) == "tf32" else str(x.dtype).removeprefix("torch.")
    return Shape(name, channels, columns, taps, dilation, dtype, _capability(x.device))


@functools.lru_cache(maxsize=4096)
def rule(shape: Shape) -> Tile:
    """Return the tile that arithmetic suggests.

    A tile of R rows and N columns multiplies ``R N`` pairs for ``R + N`` values that it reads, so it is as large as
    its float32 sums fit the registers: 128 by 128 in 8 warps. A stage of the pipeline holds ``(R + N) channels``
    values, and all of them must fit the shared memory of the smallest GPU of a generation, 99 KiB.
    """
    columns = _power(shape.columns, 16, 128)
    if shape.capability == 0:
        # The interpreter takes as long for a large tile as for a small one; small shapes show it the seams.
        if 16 < max(shape.channels, shape.columns) < 40 and shape.channels * shape.columns < 600:
            return Tile(16, 16, 16, 4, 1)
        rows = _power(shape.channels, 16, 256) if shape.name == "weight_gradient" else 64
        return Tile(rows, _power(shape.columns, 16, 512), _power(shape.channels, 16, 512), 4, 1)
    if shape.name == "weight_gradient":
        # Its rows are channels too, and it multiplies over time.
        exact = shape.dtype == "float32"
        rows, columns = (_power(size, 16, 64 if exact else 128) for size in (shape.channels, shape.columns))
        return Tile(rows, columns, 64 if "16" in shape.dtype else 32, 8 if rows * columns >= 128 * 128 else 4, 3)
    if shape.dtype == "float32":
        # No matrix unit multiplies float32: its multiply-adds are the bound, and small tiles leave registers for them.
        return Tile(64, min(columns, 64), _power(shape.channels, 16, 32), 4, 2)
    if shape.name == "gated":
        # Two columns make a gate, and products follow in the same launch where a tile holds them all. Where none does,
        # the widest would only leave its sums too few registers.
        columns = _power(shape.columns, 32, 128 if shape.dtype == "tf32" or shape.columns > 256 else 256)
    rows = 256 if columns <= 32 and shape.channels > 8 and shape.dtype != "tf32" else 128
    channels = _power(shape.channels, 16, 32 if shape.dtype == "tf32" or rows == 256 or columns == 256 else 64)
    return Tile(rows, columns, channels, 8 if rows * columns >= 128 * 128 else 4, 3)


def footprint(shape: Shape, tile: Tile) -> int:
    """Count the bytes of shared memory that a tile takes at most."""
    size = 2 if shape.dtype in ("float16", "bfloat16") else 4
    return tile.stages * (tile.rows + tile.columns) * tile.channels * size


def candidates(shape: Shape) -> list[Tile]:
    """Return the tiles that tuning tries, the one by rule first."""
    first = rule(shape)
    widest = 256 if shape.name == "gated" else 128
    others = [
        Tile(rows, columns, channels, warps, stages)
        for rows in (64, 128, 256)
        for columns in {min(width, _power(shape.columns, 16, widest)) for width in (16, 32, 64, 128, widest)}
        for channels in {min(width, _power(shape.channels, 16, 64)) for width in (32, 64)}
        for warps in (4, 8)
        for stages in (2, 3, 4)
        if rows * columns <= 128 * 128 * warps // 4 and rows * columns // (32 * warps) >= 8
    ]
    return [first, *sorted((tile for tile in others if tile != first), key=repr)]


def _power(size: int, least: int, most: int) -> int:
    """Return the smallest power of two that holds `size`, within bounds."""
    return min(most, max(least, 1 << (size - 1).bit_length()))


@functools.cache
def _capability(device: torch.device) -> int:
    if interpreted():
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor

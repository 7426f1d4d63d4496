"""The C++ kernel of a gated layer whose weights are packed once, with the product of its condition."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.availability import backends


def refuses(weight: Tensor) -> str | None:
    """Return why layers with this weight cannot be packed, as a sentence without its subject, or None."""
    if weight.device.type != "cpu":
        return f"its weights are on {weight.device}; native layers run on the CPU"
    if absent := backends()["cpu"]:
        return str(absent)
    if weight.dtype not in _PRECISIONS:
        return f"its weights are {weight.dtype}; native layers compute in torch.float32 or torch.bfloat16"
    if weight.dtype == torch.bfloat16 and not native.multiplies_bfloat16():
        return "this processor does not multiply torch.bfloat16; torch.float32 is faster on it"
    return None


class ByPhases(NamedTuple):
    """A condition that has one row for so many `phases` of a layer's, each of which has a weight of its own.

    It is what is left of one that a transposed convolution makes of these rows, once its weight is multiplied into that
    of the layer: the products of a row are as many as its rows have channels, times those that it reaches.
    """

    rows: Tensor
    """(B, n, M): the first is that of which the layer's first row is a phase, and N − 1 follow the last such row."""
    phases: int
    offset: int
    """Which phase, counted from 0."""

    def following(self, count: int) -> ByPhases:
        """Leave out so many rows of the layer."""
        frames, offset = divmod(self.offset + count, self.phases)
        return ByPhases(self.rows[:, frames:], self.phases, offset)


class Packed:
    """The weights of a gated layer in the order of the kernel, which multiplies in their dtype and adds in float32.

    Parameters
    ----------
    weight : Tensor, shape (2 G, C, K)
        On the CPU, in float32 or bfloat16; the rows of tanh come before those of the sigmoid.
    bias : Tensor, shape (2 G,)
    condition : Tensor, shape (2 G, M), or (P, 2 G, M, N) for conditions `ByPhases`
    out_weight : Tensor, shape (C + S, G) or (S, G)
        The rows of the residual connection, unless there is none, come before those of the skip connection.
    out_bias : Tensor, shape (C + S,) or (S,)
    skip_channels : int
    dilation, before : int
        Of the taps, and the rows of `x` before the one that belongs to the first result.
    in_order : bool
        Whether every row is summed alike wherever it stands, instead of multiplying less.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        condition: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        *,
        skip_channels: int,
        dilation: int,
        before: int,
        in_order: bool,
    ) -> None:
        ffi, library = native.library()
        self.skip_channels, self.span = skip_channels, dilation * (weight.shape[2] - 1)
        self._channels = len(out_weight) - skip_channels
        # what was packed for one instruction set is read by it alone
        self._settings = native.isa(), _PRECISIONS[weight.dtype], in_order, self._channels > 0
        phases, _, *of_condition = condition.shape if condition.ndim == 4 else (1, *condition.shape, 1)
        sizes = weight.shape[1], len(weight) // 2, skip_channels, weight.shape[2]
        self._sizes = *sizes, dilation, before, *of_condition, phases
        tensors = {
            "weight": weight,
            "bias": bias,
            "condition": condition,
            "residual": out_weight[: self._channels],
            "residual_bias": out_bias[: self._channels],
            "skip": out_weight[self._channels :],
            "skip_bias": out_bias[self._channels :],
        }
        plain = {name: tensor.detach().resolve_neg().float().contiguous() for name, tensor in tensors.items()}
        described = self._described(1, 1, 0)
        self._packed = native.host_memory(described.packed_size, dtype=torch.uint8)
        workspace = native.scratch(described.workspace_size // 4)
        structure = ffi.new("fastvoc_gated_weights *", {name: native.floats(plain[name]) for name in plain})
        code = library.fastvoc_gated_pack(described.pointer, structure, _pointer(self._packed), _pointer(workspace))
        native.check("gated", code)

    dtype = torch.float32
    """Of rows."""

    @property
    def channels(self) -> int:
        """Of the residual connection; 0 without one."""
        return self._channels

    def __call__(
        self, x: Tensor, condition: Tensor | ByPhases, skip: Tensor | None, residual: Tensor, made: Tensor
    ) -> None:
        """Run the layer on rows, all in float32 with channels as neighbours in memory.

        Results are written where the caller says: new memory for each layer took a tenth of the time of WaveGlow.

        Parameters
        ----------
        x : Tensor, shape (B, T + dilation · (K − 1), C)
        condition : Tensor, shape (B, T, M), or ByPhases
        skip : Tensor, shape (B, T, S), optional
        residual : Tensor, shape (B, T, C), or (B, T, 0) without a residual connection
            Is written.
        made : Tensor, shape (B, T, S)
            The skip connection, which is written; it may be `skip`.
        """
        batch, frames = len(x), x.shape[1] - self.span
        if not batch or frames < 1:
            return
        offset, condition = (condition.offset, condition.rows) if isinstance(condition, ByPhases) else (0, condition)
        described = self._described(batch, frames, offset)
        workspace = native.scratch(described.workspace_size // 4)
        code = native.library()[1].fastvoc_gated_run(
            described.pointer,
            *(_rows("input", rows) for rows in (x, condition, skip)),
            _pointer(self._packed),
            *(_rows("output", rows) for rows in (residual, made)),
            _pointer(workspace),
        )
        native.check("gated", code)

    def _described(self, batch: int, frames: int, offset: int) -> _Described:
        return _describe(*self._settings, torch.get_num_threads(), batch, frames, offset, *self._sizes)


class _Described(NamedTuple):
    """A call as the native library reads it; sizes are in bytes."""

    pointer: Any
    packed_size: int
    workspace_size: int


_NUMBERS = (
    *("isa", "precision", "in_order", "residual", "threads", "batch", "frames", "offset"),
    *("channels", "gates", "skips", "taps", "dilation", "before", "condition", "condition_taps", "phases"),
)


@functools.lru_cache(maxsize=4096)
def _describe(isa: int, precision: str, *numbers: int) -> _Described:
    ffi, library = native.library()
    values = (isa, getattr(library, precision), *numbers)
    call = ffi.new("fastvoc_gated *", dict(zip(_NUMBERS, values, strict=True)))
    native.check("gated", library.fastvoc_gated_check(call))
    return _Described(
        pointer=call,
        packed_size=library.fastvoc_gated_packed_size(call),
        workspace_size=library.fastvoc_gated_workspace_size(call),
    )


_PRECISIONS = {torch.float32: "FASTVOC_FLOAT32", torch.bfloat16: "FASTVOC_BFLOAT16"}


def _rows(direction: str, rows: Tensor | None) -> Any:
    """Describe rows; none are null."""
    ffi, _ = native.library()
    pointer = ffi.NULL if rows is None or not rows.numel() else native.floats(rows)
    batch, frame = (0, 0) if rows is None else rows.stride()[:2]
    return ffi.new(f"fastvoc_gated_{direction} *", {"data": pointer, "batch": batch, "frame": frame})


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

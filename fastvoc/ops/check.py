"""Checks at the contract of an op: one sentence each, with the value that is wrong.

An op checks its arguments where it runs, below autocast, so that nothing reaches a kernel, the definition or a tracer
unchecked, whichever way it was called.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = frozenset((torch.float64, torch.float32, torch.bfloat16, torch.float16))

PADDING_MODES = ("zero", "reflect", "replicate")

MOST_FRAMES = 2**31 - 1
"""Of a padding or a crop."""

MOST_STEP = 2**24
"""Of a dilation or a stride."""

STEEPEST = torch.finfo(torch.float32).max


def tensors(where: str, **values: Any) -> None:
    """Refuse what is no tensor, or a nested one, which no op is called for; a bias and a residual may be left out."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            if value is not None or name not in ("bias", "residual"):
                raise TypeError(f"{where}: {name} is a {type(value).__name__}; expected a tensor")
        elif value.is_nested:
            raise TypeError(f"{where}: {name} is a nested tensor; expected a dense one")


def all_tensors(where: str, name: str, values: Sequence[Any]) -> None:
    """Refuse a list that holds anything but tensors."""
    for number, value in enumerate(values):
        if not isinstance(value, Tensor) or value.is_nested:
            tensors(where, **{f"{name}[{number}]": value})


def activation(where: str, name: str, x: Tensor) -> None:
    """Refuse what is not a dense (batch, channels, frames) tensor of floating point."""
    _dense(where, name, x)
    if x.dim() != 3:
        raise ValueError(f"{where}: {name} has shape {tuple(x.shape)}; expected (batch, channels, frames)")
    if x.dtype not in DTYPES:
        raise TypeError(
            f"{where}: {name} is {x.dtype}; expected a floating point dtype: float64, float32, bfloat16 or float16"
        )


def alike(where: str, x: Tensor, **others: Tensor | None) -> None:
    """Refuse tensors that live elsewhere than `x`, or have another dtype or no plain memory."""
    device, dtype = x.device, x.dtype
    for name, other in others.items():
        if other is not None and not _is_alike(other, device, dtype):
            _refuse_unlike(where, name, other, x)


def all_alike(where: str, x: Tensor, name: str, others: Sequence[Tensor]) -> None:
    """Refuse a list of tensors for one that `alike` refuses."""
    device, dtype = x.device, x.dtype
    for number, other in enumerate(others):
        if not _is_alike(other, device, dtype):
            _refuse_unlike(where, f"{name}[{number}]", other, x)


def shape(where: str, name: str, tensor: Tensor | None, expected: tuple[int, ...], meaning: str) -> None:
    """Refuse a tensor of another shape than expected."""
    if tensor is not None and tensor.shape != expected:
        raise ValueError(f"{where}: {name} has shape {tuple(tensor.shape)}; expected {expected}, {meaning}")


def not_empty(where: str, name: str, weight: Tensor) -> None:
    """Refuse a weight without channels or taps."""
    if 0 in weight.shape:
        raise ValueError(
            f"{where}: {name} has shape {tuple(weight.shape)}; expected at least one channel on each side and one tap"
        )


def step(where: str, name: str, value: int) -> None:
    """Refuse a dilation or a stride below one, or beyond all reason."""
    if not 1 <= value <= MOST_STEP:
        raise ValueError(f"{where}: {name} is {value}; expected at least 1{_at_most(value, MOST_STEP)}")


def frames(where: str, name: str, left: int, right: int) -> None:
    """Refuse a padding or a crop that is negative, or beyond all reason."""
    if not (0 <= left <= MOST_FRAMES and 0 <= right <= MOST_FRAMES):
        raise ValueError(
            f"{where}: {name} is {(left, right)}; expected no negative number of frames"
            + _at_most(max(left, right), MOST_FRAMES)
        )


def padding_mode(where: str, value: str) -> None:
    """Refuse a name that is no way of padding."""
    if value not in PADDING_MODES:
        raise ValueError(f"{where}: padding_mode is {value!r}; known: {', '.join(PADDING_MODES)}")


def reach(where: str, available: int, most: int, mode: str) -> None:
    """Refuse to reflect or to replicate frames that are not there."""
    if mode == "reflect" and most >= available:
        raise ValueError(f"{where}: x has {available} frames; needs at least {most + 1} to reflect {most} of them")
    if mode == "replicate" and available == 0:
        raise ValueError(f"{where}: x has 0 frames; needs at least 1 to replicate")


def slope(where: str, value: float) -> None:
    """Refuse what is no slope of a leaky ReLU."""
    if not -STEEPEST <= value <= STEEPEST:
        raise ValueError(f"{where}: slope is {value}; expected a number that float32 can hold")


def positive_slope(where: str, value: float) -> None:
    """Refuse what is no slope of a leaky ReLU from whose result one can tell the sign of its input."""
    if not 0 < value <= STEEPEST:
        raise ValueError(f"{where}: slope is {value}; expected a positive number, which keeps signs apart")


def needs(where: str, value: Sequence[bool], names: str = "x, weight and bias") -> None:
    """Refuse what does not say of three tensors whether their gradients are wanted."""
    if len(value) != 3:
        raise ValueError(f"{where}: needs has {len(value)} values; expected one for each of {names}")


def pair(where: str, name: str, value: Any) -> tuple[int, int]:
    """Return the two numbers of a padding or a crop, and refuse what is not two."""
    try:
        left, right = value
        return _frames(left), _frames(right)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: {name} is {value!r}; expected two whole numbers of frames, at the start and at the end"
        ) from None


def _frames(value: Any) -> int:
    return value if isinstance(value, torch.SymInt) else operator.index(value)  # type: ignore[return-value]


def _is_alike(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> bool:
    return tensor.layout is torch.strided and tensor.device == device and tensor.dtype == dtype


def _refuse_unlike(where: str, name: str, tensor: Tensor, x: Tensor) -> None:
    _dense(where, name, tensor)
    if tensor.device != x.device:
        raise ValueError(f"{where}: {name} is on {tensor.device} but x is on {x.device}; move one of them")
    raise TypeError(f"{where}: {name} is {tensor.dtype} but x is {x.dtype}; cast one of them")


def _dense(where: str, name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided:
        kind = str(tensor.layout).removeprefix("torch.").lstrip("_")
        raise TypeError(f"{where}: {name} is a tensor of layout {kind}; expected a dense one")


def _at_most(value: int, most: int) -> str:
    return f" and at most {most}" if value > most else ""

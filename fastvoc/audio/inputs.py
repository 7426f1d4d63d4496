"""What users hand over, tensors or arrays: read, checked, and refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])

_CHANNELS, _SOME_SAMPLES = 8, 100
"""A wave of at most so many columns and at least so many rows is no batch, but channels side by side."""

_LOUDEST = 10.0
"""Peak, 20 dB over full scale, that no sound has whose samples are meant to lie in [-1, 1]."""

_FULL_SCALES = {8: 2**7, 16: 2**15, 24: 2**23}
"""Largest magnitudes of integer samples, by their bits."""

_OFFSETS = {torch.uint8: 2**7, torch.uint16: 2**15, torch.uint32: 2**31}
_SIGNED = {torch.int8: 2**7, torch.int16: 2**15, torch.int32: 2**31}

Lengths = Sequence[int] | Tensor | NDArray[np.integer]


def as_tensor(value: Tensor | NDArray[np.floating], name: str, where: str = "Vocoder") -> Tensor:
    """Return a tensor of the same values, or raise if the value is neither a tensor nor an array of numbers.

    Arrays of any memory order and byte order are read. Those that may not be written are copied, since PyTorch has no
    tensor that may not.
    """
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_nested:
            kind = "a nested tensor" if value.is_nested else f"a tensor of {value.layout}"
            raise TypeError(f"{where}: {name} is {kind}; it must be dense")
        if value.is_meta:
            raise TypeError(f"{where}: {name} is a tensor on the meta device; it must have values")
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where}: {name} is a {type(value).__name__}; it must be a torch.Tensor or a numpy.ndarray")
    array = np.asarray(value)
    if array.dtype.kind not in "fiubc" or array.dtype.itemsize > 8 * (1 + (array.dtype.kind == "c")):
        raise TypeError(f"{where}: {name} is an array of {array.dtype}; it must be of numbers that PyTorch has")
    array = array.astype(array.dtype.newbyteorder("="), order="C", copy=not array.flags.writeable)
    return torch.from_numpy(array)


def as_wave(value: Tensor | NDArray[np.floating], where: str, name: str = "wave") -> Tensor:
    """Return a wave, (T,) or with batches before, as a tensor of floating-point samples, or raise one sentence."""
    wave = as_tensor(value, name, where)
    if not wave.is_floating_point():
        raise TypeError(f"{where}: {name} is {wave.dtype}; {_to_floats(wave.dtype)}")
    if wave.ndim == 2 and wave.shape[1] <= _CHANNELS < _SOME_SAMPLES <= wave.shape[0]:
        raise ValueError(
            f"{where}: {name} has shape {tuple(wave.shape)}, which seems to be (samples, channels); "
            f"average the channels: {name}.mean(1)"
        )
    return wave


def check_precision(values: Tensor, where: str, name: str = "wave") -> None:
    """Raise if values are of a type that Fourier transforms and filters do not take."""
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{where}: {name} is {values.dtype}; convert it to float32 or float64")


def too_loud(wave: Tensor) -> str | None:
    """Say what a wave is that reaches far beyond [-1, 1], or None where it does not."""
    peak = float(wave.detach().abs().amax()) if wave.numel() else 0.0
    if not _LOUDEST < peak < math.inf:
        return None
    bits, full = next((pair for pair in _FULL_SCALES.items() if peak <= pair[1]), (32, 2**31))
    return (
        f"wave reaches {peak:.6g}, but samples lie in [-1, 1]; if they are integers of {bits} bits, "
        f"divide them by {full}"
    )


def as_rate(value: Any, where: str, name: str = "sample_rate") -> int:
    """Return a sample rate as an int: any number that is whole, such as 22050.0, or raise one sentence."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str | bytes) or not number.is_integer():
        raise ValueError(f"{where}: {name} is {value!r}; it must be a whole number of Hz")
    return int(number)


def read_lengths(
    lengths: Lengths,
    shape: Sequence[int],
    where: str = "Vocoder",
    layout: Sequence[str] = ("batch", "bands", "frames"),
    item: str = "mel",
) -> list[int]:
    """Return how long each item of a padded batch of a shape is, along its last axis, or raise what is wrong.

    Parameters
    ----------
    lengths : sequence of int, Tensor or ndarray of integers, shape (B,)
    shape : sequence of int
        Of the batch.
    where : str
        What error messages begin with.
    layout : sequence of str
        What the axes of a batch are, the last of which is counted.
    item : str
        What the batch is of.
    """
    unit = layout[-1]
    try:
        # NumPy reads any byte order
        values = lengths if isinstance(lengths, Tensor) else as_tensor(np.asarray(lengths), "lengths")
    except (TypeError, ValueError):
        raise TypeError(f"{where}: lengths are {lengths!r}; they must be integers, {unit} of each {item}") from None
    if len(shape) != len(layout):
        raise ValueError(
            f"{where}: lengths belong to a batch, ({', '.join(layout)}), not to a {item} of {tuple(shape)}"
        )
    if values.numel() and (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool):
        raise TypeError(f"{where}: lengths are of type {values.dtype}; they must be integers, {unit} of each {item}")
    if tuple(values.shape) != (shape[0],):
        raise ValueError(f"{where}: lengths have shape {tuple(values.shape)}; the batch needs ({shape[0]},)")
    counts: list[int] = values.tolist()
    for index, count in enumerate(counts):
        if not 1 <= count <= shape[-1]:
            raise ValueError(f"{where}: lengths[{index}] is {count}; it must be between 1 and the {shape[-1]} {unit}")
    return counts


def read_conditions(
    condition: Tensor | NDArray[np.floating] | None, channels: int, rows: int | None
) -> Sequence[Tensor | None] | Tensor:
    """Return the vector per utterance of each of so many mels, or without `rows` that of one mel or batch of mels.

    Parameters
    ----------
    condition : Tensor or ndarray, shape (C,) or (B, C), optional
    channels : int
        Its width for the generator; 0 if it takes none.
    rows : int, optional
        Mels that are each called on their own.
    """
    if condition is None:
        return [None] * (1 if rows is None else rows)
    if not channels:
        raise ValueError("Vocoder: a condition was given; this generator takes none")
    read = as_tensor(condition, "condition")
    if rows is None:
        return [read]
    if read.ndim == 2 and len(read) not in (1, rows):
        raise ValueError(f"Vocoder: condition has {len(read)} rows; the batch needs 1 or {rows}")
    return read.expand(rows, -1)


def as_given(result: Tensor, given: Signal) -> Signal:
    """Return a result as an array where an array was given; NumPy has no bfloat16, and gets float32 for it."""
    if isinstance(given, Tensor):
        return result
    exact = result if result.dtype in (torch.float32, torch.float64) else result.float()
    array: NDArray[np.floating] = exact.detach().cpu().numpy()
    return array


def _to_floats(dtype: torch.dtype) -> str:
    """Say how samples of a type become floating point in [-1, 1]."""
    if dtype in _SIGNED:
        return f"convert it to float32 and divide by {_SIGNED[dtype]}"
    if dtype in _OFFSETS:
        half = _OFFSETS[dtype]
        return f"convert it to float32, subtract {half} and divide by {half}"
    if dtype in (torch.int64, torch.uint64):
        return f"convert it to float32 and divide by its full scale, {2**15} for samples of 16 bits"
    return "it must be floating point in [-1, 1]"

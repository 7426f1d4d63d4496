"""What users hand to a vocoder, tensors or arrays: read, checked, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.convention import MelConfig

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])

Lengths = Sequence[int] | Tensor | NDArray[np.integer]


def check_mel(mel: Tensor, config: MelConfig, *, finite: bool = True) -> None:
    """Raise if a mel, (bands, T) or (B, bands, T), cannot be one of a convention."""
    expected = f"this vocoder was trained on {config.describe()}"
    bands = config.bands
    if not mel.is_floating_point():
        raise TypeError(f"Vocoder: mel is of type {mel.dtype}; it must be floating point, a log-mel")
    if mel.ndim not in (2, 3) or mel.shape[-2] != bands:
        turned = "; it seems to be transposed" if mel.ndim in (2, 3) and mel.shape[-1] == bands else ""
        raise ValueError(
            f"Vocoder: mel has shape {tuple(mel.shape)}; it must be ({bands}, frames) or "
            f"(batch, {bands}, frames){turned}: {expected}"
        )
    if mel.shape[-1] == 0:
        raise ValueError(f"Vocoder: mel of shape {tuple(mel.shape)} has no frames; it needs at least one")
    if finite and not torch.isfinite(mel).all():
        wrong = int((~torch.isfinite(mel)).sum())
        raise ValueError(f"Vocoder: mel has {wrong} values that are NaN or infinite; all must be finite")


def as_tensor(value: Tensor | NDArray[np.floating], name: str) -> Tensor:
    """Return a tensor of the same values, or raise if the value is neither a tensor nor an array."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise TypeError(f"Vocoder: {name} is a {type(value).__name__}; it must be a torch.Tensor or a numpy.ndarray")
    return value


def read_lengths(lengths: Lengths, shape: Sequence[int]) -> list[int]:
    """Return the frames of each mel of a batch of a shape, or raise what is wrong with them."""
    values = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths)
    if len(shape) != 3:
        raise ValueError(f"Vocoder: lengths belong to a batch, (batch, bands, frames), not to a mel of {tuple(shape)}")
    if values.numel() and (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool):
        raise TypeError(f"Vocoder: lengths are of type {values.dtype}; they must be integers, frames of each mel")
    if tuple(values.shape) != (shape[0],):
        raise ValueError(f"Vocoder: lengths have shape {tuple(values.shape)}; the batch needs ({shape[0]},)")
    counts: list[int] = values.tolist()
    for index, count in enumerate(counts):
        if not 1 <= count <= shape[-1]:
            raise ValueError(f"Vocoder: lengths[{index}] is {count}; it must be between 1 and the {shape[-1]} frames")
    return counts


def as_given(result: Tensor, given: Signal) -> Signal:
    """Return a result as an array where an array was given; NumPy has no bfloat16, and gets float32 for it."""
    if isinstance(given, Tensor):
        return result
    exact = result if result.dtype in (torch.float32, torch.float64) else result.float()
    array: NDArray[np.floating] = exact.cpu().numpy()
    return array

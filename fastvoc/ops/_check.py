"""Checks at the contract of an op: one sentence each, with the value that is wrong."""

from __future__ import annotations

import torch
from torch import Tensor


def activation(where: str, name: str, x: Tensor) -> None:
    """Refuse what is not a (batch, channels, frames) tensor of floating point."""
    if x.dim() != 3:
        raise ValueError(f"{where}: {name} has shape {tuple(x.shape)}; expected (batch, channels, frames)")
    if not x.is_floating_point():
        raise TypeError(f"{where}: {name} is {x.dtype}; expected a floating point dtype")


def alike(where: str, x: Tensor, **others: Tensor | None) -> None:
    """Refuse tensors that live elsewhere than `x`, or have another dtype while autocast is off."""
    autocast = torch.is_autocast_enabled(x.device.type)
    for name, other in others.items():
        if other is None:
            continue
        if other.device != x.device:
            raise ValueError(f"{where}: {name} is on {other.device} but x is on {x.device}; move one of them")
        if other.dtype != x.dtype and not autocast:
            raise TypeError(f"{where}: {name} is {other.dtype} but x is {x.dtype}; cast one of them")


def shape(where: str, name: str, tensor: Tensor | None, expected: tuple[int, ...], meaning: str) -> None:
    """Refuse a tensor of another shape than expected."""
    if tensor is not None and tuple(tensor.shape) != expected:
        raise ValueError(f"{where}: {name} has shape {tuple(tensor.shape)}; expected {expected}, {meaning}")

"""Memory order of activations: a result follows its input.

An activation of shape (B, C, T) is either contiguous or *channels-last*: memory order (batch, time, channel), seen as a
strided (B, C, T) tensor. Channels-last makes a tap of a convolution a row offset, for every kernel alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_last(x: Tensor) -> bool:
    """Tell whether neighbouring channels, rather than neighbouring frames, are neighbours in memory."""
    return x.stride(1) == 1 and x.stride(2) != 1


def to_channels_last(x: Tensor) -> Tensor:
    """Return the same (B, C, T) values in memory order (batch, time, channel)."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def empty_channels_last(x: Tensor, channels: int, frames: int) -> Tensor:
    """Return an uninitialised channels-last (B, channels, frames) tensor with the dtype and device of `x`."""
    strides = (channels * frames, 1, channels)
    return torch.empty_strided((x.shape[0], channels, frames), strides, dtype=x.dtype, device=x.device)


def empty_like_layout(x: Tensor, channels: int, frames: int) -> Tensor:
    """Return an uninitialised (B, channels, frames) tensor with the dtype, device and memory order of `x`."""
    if channels_last(x):
        return empty_channels_last(x, channels, frames)
    return torch.empty((x.shape[0], channels, frames), dtype=x.dtype, device=x.device)


def in_layout_of(x: Tensor, y: Tensor) -> Tensor:
    """Return `y` in the memory order of `x`, copied only if it is in another."""
    return to_channels_last(y) if channels_last(x) else y.contiguous()


def gradients_like(
    x: Tensor, weight: Tensor, out_channels: int, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return uninitialised gradients of input, weight and bias; those that are not needed have no elements."""
    return (
        empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else x.new_empty(0),
        x.new_empty(tuple(weight.shape)) if needs[1] else x.new_empty(0),
        x.new_empty(out_channels) if needs[2] else x.new_empty(0),
    )

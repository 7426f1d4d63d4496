"""Mels as smooth as those that text-to-speech models predict.   Liu and Song 2024, arXiv:2409.02517."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth(mel: Tensor, reach: Tensor, most: int) -> Tensor:
    """Smooth mels by a triangle along each axis.

    Parameters
    ----------
    mel : Tensor, shape (B, bands, frames)
    reach : Tensor, shape (B, 2), int64, on the device of the mel
        Neighbours on either side that a value is averaged with, along bands and along frames; the weight of the n-th
        of N is proportional to N + 1 - n. Beyond the ends the outermost values count; 0 leaves an axis as it is.
    most : int
        No reach is larger.

    Returns
    -------
    Tensor, shape (B, bands, frames), of the same dtype
    """
    distance = torch.arange(-most, most + 1, dtype=mel.dtype, device=mel.device).abs()
    for size in reach.to(mel.dtype).unbind(dim=1):
        triangle = (size[:, None] + 1 - distance).clamp(min=0) / (size[:, None] + 1) ** 2
        rows = mel.transpose(1, 2)  # bands come last in the first round, frames in the second
        neighbours = F.pad(rows, (most, most), "replicate").unfold(2, 2 * most + 1, 1)
        mel = torch.einsum("bton,bn->bto", neighbours, triangle)
    return mel

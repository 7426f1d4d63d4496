"""Mels as smooth as those that text-to-speech models predict.   Liu and Song 2024, arXiv:2409.02517."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def smooth(mel: Tensor, bands: int, frames: int) -> Tensor:
    """Smooth a mel by a triangle along each axis.

    Parameters
    ----------
    mel : Tensor, shape (bands, frames)
    bands, frames : int
        Neighbours on either side that a value is averaged with, along each axis; the weight of the n-th of N is
        proportional to N + 1 - n. Beyond the ends the outermost values count; 0 leaves an axis as it is.

    Returns
    -------
    Tensor, shape (bands, frames), of the same dtype
    """
    for axis, reach in enumerate((bands, frames)):
        if reach:
            rows = mel.transpose(0, 1) if axis == 0 else mel
            distance = torch.arange(-reach, reach + 1, dtype=mel.dtype, device=mel.device).abs()
            triangle = (reach + 1 - distance) / (reach + 1) ** 2
            rows = F.conv1d(F.pad(rows[:, None], (reach, reach), "replicate"), triangle[None, None])[:, 0]
            mel = rows.transpose(0, 1) if axis == 0 else rows
    return mel.contiguous()

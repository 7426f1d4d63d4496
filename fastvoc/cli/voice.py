"""A mel of any length becomes a wave in memory that does not grow with it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastvoc import Vocoder

PIECE = 4096
"""Frames that are vocoded at once: 48 s at 22050 Hz and a hop of 256, for which each layer of HiFi-GAN V1 makes
0.13 GB of features."""


def voice(vocoder: Vocoder, mel: Tensor) -> Tensor:
    """Vocode a mel, shape (bands, T), in pieces where it is long; the samples are those of the whole."""
    if mel.ndim != 2 or mel.shape[-1] <= PIECE:
        return vocoder(mel)
    if mel.shape[0] == vocoder.config.mel.bands and (suspicion := vocoder.config.mel.suspicion(mel)):
        warnings.warn(suspicion, stacklevel=2)
    pieces = [mel[:, start : start + PIECE] for start in range(0, mel.shape[-1], PIECE)]
    return torch.cat(list(vocoder.stream(pieces)))

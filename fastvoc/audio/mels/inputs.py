"""Mels that users hand over, tensors or arrays: read, and refused in one sentence where no convention has them."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.inputs import as_tensor
from fastvoc.audio.mels.convention import FeatureConfig, MelConfig


def check_mel(mel: Tensor, config: MelConfig | FeatureConfig, *, finite: bool = True, empty: bool = False) -> None:
    """Raise if a mel, (bands, T) or (B, bands, T), cannot be one of a vocoder's convention."""
    as_mel(mel, config, "Vocoder", ": this vocoder was trained on {}")
    if mel.shape[-1] == 0 and not empty:
        raise ValueError(f"Vocoder: mel of shape {tuple(mel.shape)} has no frames; it needs at least one")
    # NaN and infinity are among the extremes, which are found sooner than each value is looked at
    if finite and mel.numel() and not all(map(math.isfinite, torch.stack(torch.aminmax(mel)).tolist())):
        wrong = int((~torch.isfinite(mel)).sum())
        raise ValueError(f"Vocoder: mel has {wrong} values that are NaN or infinite; all must be finite")


def as_mel(
    value: Tensor | NDArray[np.floating], config: MelConfig | FeatureConfig, where: str, because: str = ""
) -> Tensor:
    """Return a mel, (bands, T) or (B, bands, T), as a tensor, or raise if it cannot be one of a convention.

    `because` ends the sentence about a wrong shape, with a place for the convention.
    """
    mel = as_tensor(value, "mel", where)
    bands, mels = config.bands, isinstance(config, MelConfig)
    if not mel.is_floating_point() or mel.element_size() < 2:
        more = " of 16 bits or more" if mel.is_floating_point() else ", a log-mel" if mels else ""
        raise TypeError(f"{where}: mel is of type {mel.dtype}; it must be floating point{more}")
    if mel.ndim not in (2, 3) or mel.shape[-2] != bands:
        turned = "; it seems to be transposed" if mel.ndim in (2, 3) and mel.shape[-1] == bands else ""
        raise ValueError(
            f"{where}: mel has shape {tuple(mel.shape)}; it must be ({bands}, frames) or "
            f"(batch, {bands}, frames){turned}{because.format(config.describe())}"
        )
    return mel

"""Samples as one of a few numbers, spaced so that quiet ones are finer (ITU-T G.711's μ-law, with μ = 255).

All projects compress alike, ``y = sign(x) ln(1 + μ|x|) / ln(1 + μ)``, and number the values of y differently. Weights
that were trained with one numbering make noise with another: silence is class 127, 128, or one of its own.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

MU = 255
"""The constant of the law; not one less than the number of classes, where that is another one."""

Numbering = Literal["rounded", "truncated", "floored"]
"""How compressed samples become classes.

- ``"rounded"``: ``⌊(y + 1) / 2 · (n − 1) + ½⌋``, as NVIDIA's nv-wavenet 03f6957 does; silence is 128 of 256.
- ``"truncated"``: ``⌊(y + 1) / 2 · (n − 1)⌋``, as nnmnkwii does for r9y9/wavenet_vocoder a35fff7; silence is 127.
- ``"floored"``: ``⌊n / 2 · y⌋ + n / 2``, as NSynth (magenta 526d3eb) does; silence is 128, and decodes to 0 exactly.
"""


def compress(wave: Tensor, mu: int = MU) -> Tensor:
    """Compress samples: any shape, in [−1, 1], to as many in [−1, 1]. What is louder is clipped."""
    wave = wave.clamp(-1, 1)
    return wave.sign() * (mu * wave.abs()).log1p() / math.log1p(mu)


def expand(compressed: Tensor, mu: int = MU) -> Tensor:
    """Undo `compress`."""
    return compressed.sign() * torch.expm1(compressed.abs() * math.log1p(mu)) / mu


def encode_mu_law(wave: Tensor, numbering: Numbering, classes: int = 256) -> Tensor:
    """Return the class of each sample.

    Parameters
    ----------
    wave : Tensor, any shape, floating point
        Samples in [−1, 1]; what is louder is clipped.
    numbering : {"rounded", "truncated", "floored"}
        As in `Numbering`.
    classes : int

    Returns
    -------
    Tensor, the same shape, int64
        From 0 to classes − 1.
    """
    wave = wave.float() if wave.dtype in (torch.float16, torch.bfloat16) else wave
    y = compress(wave)
    if numbering == "floored":
        return (y * (classes / 2)).floor().long().add(classes // 2).clamp(0, classes - 1)
    number = (y + 1) / 2 * (classes - 1) + (0.5 if numbering == "rounded" else 0)
    return number.floor().long().clamp(0, classes - 1)


def decode_mu_law(number: Tensor, numbering: Numbering, classes: int = 256, dtype: torch.dtype | None = None) -> Tensor:
    """Return the sample of each class.

    Parameters
    ----------
    number : Tensor, any shape, of integers
    numbering, classes
        As in `encode_mu_law`.
    dtype : torch.dtype, optional
        Of the result; float32 by default.
    """
    y = number.to(torch.float64)
    if numbering == "floored":
        centred = y - classes // 2
        return torch.where(centred == 0, 0.0, expand((centred + 0.5) / (classes / 2))).to(dtype or torch.float32)
    return expand(2 * y / (classes - 1) - 1).to(dtype or torch.float32)

"""No number for a wrong result: waves are held against double precision before anything is timed.

What is allowed follows from what plain PyTorch itself is off by, on the same mel and in the same precision: twice as
much where weights and activations are rounded to few bits, and eight times as much in single precision, where the
transforms of fast convolution, as oneDNN and others have them, are known to lose two bits, and a maximum over samples
varies by another.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.peers.plain import PlainGenerator

FACTORS = {"float32": 8.0, "tf32": 2.0, "bfloat16": 2.0, "float16": 2.0}

FRAMES = 24
"""Compared at either end of the sound; double precision of all of it would take longer than the benchmark."""


class Gate:
    """The exact wave of both ends of a mel, and what may be off.

    Parameters
    ----------
    plain : PlainGenerator
        In single precision, on the CPU.
    mel : Tensor, shape (B, bands, T)
        The first and the last of the batch are looked at.
    hop : int
    receptive_field : tuple of int
        Frames before and behind a frame that its samples depend on.
    device : {"cpu", "cuda"}
        Where plain PyTorch shows what its precision is worth.
    """

    def __init__(
        self, plain: PlainGenerator, mel: Tensor, hop: int, receptive_field: tuple[int, int], device: str = "cpu"
    ) -> None:
        past, future = receptive_field
        frames = mel.shape[-1]
        mel = mel[[0, -1]].cpu()
        self.samples = min(FRAMES, frames) * hop
        self._plain, self._device = plain, device
        self._first, self._last = mel[..., : FRAMES + future], mel[..., max(0, frames - FRAMES - past) :]
        self._exact = self._ends(torch.float64)

    def error(self, wave: Any) -> float:
        """Return the largest deviation of a wave, shape (B, samples), a tensor or an array; infinity if not finite."""
        found = wave.detach().double().cpu().numpy() if isinstance(wave, Tensor) else np.asarray(wave, np.float64)
        found = found.reshape(-1, found.shape[-1])[[0, -1]]  # an engine may leave out a batch of one
        ends = np.concatenate([found[:, : self.samples], found[:, -self.samples :]], axis=1)
        if ends.shape != self._exact.shape or not np.isfinite(found).all():
            return float("inf")
        return float(np.abs(ends - self._exact).max())

    def allowed(self, precision: str) -> float:
        """Return the largest deviation that a precision excuses."""
        dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
        off = float(np.abs(self._ends(dtype) - self._exact).max())
        return FACTORS[precision] * off + float(np.spacing(np.float32(np.abs(self._exact).max())))

    def _ends(self, dtype: torch.dtype) -> NDArray[np.float64]:
        device = "cpu" if dtype == torch.float64 else self._device
        plain = copy.deepcopy(self._plain).to(device, dtype)
        with torch.inference_mode():
            first, last = (plain(mel.to(device, dtype)).double().cpu().numpy() for mel in (self._first, self._last))
        return np.concatenate([first[:, : self.samples], last[:, -self.samples :]], axis=1)

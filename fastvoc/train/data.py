"""Recordings as an endless supply of equally long segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvoc.audio import read_audio, resample


class Segments:
    """Random segments of recordings, in memory.

    Parameters
    ----------
    groups : sequence of (sequence of Path, float)
        Recordings and how often a second of them is drawn, relative to the others.
    sample_rate : int
        In Hz; other recordings are resampled.
    samples : int
        Length of a segment; shorter recordings are followed by silence.
    speeds : sequence of float
        Each recording is also played at these speeds, pitch included, as if other people had spoken; such copies
        are drawn a third as often.
    gain : float
        Lowest level of a segment, in dB below a peak of 0.95 in its recording; the level is uniform in dB.
    seed : int
        Equal seeds give equal segments.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Path], float]],
        *,
        sample_rate: int,
        samples: int,
        speeds: Sequence[float] = (),
        gain: float = -14.0,
        seed: int = 0,
    ) -> None:
        self.samples = samples
        self.gain = gain
        self.waves: list[Tensor] = []
        weights: list[float] = []
        for paths, weight in groups:
            for path in paths:
                wave, _ = read_audio(path, sample_rate)
                wave = 0.95 * wave / wave.abs().max().clamp(min=1e-5)
                for speed in (1.0, *speeds):
                    # resampled to another rate and played at the old one
                    copy = resample(wave, round(sample_rate * speed), sample_rate)
                    self.waves.append(copy)
                    weights.append(len(copy) * weight * (1.0 if speed == 1.0 else 1 / 3))
        if not self.waves:
            raise ValueError("Segments: no recordings; at least one is needed")
        self._probabilities = np.array(weights) / np.sum(weights)
        self._random = np.random.default_rng(seed)

    def batch(self, size: int) -> Tensor:
        """Draw segments.

        Returns
        -------
        Tensor, shape (size, samples), float32
        """
        segments = torch.zeros(size, self.samples)
        for row, index in zip(segments, self._random.choice(len(self.waves), size, p=self._probabilities), strict=True):
            wave = self.waves[index]
            start = int(self._random.integers(max(1, len(wave) - self.samples)))
            part = wave[start : start + self.samples]
            row[: len(part)] = part * 10 ** (self._random.uniform(self.gain, 0) / 20)
        return segments

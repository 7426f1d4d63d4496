"""HiFi-GAN that is fed the spectrum which a mel's filters allow, in place of the mel: a trial, not a family.

Lv et al. 2024 (FreeV), arXiv:2406.08196, feed it the absolute values of the pseudo-inverse of the filters times the
mel. These have as many rows as a spectrum has bins, and the first convolution reads all of them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fastvoc.audio import MelConfig
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.blocks import Conv1d
from fastvoc.config import config
from fastvoc.graph import Graph, Pointwise
from fastvoc.models.hifigan import HiFiGAN, HiFiGANConfig


@config
class PriorHiFiGANConfig(HiFiGANConfig):
    """Settings of HiFi-GAN, and how many bins it is fed."""

    kind: Literal["prior-hifigan"] = "prior-hifigan"  # type: ignore[assignment]
    bins: int = 513
    """Of the mel's spectrum, `fft_size // 2 + 1`."""
    floor: float = 1e-5
    """Smallest magnitude."""

    def check_mel(self, mel: MelConfig) -> None:
        """Raise unless a mel is the natural logarithm of magnitudes of so many bins."""
        if mel.fft_size // 2 + 1 != self.bins or mel.power != 1 or mel.logarithm != "natural":
            raise ValueError(f"generator {self.kind} needs a natural logarithm of magnitudes of {self.bins} bins")

    def build(self) -> PriorHiFiGAN:
        """Build the generator with fresh weights."""
        return PriorHiFiGAN(self)


class PriorHiFiGAN(HiFiGAN):
    """Mel → spectrum → HiFi-GAN; behind its first convolution the first weights are those of a HiFi-GAN."""

    inverse: Tensor

    def __init__(self, config: PriorHiFiGANConfig) -> None:
        super().__init__(config)
        self.trunk.stem = Conv1d(config.bins, config.channels, 7)
        self.register_buffer("inverse", torch.zeros(config.bins, config.mel_bands))
        self.floor = config.floor

    def prepare(self, mel: MelConfig) -> None:
        """Take the pseudo-inverse of the mel's filters."""
        self.inverse.copy_(torch.linalg.pinv(torch.from_numpy(mel_filters(mel)).double()))

    def spectrum(self, mel: Tensor) -> Tensor:
        """(B, bands, T) → logarithms of magnitudes, (B, bins, T)."""
        return (self.inverse.to(mel.dtype) @ mel.exp()).abs().clamp(min=self.floor).log()

    def features(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make what the head turns into a wave: (B, bands, T) → (B, C, T·rate)."""
        return super().features(self.spectrum(mel), condition)

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add the spectrum, trunk and head to a graph."""
        return super().lower(graph, graph.add(Pointwise(self.spectrum), x), condition)

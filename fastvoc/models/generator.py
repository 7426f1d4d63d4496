"""What every generator is: a trunk, a head, and two facts computed from them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from fastvoc.blocks import Trunk


class Head(Protocol):
    """Turns the trunk's features into a wave at `rate` samples per feature row."""

    rate: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·rate)."""

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Feature rows that samples `first … last` read."""


class Generator(nn.Module):
    """A network that makes a wave from a mel spectrogram in one pass.

    Parameters
    ----------
    trunk : Trunk
    head : Head
        Also an `nn.Module`.
    mel_bands : int
    standardised : bool
        Whether the network itself subtracts a mean and divides by a scale per band (Hugging Face's
        SpeechT5HifiGan); both are saved with the weights.

    Attributes
    ----------
    hop : int
        Samples per mel frame.
    receptive_field : tuple of int
        Mel frames before and behind a frame that its `hop` samples depend on.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk, head: Head, *, mel_bands: int, standardised: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.mel_bands = mel_bands
        self.standardised = standardised
        if standardised:
            self.register_buffer("mean", torch.zeros(mel_bands))
            self.register_buffer("scale", torch.ones(mel_bands))

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.trunk.rate * self.head.rate

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames before and behind a frame that its `hop` samples depend on."""
        first, last = self.trunk.needs(*self.head.needs(0, self.hop - 1))
        return -first, last

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make a wave.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        condition : Tensor, shape (B, condition_channels), optional
            Speaker embedding of a conditioned generator.

        Returns
        -------
        Tensor, shape (B, 1, T·hop)
        """
        if self.standardised:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        wave: Tensor = self.head(self.trunk(mel, condition))
        return wave

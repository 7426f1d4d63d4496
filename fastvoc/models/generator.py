"""What every generator is: a network that knows how many samples a frame becomes and how far it looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn

from fastvoc.blocks import Trunk


class Generator(nn.Module, ABC):
    """A network that makes a wave from a mel spectrogram in one pass.

    Parameters
    ----------
    mel_bands : int
    """

    def __init__(self, *, mel_bands: int) -> None:
        super().__init__()
        self.mel_bands = mel_bands

    @property
    @abstractmethod
    def hop(self) -> int:
        """Samples per mel frame."""

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames before and behind a frame that its `hop` samples depend on."""
        first, last = self.needs(0, self.hop - 1)
        return -first, last

    @abstractmethod
    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples `first … last` read."""

    @abstractmethod
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


class Head(Protocol):
    """Turns a trunk's features into a wave at `rate` samples per feature row."""

    rate: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·rate)."""

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Feature rows that samples `first … last` read."""


class TrunkGenerator(Generator):
    """A generator that is a trunk and a head, as nearly all of the field's are.

    Parameters
    ----------
    trunk : Trunk
    head : Head
        Also an `nn.Module`.
    mel_bands : int
    standardised : bool
        Whether the network itself subtracts a mean and divides by a scale per band (Hugging Face's
        SpeechT5HifiGan); both are saved with the weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, trunk: Trunk, head: Head, *, mel_bands: int, standardised: bool = False) -> None:
        super().__init__(mel_bands=mel_bands)
        self.trunk = trunk
        self.head = head
        self.standardised = standardised
        if standardised:
            self.register_buffer("mean", torch.zeros(mel_bands))
            self.register_buffer("scale", torch.ones(mel_bands))

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.trunk.rate * self.head.rate

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples `first … last` read."""
        return self.trunk.needs(*self.head.needs(first, last))

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where it is conditioned, (B, condition_channels) → (B, 1, T·hop)."""
        if self.standardised:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        return self.head(self.trunk(mel, condition))

"""What every generator is: a network that knows how many samples a frame becomes and how far it looks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from fastvoc.audio import MelConfig, mel_spectrogram
from fastvoc.blocks import Trunk
from fastvoc.graph import CONDITION, INPUT, Graph, Pointwise, foreign
from fastvoc.noise import Draws

Positive = Annotated[int, Field(gt=0)]

Sizes = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)]
"""One number for each of a few stages, branches or units: a limit that settings of no real vocoder reach."""


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
    def condition_channels(self) -> int:
        """Width of the vector per utterance, such as a speaker embedding, that it needs; 0 is none."""
        return 0

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame; few networks have any."""
        return 0

    @property
    def draws(self) -> Draws | None:
        """Random numbers that its waves depend on, or None if they depend on the mel alone.

        A generator that draws takes two arguments more: ``noise``, (B, channels, T·rows_per_frame), which are those
        numbers, and ``temperature``, (B,), both in its own dtype. It makes none of its own.
        """
        return None

    def samples(self, frames: int) -> int:
        """Count the samples of the wave of so many frames."""
        return frames * self.hop + self.extra_samples if frames else 0

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames before and behind a frame that its `hop` samples depend on."""
        first, last = self.needs(0, self.hop - 1)
        return -first, last

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples `first … last` read; a generator without `lower` says it itself."""
        graph, lower = Graph(), getattr(self, "lower", None)
        if lower is None:
            raise TypeError(
                f"{type(self).__name__} does not say which frames its samples read; give it needs(first, last), or "
                "lower(graph, x, condition)"
            )
        lower(graph, INPUT)
        return graph.needs(first, last)

    def graph(self) -> Graph:
        """Return what the generator is made of, from the mel and the condition, where it takes one, to the wave."""
        graph = Graph()
        others = [CONDITION] if self.condition_channels else []
        if others and foreign(self) is not None:
            others = [graph.add(Pointwise(lambda condition: condition[..., 0]), CONDITION)]
        graph.lower(self, INPUT, *others)
        return graph

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
        Tensor, shape (B, 1, T·hop + extra_samples)
        """

    def outputs(self, mel: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Make what losses compare with recordings.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        names : collection of str
            What is asked for. A family that has others than ``wave`` lists them all as `outputs` of its configuration.

        Returns
        -------
        dict of str to Tensor
            At least these. ``wave`` has the shape that `forward` returns, (B, 1, T·hop).
        """
        return {"wave": self(mel)}

    def input_of(self, wave: Tensor, mel: MelConfig) -> Tensor:
        """Return what the generator is given to make a wave of (B, T·hop) again: its mel, (B, bands, T or more)."""
        return mel_spectrogram(wave, mel)

    def forget(self) -> None:
        """Drop what it made of its weights and keeps; few networks keep any."""

    def prepare(self, mel: MelConfig) -> None:
        """Let fresh weights begin with what a mel convention tells; by default it tells nothing."""


class GeneratorSettings(Protocol):
    """What the configuration of a generator offers: a class made by `fastvoc.config.config`, with the name `kind`."""

    @property
    def kind(self) -> str:
        """The name of the family in configurations."""

    @property
    def mel_bands(self) -> int:
        """Bands of the mel spectrograms that it takes."""

    @property
    def hop(self) -> int:
        """Samples per mel frame."""

    def build(self) -> Generator:
        """Make the network, with random weights."""


class Head(Protocol):
    """Turns a trunk's features into a wave at `rate` samples per feature row; see `fastvoc.graph.Graph.lower`."""

    rate: int

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, 1, T·rate)."""


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

    @property
    def condition_channels(self) -> int:
        """Width of the vector per utterance that it needs; 0 is none."""
        return self.trunk.condition_channels

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame."""
        return self.trunk.extra * self.head.rate

    def standardise(self, mel: Tensor) -> Tensor:
        """Subtract the mean and divide by the scale of each band."""
        return (mel - self.mean[:, None]) / self.scale[:, None]

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add trunk and head to a graph."""
        if self.standardised:
            x = graph.add(Pointwise(self.standardise), x)
        others = [] if condition is None else [condition]
        return graph.lower(self.head, graph.lower(self.trunk, x, *others))  # type: ignore[arg-type]

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where it is conditioned, (B, condition_channels) → (B, 1, T·hop + extra_samples)."""
        return self.head(self.features(mel, condition))

    def features(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make what the head turns into a wave: (B, bands, T) → (B, C, T·rate + extra)."""
        return self.trunk(self.standardise(mel) if self.standardised else mel, condition)  # type: ignore[no-any-return]

    def outputs(self, mel: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Make what losses compare with recordings; the head computes in the mel's dtype, whatever autocast says."""
        x = self.features(mel)
        # the eight bits of a bfloat16 wave are noise 50 dB under it, which losses would compare
        with torch.autocast(mel.device.type, enabled=False):
            return self.finish(x.to(mel.dtype))

    def finish(self, x: Tensor) -> dict[str, Tensor]:
        """Turn features into all outputs."""
        return {"wave": self.head(x)}

"""The discriminators of the recipes, as values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import nn

from fastvoc.audio import FULL_BAND
from fastvoc.config import config
from fastvoc.models import discriminators as networks


@config
class MelGANDiscriminatorConfig:
    """Several scales of a grouped, strided network."""

    kind: Literal["melgan"] = "melgan"
    scales: PositiveInt = 3
    """Sub-discriminators; each hears the wave at half the rate of the one before."""
    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 16
    """Of the first convolution."""
    downsampling: tuple[PositiveInt, ...] = (4, 4, 4, 4)
    """Stride of each grouped convolution."""
    largest: PositiveInt = 1024
    """Upper bound of the channels."""
    slope: float = 0.2
    """Of every leaky ReLU."""
    keras: bool = False
    """The Keras tutorial's padding and pooling."""

    def build(self) -> nn.Module:
        """Build it with fresh weights."""
        return networks.MelGANDiscriminator(
            scales=self.scales,
            channels=self.channels,
            downsampling=self.downsampling,
            largest=self.largest,
            slope=self.slope,
            keras=self.keras,
        )


@config
class ScaleDiscriminatorConfig:
    """HiFi-GAN's multi-scale discriminator."""

    kind: Literal["scale"] = "scale"
    scales: PositiveInt = 3
    """Sub-discriminators."""
    channels: Annotated[int, Field(gt=0, multiple_of=16)] = 128
    """Of the first convolution."""
    strides: Annotated[tuple[PositiveInt, ...], Field(min_length=5, max_length=5)] = (2, 2, 4, 4, 1)
    """Of the grouped convolutions: (4, 4, 4, 4, 1) in the recipes of ParallelWaveGAN."""
    spectral: bool = True
    """Whether the first scale wears spectral norm; otherwise weight norm, like the others."""

    def build(self) -> nn.Module:
        """Build it with fresh weights."""
        return networks.ScaleDiscriminator(
            scales=self.scales, channels=self.channels, strides=self.strides, spectral=self.spectral
        )


@config
class PeriodDiscriminatorConfig:
    """HiFi-GAN's multi-period discriminator."""

    kind: Literal["period"] = "period"
    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    """In samples."""
    channels: PositiveInt = 32
    """Of the first convolution."""
    last_kernel_size: PositiveInt = 3
    """Taps of the last convolution: 2 in ParallelWaveGAN."""

    def build(self) -> nn.Module:
        """Build it with fresh weights."""
        return networks.PeriodDiscriminator(
            periods=self.periods, channels=self.channels, last_kernel_size=self.last_kernel_size
        )


@config
class ResolutionDiscriminatorConfig:
    """UnivNet's multi-resolution spectrogram discriminator."""

    kind: Literal["resolution"] = "resolution"
    resolutions: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = FULL_BAND
    """FFT size, hop and window of each sub-discriminator, in samples."""
    channels: PositiveInt = 32
    """Of every convolution."""
    slope: float = 0.2
    """Of every leaky ReLU."""

    def build(self) -> nn.Module:
        """Build it with fresh weights."""
        return networks.ResolutionDiscriminator(resolutions=self.resolutions, channels=self.channels, slope=self.slope)


DiscriminatorConfig = Annotated[
    MelGANDiscriminatorConfig | ScaleDiscriminatorConfig | PeriodDiscriminatorConfig | ResolutionDiscriminatorConfig,
    Field(discriminator="kind"),
]

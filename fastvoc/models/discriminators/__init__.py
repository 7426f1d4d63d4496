"""Discriminators, one file each; `DISCRIMINATORS` lists their configurations, to which others can be added.

Every one maps waves (B, 1, T) to a list with an entry per sub-discriminator; an entry is the list of its feature
maps, the last of which is the score. Which maps a feature-matching loss compares is the loss's business: HiFi-GAN
includes the score, MelGAN does not. Their convolutions have weight norm or spectral norm: they exist only in training.
"""

from typing import Annotated, Protocol

from torch import nn

from fastvoc.config import Kinds
from fastvoc.models.discriminators.bands import BandDiscriminatorConfig
from fastvoc.models.discriminators.chain import Maps
from fastvoc.models.discriminators.constant_q import ConstantQDiscriminatorConfig
from fastvoc.models.discriminators.melgan import MelGANDiscriminatorConfig
from fastvoc.models.discriminators.period import PeriodDiscriminatorConfig
from fastvoc.models.discriminators.resolution import ResolutionDiscriminatorConfig
from fastvoc.models.discriminators.scale import ScaleDiscriminatorConfig


class DiscriminatorSettings(Protocol):
    """What the configuration of a discriminator offers: a class made by `fastvoc.config.config`."""

    @property
    def kind(self) -> str:
        """The name in configurations."""

    def build(self) -> nn.Module:
        """Make the network, with random weights."""


DISCRIMINATORS = Kinds("discriminator")
for _settings in (
    MelGANDiscriminatorConfig,
    ScaleDiscriminatorConfig,
    PeriodDiscriminatorConfig,
    ResolutionDiscriminatorConfig,
    ConstantQDiscriminatorConfig,
):
    DISCRIMINATORS.add(_settings)
DISCRIMINATORS.add(BandDiscriminatorConfig)

DiscriminatorConfig = Annotated[DiscriminatorSettings, DISCRIMINATORS]

__all__ = [
    "DISCRIMINATORS",
    "BandDiscriminatorConfig",
    "ConstantQDiscriminatorConfig",
    "DiscriminatorConfig",
    "DiscriminatorSettings",
    "Maps",
    "MelGANDiscriminatorConfig",
    "PeriodDiscriminatorConfig",
    "ResolutionDiscriminatorConfig",
    "ScaleDiscriminatorConfig",
]

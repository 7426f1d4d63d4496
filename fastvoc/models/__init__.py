"""Generators, one file per paper. The registry of models is a type: `GeneratorConfig`."""

from typing import Annotated

from pydantic import Field

from fastvoc.models.generator import Generator
from fastvoc.models.griffinlimnet import GriffinLimNet, GriffinLimNetConfig
from fastvoc.models.hifigan import HiFiGAN, HiFiGANConfig
from fastvoc.models.istftnet import ISTFTNet, ISTFTNetConfig
from fastvoc.models.melgan import MelGAN, MelGANConfig

GeneratorConfig = Annotated[
    HiFiGANConfig | MelGANConfig | ISTFTNetConfig | GriffinLimNetConfig, Field(discriminator="kind")
]

__all__ = [
    "Generator",
    "GeneratorConfig",
    "GriffinLimNet",
    "GriffinLimNetConfig",
    "HiFiGAN",
    "HiFiGANConfig",
    "ISTFTNet",
    "ISTFTNetConfig",
    "MelGAN",
    "MelGANConfig",
]

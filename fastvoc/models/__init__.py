"""Networks, one file per paper; `GENERATORS` and the lists beside it, one for each face, take others."""

from typing import Annotated

from fastvoc.config import Kinds
from fastvoc.models.bigvgan import BigVGAN, BigVGANConfig
from fastvoc.models.gansynth import GANSynth, GANSynthConfig
from fastvoc.models.generator import Generator, GeneratorSettings
from fastvoc.models.griffinlimnet import GriffinLimNet, GriffinLimNetConfig
from fastvoc.models.hifigan import HiFiGAN, HiFiGANConfig
from fastvoc.models.istftnet import ISTFTNet, ISTFTNetConfig
from fastvoc.models.melgan import MelGAN, MelGANConfig
from fastvoc.models.nsynth import NSynth, NSynthConfig
from fastvoc.models.vocos import CodeVocos, CodeVocosConfig, Vocos, VocosConfig
from fastvoc.models.waveglow import WaveGlow, WaveGlowConfig
from fastvoc.models.wavenet import WaveNet, WaveNetConfig

GENERATORS = Kinds("generator")
for _settings in (
    HiFiGANConfig,
    MelGANConfig,
    ISTFTNetConfig,
    GriffinLimNetConfig,
    WaveGlowConfig,
    WaveNetConfig,
    BigVGANConfig,
    VocosConfig,
):
    GENERATORS.add(_settings)

GeneratorConfig = Annotated[GeneratorSettings, GENERATORS]

AUTOENCODERS = Kinds("autoencoder")
AUTOENCODERS.add(NSynthConfig)

AutoencoderNetwork = Annotated[GeneratorSettings, AUTOENCODERS]

INSTRUMENTS = Kinds("instrument")
INSTRUMENTS.add(GANSynthConfig)

InstrumentNetwork = Annotated[GANSynthConfig, INSTRUMENTS]

TRAINABLE = Kinds("generator", GENERATORS, AUTOENCODERS, INSTRUMENTS)

Trainable = Annotated[GeneratorSettings, TRAINABLE]
"""Settings of what a run may train; those of an instrument have neither mel bands nor a hop."""

CODE_DECODERS = Kinds("code decoder")
CODE_DECODERS.add(CodeVocosConfig)

CodeDecoderNetwork = Annotated[CodeVocosConfig, CODE_DECODERS]

__all__ = [
    "AUTOENCODERS",
    "CODE_DECODERS",
    "GENERATORS",
    "INSTRUMENTS",
    "TRAINABLE",
    "AutoencoderNetwork",
    "BigVGAN",
    "BigVGANConfig",
    "CodeDecoderNetwork",
    "CodeVocos",
    "CodeVocosConfig",
    "GANSynth",
    "GANSynthConfig",
    "Generator",
    "GeneratorConfig",
    "GeneratorSettings",
    "GriffinLimNet",
    "GriffinLimNetConfig",
    "HiFiGAN",
    "HiFiGANConfig",
    "ISTFTNet",
    "ISTFTNetConfig",
    "InstrumentNetwork",
    "MelGAN",
    "MelGANConfig",
    "NSynth",
    "NSynthConfig",
    "Trainable",
    "Vocos",
    "VocosConfig",
    "WaveGlow",
    "WaveGlowConfig",
    "WaveNet",
    "WaveNetConfig",
]

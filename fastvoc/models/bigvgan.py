"""BigVGAN, versions 1 and 2.   Lee et al. 2022, arXiv:2206.04658, §3; original: NVIDIA/BigVGAN 7d2b454.

BigVSAN (Shibuya et al. 2023, arXiv:2309.02836; original: sony/bigvsan 04df88c) trains the same generator against other
discriminators.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from fastvoc.blocks import SmoothHead, SmoothResidualBlocks, Trunk
from fastvoc.config import config
from fastvoc.models.generator import Positive, Sizes, TrunkGenerator
from fastvoc.models.hifigan import HiFiGANConfig


@config
class BigVGANConfig:
    """The whole family; as `HiFiGANConfig` where the names are the same."""

    kind: Literal["bigvgan"] = "bigvgan"
    mel_bands: Positive = 100
    """Bands of the mel spectrogram."""
    channels: Positive = 1536
    """Width behind the first convolution; each stage halves it."""
    rates: Sizes = (4, 4, 2, 2, 2, 2)
    """Up-sampling factor of each stage; their product is the hop in samples."""
    rate_kernel_sizes: Sizes = (8, 8, 4, 4, 4, 4)
    """Taps of each stage's transposed convolution."""
    block: Literal["1", "2"] = "1"
    """Residual block: "1" has two convolutions per dilation, "2" has one."""
    kernel_sizes: Sizes = (3, 7, 11)
    """Taps of the residual blocks that run side by side."""
    dilations: Annotated[tuple[Sizes, ...], Field(min_length=1, max_length=16)] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations of each of them, in samples."""
    activation: Literal["snake", "snakebeta"] = "snakebeta"
    """Whether what the sine is divided by is its frequency ("snake") or learned apart ("snakebeta")."""
    logarithmic: bool = True
    """Whether the parameters of activations are logarithms."""
    final: Literal["tanh", "clamp"] = "clamp"
    """What keeps a wave within one: "tanh" in version 1, "clamp" in version 2."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _ = self.shape  # which says what does not fit
        return self

    @property
    def shape(self) -> HiFiGANConfig:
        """The HiFi-GAN whose convolutions are the same."""
        return HiFiGANConfig(
            mel_bands=self.mel_bands,
            channels=self.channels,
            rates=self.rates,
            rate_kernel_sizes=self.rate_kernel_sizes,
            block=self.block,
            kernel_sizes=self.kernel_sizes,
            dilations=self.dilations,
        )

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.shape.hop

    def build(self) -> BigVGAN:
        """Build the generator with fresh weights."""
        return BigVGAN(self)


class BigVGAN(TrunkGenerator):
    """Stem → (transposed convolution → mean of residual blocks with smooth Snakes)* → wave.

    No activation stands before a transposed convolution.
    """

    def __init__(self, config: BigVGANConfig) -> None:
        divisor, logarithmic = config.activation == "snakebeta", config.logarithmic
        branches = config.shape.branches
        trunk = Trunk(
            config.mel_bands,
            config.channels,
            config.rates,
            config.rate_kernel_sizes,
            lambda channels: SmoothResidualBlocks(channels, branches, divisor=divisor, logarithmic=logarithmic),
            slope=1.0,
        )
        head = SmoothHead(trunk.channels, final=config.final, divisor=divisor, logarithmic=logarithmic)
        super().__init__(trunk, head, mel_bands=config.mel_bands)
        self.config = config


BASE_24K = BigVGANConfig(
    channels=512, rates=(8, 8, 2, 2), rate_kernel_sizes=(16, 16, 4, 4), mel_bands=100, final="tanh"
)
"""14.0 M parameters: bigvgan_base_24khz_100band."""

BASE_22K = replace(BASE_24K, mel_bands=80)
"""14.0 M parameters: bigvgan_base_22khz_80band."""

LARGE_24K = BigVGANConfig(final="tanh")
"""112 M parameters: bigvgan_24khz_100band."""

LARGE_22K = replace(LARGE_24K, mel_bands=80)
"""112 M parameters: bigvgan_22khz_80band."""

V2_24K = BigVGANConfig()
"""112 M parameters: bigvgan_v2_24khz_100band_256x."""

V2_22K = replace(V2_24K, mel_bands=80)
"""112 M parameters: bigvgan_v2_22khz_80band_256x, whose mel goes up to half the sample rate."""

V2_22K_8K = V2_22K
"""The same network: bigvgan_v2_22khz_80band_fmax8k_256x, whose mel ends at 8 kHz."""

V2_44K = replace(V2_24K, mel_bands=128)
"""112 M parameters: bigvgan_v2_44khz_128band_256x."""

V2_44K_512 = replace(V2_44K, rates=(8, 4, 2, 2, 2, 2), rate_kernel_sizes=(16, 8, 4, 4, 4, 4))
"""122 M parameters: bigvgan_v2_44khz_128band_512x."""

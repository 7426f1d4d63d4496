"""HiFi-GAN.   Kong, Kim and Bae 2020, arXiv:2010.05646, §2.2 and appendix A; original: jik876/hifi-gan 4769534."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from fastvoc.blocks import ResidualBlocks, Trunk, WaveHead
from fastvoc.config import config
from fastvoc.models.generator import Positive, Sizes, TrunkGenerator


@config
class HiFiGANConfig:
    """The whole family: V1, V2, V3 and the variants of other repositories."""

    kind: Literal["hifigan"] = "hifigan"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram."""
    channels: Positive = 512
    """Width behind the first convolution; each stage halves it."""
    rates: Sizes = (8, 8, 2, 2)
    """Up-sampling factor of each stage; their product is the hop in samples."""
    rate_kernel_sizes: Sizes = (16, 16, 4, 4)
    """Taps of each stage's transposed convolution; twice the rate in every published model but one."""
    block: Literal["1", "2"] = "1"
    """Residual block: "1" has two convolutions per dilation, "2" has one."""
    kernel_sizes: Sizes = (3, 7, 11)
    """Taps of the residual blocks that run side by side."""
    dilations: Annotated[tuple[Sizes, ...], Field(min_length=1, max_length=16)] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations of each of them, in samples."""
    slope: float = 0.1
    """Of every leaky ReLU but the last."""
    last_slope: float = 0.01
    """Of the last leaky ReLU: the original calls it without a slope, which is PyTorch's default, not 0.1."""
    padding_mode: Literal["zero", "reflect", "replicate"] = "zero"
    """What stands outside the signal: zero in the original, reflect in SpeechBrain."""
    crop_rule: Literal["centred", "symmetric", "output-padded"] = "centred"
    """How a transposed convolution is cut: output-padded in ParallelWaveGAN and MockingBird, symmetric in the original,
    which is centred where taps minus rate are even, and leaves `extra_samples` where they are odd."""
    causal: bool = False
    """Let no sample depend on a later frame (ParallelWaveGAN's use_causal_conv)."""
    standardised: bool = False
    """Let the network subtract a mean and divide by a scale per band (SpeechT5HifiGan)."""
    condition_channels: Annotated[int, Field(ge=0)] = 0
    """Width of a speaker embedding added behind the first convolution; 0 is none."""
    condition_each_stage: bool = False
    """Add it behind every transposed convolution too (XTTS)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.rates) != len(self.rate_kernel_sizes):
            raise ValueError(f"{len(self.rates)} rates need as many rate_kernel_sizes, not {self.rate_kernel_sizes}")
        if len(self.kernel_sizes) != len(self.dilations):
            raise ValueError(f"{len(self.kernel_sizes)} kernel_sizes need as many lists of dilations")
        if len({len(d) for d in self.dilations}) != 1:
            raise ValueError(f"dilations {self.dilations} must be equally many for each kernel size")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels {self.channels} cannot be halved {len(self.rates)} times")
        if any(size % 2 == 0 for size in self.kernel_sizes):
            raise ValueError(f"kernel_sizes {self.kernel_sizes} must be odd, so that blocks keep the length")
        for rate, taps in zip(self.rates, self.rate_kernel_sizes, strict=True):
            if self.crop_rule == "centred" and (taps < rate or (taps - rate) % 2):
                raise ValueError(
                    f"a transposed convolution of {taps} taps does not multiply the length by {rate} exactly; "
                    f"taps minus rate must be even and not negative, such as {2 * rate + rate % 2}"
                )
            if self.crop_rule == "symmetric" and taps < rate:
                raise ValueError(
                    f"a transposed convolution of {taps} taps leaves gaps at rate {rate}; it needs {rate} taps at least"
                )
            if (self.crop_rule == "output-padded" or self.causal) and taps != 2 * rate:
                raise ValueError(f"rate {rate} needs {2 * rate} taps with this crop_rule, not {taps}")
        return self

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.rates)

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame: (5, 4, 2, 2, 2) with 16 taps first has 32."""
        extra = 0
        for rate, taps in zip(self.rates, self.rate_kernel_sizes, strict=True):
            extra = extra * rate + (taps - rate) % 2 * (self.crop_rule == "symmetric")
        return extra

    @property
    def branches(self) -> list[list[list[tuple[int, int]]]]:
        """Per residual block, per unit, per convolution: taps and dilation."""
        return [
            [[(size, dilation), (size, 1)] if self.block == "1" else [(size, dilation)] for dilation in dilations]
            for size, dilations in zip(self.kernel_sizes, self.dilations, strict=True)
        ]

    def trunk(self) -> Trunk:
        """Build the trunk, shared with iSTFTNet."""
        branches = self.branches
        return Trunk(
            self.mel_bands,
            self.channels,
            self.rates,
            self.rate_kernel_sizes,
            lambda channels: ResidualBlocks(
                channels, branches, slope=self.slope, padding_mode=self.padding_mode, causal=self.causal
            ),
            slope=self.slope,
            padding_mode=self.padding_mode,
            crop_rule=self.crop_rule,
            causal=self.causal,
            condition_channels=self.condition_channels,
            condition_each_stage=self.condition_each_stage,
        )

    def build(self) -> HiFiGAN:
        """Build the generator with fresh weights."""
        return HiFiGAN(self)


class HiFiGAN(TrunkGenerator):
    """Stem → (transposed convolution → mean of residual blocks)* → wave."""

    def __init__(self, config: HiFiGANConfig) -> None:
        trunk = config.trunk()
        head = WaveHead(trunk.channels, slope=config.last_slope, padding_mode=config.padding_mode, causal=config.causal)
        super().__init__(trunk, head, mel_bands=config.mel_bands, standardised=config.standardised)
        self.config = config


V1 = HiFiGANConfig()
"""13.9 M parameters: the best sound of the paper."""

V2 = HiFiGANConfig(channels=128)
"""0.93 M parameters: V1 with a quarter of the channels."""

V3 = HiFiGANConfig(
    channels=256,
    rates=(8, 8, 4),
    rate_kernel_sizes=(16, 16, 8),
    block="2",
    kernel_sizes=(3, 5, 7),
    dilations=((1, 2), (2, 6), (3, 12)),
)
"""1.46 M parameters: fewer, wider stages for CPUs."""

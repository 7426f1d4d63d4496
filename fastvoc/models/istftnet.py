"""iSTFTNet: HiFi-GAN's trunk under an inverse short-time Fourier transform.

Kaneko, Tanaka, Kameoka and Seki 2022, arXiv:2203.02395, §3; reference: rishikksh20/iSTFTNet-pytorch d10fe7d.
"""

from __future__ import annotations

from typing import Literal

from fastvoc.blocks import IstftHead
from fastvoc.config import config
from fastvoc.models.generator import Positive, TrunkGenerator
from fastvoc.models.hifigan import HiFiGANConfig


@config
class ISTFTNetConfig:
    """A trunk that up-samples part of the way, and the transform that goes the rest."""

    kind: Literal["istftnet"] = "istftnet"
    trunk: HiFiGANConfig = HiFiGANConfig(rates=(8, 8), rate_kernel_sizes=(16, 16))
    """Everything before the head. The product of its rates and `istft_hop` is the hop in samples."""
    fft_size: Positive = 16
    """Of the inverse transform, in samples; its window is a Hann of the same length."""
    istft_hop: Positive = 4
    """Samples per row of the trunk."""
    phase: Literal["sine", "angle"] = "sine"
    """"sine" takes the sine of the output as the phase, as the original does; "angle" the output itself."""

    @property
    def mel_bands(self) -> int:
        """Bands of the mel spectrogram."""
        return self.trunk.mel_bands

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.trunk.hop * self.istft_hop

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame."""
        return self.trunk.extra_samples * self.istft_hop

    def build(self) -> ISTFTNet:
        """Build the generator with fresh weights."""
        return ISTFTNet(self)


class ISTFTNet(TrunkGenerator):
    """Stem → (transposed convolution → mean of residual blocks)* → magnitude and phase → wave."""

    def __init__(self, config: ISTFTNetConfig) -> None:
        trunk = config.trunk.trunk()
        head = IstftHead(
            trunk.channels,
            slope=config.trunk.last_slope,
            fft_size=config.fft_size,
            hop=config.istft_hop,
            phase=config.phase,
        )
        super().__init__(trunk, head, mel_bands=config.trunk.mel_bands, standardised=config.trunk.standardised)
        self.config = config


C8C8I = ISTFTNetConfig()
"""13.26 M parameters: the paper's V1-C8C8I."""

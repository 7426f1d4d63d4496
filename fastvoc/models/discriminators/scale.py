"""HiFi-GAN's multi-scale discriminator (MSD).   Kong et al. 2020, arXiv:2010.05646, §2.3; jik876/hifi-gan 4769534."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps, WaveChain


@config
class ScaleDiscriminatorConfig:
    """Several scales of a wider network than MelGAN's."""

    kind: Literal["scale"] = "scale"
    scales: PositiveInt = 3
    """Sub-discriminators."""
    channels: Annotated[int, Field(gt=0, multiple_of=16)] = 128
    """Of the first convolution."""
    strides: Annotated[tuple[PositiveInt, ...], Field(min_length=5, max_length=5)] = (2, 2, 4, 4, 1)
    """Of the grouped convolutions: (4, 4, 4, 4, 1) in the recipes of ParallelWaveGAN."""
    spectral: bool = True
    """Whether the first scale has spectral norm; otherwise weight norm, like the others."""

    def build(self) -> ScaleDiscriminator:
        """Build it with fresh weights."""
        return ScaleDiscriminator(self)


class ScaleDiscriminator(nn.Module):
    """Scale by scale, as MelGAN's; the pooling between them counts the padding, which MelGAN's does not."""

    def __init__(self, config: ScaleDiscriminatorConfig) -> None:
        super().__init__()
        c, strides = config.channels, config.strides
        # channels in, channels out, kernel, stride, groups
        table = [
            (1, c, 15, 1, 1),
            (c, c, 41, strides[0], 4),
            (c, 2 * c, 41, strides[1], 16),
            (2 * c, 4 * c, 41, strides[2], 16),
            (4 * c, 8 * c, 41, strides[3], 16),
            (8 * c, 8 * c, 41, strides[4], 16),
            (8 * c, 8 * c, 5, 1, 1),
            (8 * c, 1, 3, 1, 1),
        ]
        norms = [spectral_norm if config.spectral and n == 0 else weight_norm for n in range(config.scales)]
        self.scales = nn.ModuleList(
            WaveChain(
                [norm(nn.Conv1d(i, o, k, s, groups=g)) for i, o, k, s, g in table],
                [(k // 2, k // 2) for _, _, k, _, _ in table],
                "constant",
                0.1,
            )
            for norm in norms
        )

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per scale, the feature maps and the score."""
        results = []
        for n, scale in enumerate(self.scales):
            wave = F.avg_pool1d(wave, 4, 2, padding=2) if n else wave
            results.append(scale(wave))
        return results

"""HiFi-GAN's multi-period discriminator (MPD).   Kong et al. 2020, arXiv:2010.05646, §2.3; jik876/hifi-gan 4769534."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps, chain


@config
class PeriodDiscriminatorConfig:
    """Networks that see the wave folded into rows of some samples, and convolve along time only."""

    kind: Literal["period"] = "period"
    periods: tuple[PositiveInt, ...] = (2, 3, 5, 7, 11)
    """Rows of each sub-discriminator, in samples; primes, so that their views overlap little."""
    channels: PositiveInt = 32
    """Of the first convolution."""
    last_kernel_size: PositiveInt = 3
    """Taps of the last convolution: 2 in ParallelWaveGAN and ESPnet, where a row is added."""
    first_map: Annotated[int, Field(ge=0, le=5)] = 0
    """The first convolution, from 0, whose map is handed on to losses: 1 in Vocos."""

    def build(self) -> PeriodDiscriminator:
        """Build it with fresh weights."""
        return PeriodDiscriminator(self)


class PeriodDiscriminator(nn.Module):
    """Period by period: fold → strided convolutions along time, the same for every column → score."""

    def __init__(self, config: PeriodDiscriminatorConfig) -> None:
        super().__init__()
        c = config.channels
        widths = [1, c, 4 * c, 16 * c, 32 * c, 32 * c]

        def convs() -> list[nn.Module]:
            # two axes of the kernel, the second of size 1, as in every checkpoint
            layers: list[nn.Module] = [
                nn.Conv2d(widths[n], widths[n + 1], (5, 1), (3 if n < 4 else 1, 1)) for n in range(5)
            ]
            layers.append(nn.Conv2d(widths[-1], 1, (config.last_kernel_size, 1)))
            return [weight_norm(conv) for conv in layers]

        paddings = [2] * 5 + [config.last_kernel_size // 2]
        self.networks = nn.ModuleList(_Period(period, convs(), paddings) for period in config.periods)
        self.first_map = config.first_map

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per period, the feature maps and the score (B, 1, rows, period)."""
        return [network(wave)[self.first_map :] for network in self.networks]


class _Period(nn.Module):
    """A chain of convolutions over a wave folded into rows of `period` samples."""

    def __init__(self, period: int, convs: Sequence[nn.Module], paddings: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList(convs)
        self.paddings = [(padding, padding) for padding in paddings]

    def forward(self, wave: Tensor) -> Maps:
        batch, period = len(wave), self.period
        rows = F.pad(wave, (0, -wave.shape[-1] % period), "reflect").reshape(batch, -1, period)
        columns = rows.transpose(1, 2).reshape(batch * period, 1, -1)
        maps = chain(self.convs, columns, self.paddings, 0.1)
        return [x.view(batch, period, *x.shape[1:]).permute(0, 2, 3, 1) for x in maps]  # (B, C, rows, period)

"""HiFi-GAN's networks and training step in plain PyTorch, as jik876/hifi-gan 4769534 describes them: the peer to beat.

Every convolution is a module of its own under weight norm, every pass recomputes the norms, and the discriminators run
again on everything for the generator's turn.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from fastvoc.models import HiFiGANConfig


class Block(nn.Module):
    """ResBlock1 with two convolutions per dilation, or ResBlock2 with one."""

    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...], second: bool) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (taps - 1) // 2
            return weight_norm(nn.Conv1d(channels, channels, taps, dilation=dilation, padding=padding))

        # the original's names, so that its checkpoints fit
        first = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.add_module("convs1" if second else "convs", first)
        if second:
            self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        second = getattr(self, "convs2", None)
        for n, conv in enumerate(self.convs if second is None else self.convs1):
            y = conv(F.leaky_relu(x, 0.1))
            x = x + (y if second is None else second[n](F.leaky_relu(y, 0.1)))
        return x


class OfficialGenerator(nn.Module):
    """Stem, transposed convolutions each followed by the mean of residual blocks, head."""

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        widths = [config.channels // 2**n for n in range(len(config.rates) + 1)]
        self.conv_pre = weight_norm(nn.Conv1d(config.mel_bands, widths[0], 7, padding=3))
        self.ups = nn.ModuleList(
            weight_norm(nn.ConvTranspose1d(widths[n], widths[n + 1], taps, rate, padding=(taps - rate) // 2))
            for n, (rate, taps) in enumerate(zip(config.rates, config.rate_kernel_sizes, strict=True))
        )
        self.resblocks = nn.ModuleList(
            Block(width, taps, dilations, config.block == "1")
            for width in widths[1:]
            for taps, dilations in zip(config.kernel_sizes, config.dilations, strict=True)
        )
        self.conv_post = weight_norm(nn.Conv1d(widths[-1], 1, 7, padding=3))

    def forward(self, mel: Tensor) -> Tensor:
        """(B, bands, T) → (B, 1, T · hop)."""
        x = self.conv_pre(mel)
        count = len(self.resblocks) // len(self.ups)
        for n, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            blocks = self.resblocks[n * count : (n + 1) * count]
            x = torch.stack([block(x) for block in blocks]).sum(0) / len(blocks)
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class _Chain(nn.Module):
    """Convolutions with a leaky ReLU behind each but the last; their outputs are the feature maps."""

    def __init__(self, convs: list[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps."""
        maps = []
        for conv in self.convs:
            x = conv(x)
            x = x if conv is self.convs[-1] else F.leaky_relu(x, 0.1)
            maps.append(x)
        return maps


class _Periods(nn.Module):
    """The multi-period discriminator: 2-D convolutions over a wave that is folded into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.periods = (2, 3, 5, 7, 11)
        widths = (1, 32, 128, 512, 1024, 1024)

        def convs() -> list[nn.Module]:
            layers = [
                nn.Conv2d(widths[n], widths[n + 1], (5, 1), (3 if n < 4 else 1, 1), padding=(2, 0)) for n in range(5)
            ]
            return [weight_norm(conv) for conv in (*layers, nn.Conv2d(1024, 1, (3, 1), padding=(1, 0)))]

        self.networks = nn.ModuleList(_Chain(convs()) for _ in self.periods)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """(B, 1, T) → per period, the feature maps."""
        maps = []
        for period, network in zip(self.periods, self.networks, strict=True):
            x = F.pad(wave, (0, -wave.shape[-1] % period), "reflect")
            maps.append(network(x.view(x.shape[0], 1, -1, period)))
        return maps


class _Scales(nn.Module):
    """The multi-scale discriminator: grouped 1-D convolutions over a wave at three sample rates."""

    def __init__(self) -> None:
        super().__init__()
        # channels in, channels out, kernel, stride, groups
        table = [
            (1, 128, 15, 1, 1),
            (128, 128, 41, 2, 4),
            (128, 256, 41, 2, 16),
            (256, 512, 41, 4, 16),
            (512, 1024, 41, 4, 16),
            (1024, 1024, 41, 1, 16),
            (1024, 1024, 5, 1, 1),
            (1024, 1, 3, 1, 1),
        ]

        def convs(norm: Callable[[nn.Module], nn.Module]) -> list[nn.Module]:
            return [norm(nn.Conv1d(i, o, k, s, groups=g, padding=k // 2)) for i, o, k, s, g in table]

        self.scales = nn.ModuleList(_Chain(convs(norm)) for norm in (spectral_norm, weight_norm, weight_norm))
        self.pool = nn.AvgPool1d(4, 2, padding=2)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """(B, 1, T) → per scale, the feature maps."""
        maps = []
        for n, scale in enumerate(self.scales):
            wave = self.pool(wave) if n else wave
            maps.append(scale(wave))
        return maps


class OfficialDiscriminators(nn.Module):
    """Both as one; its state is that of `fastvoc.train.tasks.adversary.Discriminators`."""

    def __init__(self) -> None:
        super().__init__()
        self.networks = nn.ModuleList([_Periods(), _Scales()])

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """(B, 1, T) → per sub-discriminator, the feature maps."""
        return [maps for network in self.networks for maps in network(wave)]


def discriminators_loss(discriminators: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return what the discriminators minimise, by a pass for recordings and a pass for what is made."""
    loss = real.new_zeros(())
    for maps, made in zip(discriminators(real), discriminators(fake.detach()), strict=True):
        loss = loss + ((1 - maps[-1]) ** 2).mean() + (made[-1] ** 2).mean()
    return loss


def generator_loss(discriminators: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return what the discriminators tell the generator, by two more passes."""
    loss = real.new_zeros(())
    for maps, made in zip(discriminators(real), discriminators(fake), strict=True):
        loss = loss + ((1 - made[-1]) ** 2).mean()
        for x, y in zip(maps, made, strict=True):
            loss = loss + 2 * (x - y).abs().mean()
    return loss


def official_step(
    generator: nn.Module,
    discriminators: nn.Module,
    optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    mel_of: Callable[[Tensor], Tensor],
    loss_mel_of: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return the step: the discriminators' update, then the generator's. It gives the loss of each, on the device."""
    of_generator, of_discriminators = optimisers

    def step(wave: Tensor) -> tuple[Tensor, Tensor]:
        real = wave[:, None]
        fake = generator(mel_of(wave))
        of_discriminators.zero_grad()
        d = discriminators_loss(discriminators, real, fake)
        d.backward()
        of_discriminators.step()

        of_generator.zero_grad()
        g = 45 * F.l1_loss(loss_mel_of(wave), loss_mel_of(fake[:, 0].float()))
        g = g + generator_loss(discriminators, real, fake)
        g.backward()
        of_generator.step()
        return d.detach(), g.detach()

    return step

"""Generators of other projects as modules of our own code: names, structure and arithmetic are theirs.

The official one and ParallelWaveGAN's are in `originals`; transformers is a package.
"""

from __future__ import annotations

from typing import Any

import torch
from originals import OfficialGenerator, normed, same, up
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models import HiFiGANConfig, MelGANConfig


class Block2(nn.Module):
    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(same(channels, taps, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class OfficialGeneratorOfBlocks2(OfficialGenerator):
    """With the residual blocks of V3."""

    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__(config)
        self.resblocks = nn.ModuleList(
            Block2(up.out_channels, taps, dilations)
            for up in self.ups
            for taps, dilations in zip(config.kernel_sizes, config.dilations, strict=True)
        )


class CoquiHiFiGAN(OfficialGenerator):
    """With a speaker's embedding where `conditioned`, and an ``inference`` that repeats frames at both ends."""

    def __init__(self, config: HiFiGANConfig, *, conditioned: int = 0, bias: bool = True) -> None:
        super().__init__(config)
        self.inference_padding = 5
        if conditioned:
            self.cond_layer = nn.Conv1d(conditioned, config.channels, 1)
        if not bias:
            self.conv_post = normed(nn.Conv1d(self.conv_post.in_channels, 1, 7, padding=3, bias=False))

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        o = self.conv_pre(x)
        if hasattr(self, "cond_layer"):
            o = o + self.cond_layer(g)
        count = len(self.resblocks) // len(self.ups)
        for n, stage in enumerate(self.ups):
            o = stage(F.leaky_relu(o, 0.1))
            o = sum(block(o) for block in self.resblocks[n * count : (n + 1) * count]) / count
        return torch.tanh(self.conv_post(F.leaky_relu(o)))

    @torch.no_grad()
    def inference(self, c: Tensor) -> Tensor:
        return self.forward(F.pad(c, (self.inference_padding, self.inference_padding), "replicate"))


class Wrapped(nn.Module):
    """SpeechBrain's convolution: a layer inside a module that reflects the signal at its ends."""

    def __init__(self, inner: int, outer: int, taps: int, dilation: int = 1) -> None:
        super().__init__()
        self.padding = dilation * (taps - 1) // 2
        self.conv = normed(nn.Conv1d(inner, outer, taps, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.padding, self.padding), "reflect"))


class WrappedTransposed(nn.Module):
    def __init__(self, inner: int, outer: int, taps: int, rate: int) -> None:
        super().__init__()
        self.conv = normed(nn.ConvTranspose1d(inner, outer, taps, rate, padding=(taps - rate) // 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class WrappedBlock(nn.Module):
    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(Wrapped(channels, channels, taps, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(Wrapped(channels, channels, taps) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class SpeechBrainHiFiGAN(CoquiHiFiGAN):
    def __init__(self, config: HiFiGANConfig, *, conditioned: int = 0) -> None:
        nn.Module.__init__(self)
        widths = [config.channels // 2**n for n in range(len(config.rates) + 1)]
        self.inference_padding = 5
        self.conv_pre = Wrapped(config.mel_bands, widths[0], 7)
        self.ups = nn.ModuleList(
            WrappedTransposed(widths[n], widths[n + 1], taps, rate)
            for n, (rate, taps) in enumerate(zip(config.rates, config.rate_kernel_sizes, strict=True))
        )
        self.resblocks = nn.ModuleList(
            WrappedBlock(width, taps, dilations)
            for width in widths[1:]
            for taps, dilations in zip(config.kernel_sizes, config.dilations, strict=True)
        )
        self.conv_post = Wrapped(widths[-1], 1, 7)
        if conditioned:
            self.cond_layer = Wrapped(conditioned, config.channels, 1)


class CoquiStack(nn.Module):
    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.2),
                nn.ReflectionPad1d(3**unit),
                normed(nn.Conv1d(channels, channels, 3, dilation=3**unit)),
                nn.LeakyReLU(0.2),
                normed(nn.Conv1d(channels, channels, 1)),
            )
            for unit in range(units)
        )
        self.shortcuts = nn.ModuleList(normed(nn.Conv1d(channels, channels, 1)) for _ in range(units))

    def forward(self, x: Tensor) -> Tensor:
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            x = shortcut(x) + block(x)
        return x


class CoquiMelGAN(nn.Module):
    """With the sub-bands of a multi-band one as its forward makes them; its ``inference`` joins them here by a sum."""

    def __init__(self, config: MelGANConfig) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [nn.ReflectionPad1d(3), normed(nn.Conv1d(config.mel_bands, width, 7))]
        for rate in config.rates:
            layers += [nn.LeakyReLU(0.2), up(width, rate), CoquiStack(width // 2, config.units)]
            width //= 2
        bands = config.pqmf.bands if config.pqmf else 1
        layers += [nn.LeakyReLU(0.2), nn.ReflectionPad1d(3), normed(nn.Conv1d(width, bands, 7)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, c: Tensor) -> Tensor:
        return self.layers(c)

    def inference(self, c: Tensor) -> Tensor:
        return self.layers(F.pad(c, (2, 2), "replicate")).sum(1, keepdim=True)


def filled(network: Any, gain: float = 1.0) -> Any:
    """Give a network weights of which its waves are neither silence nor at full scale, and return it to make sound."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            noise = torch.randn(weight.shape, generator=random)
            if name.endswith(("weight_g", "original0")):
                weight.copy_(gain * (1 + 0.1 * noise))
            elif weight.dim() > 1:
                weight.copy_(gain * noise / (weight[0].numel() ** 0.5))
            else:
                weight.copy_(0.1 * noise)
    return network.eval()

"""Networks of other projects in plain PyTorch, with the names and the order of modules that those have, and a trainer.

Spectral norm is PyTorch's newer one, and recordings and generated waves go through a discriminator together, because a
power iteration is a state: so it takes the steps that ours takes. Everything else is as the originals have it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fastvoc.audio import FULL_BAND, mel_l1, mel_spectrogram, multi_resolution_stft
from fastvoc.models import HiFiGANConfig, MelGANConfig
from fastvoc.train.config import TrainConfig


def normed(layer: nn.Module, norm: str = "weight") -> nn.Module:
    if norm == "spectral":
        return spectral_norm(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the spelling that the originals have
        return nn.utils.weight_norm(layer) if norm == "weight" else layer


def same(channels: int, taps: int, dilation: int) -> nn.Module:
    return normed(nn.Conv1d(channels, channels, taps, dilation=dilation, padding=dilation * (taps - 1) // 2))


class OfficialBlock(nn.Module):
    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(same(channels, taps, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(same(channels, taps, 1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class OfficialBlock2(nn.Module):
    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(same(channels, taps, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(F.leaky_relu(x, 0.1))
        return x


class OfficialGenerator(nn.Module):
    """With `output_padded`, as MockingBird has it."""

    def __init__(self, config: HiFiGANConfig, *, output_padded: bool = False) -> None:
        super().__init__()

        def crop(rate: int, taps: int) -> dict[str, int]:
            if output_padded:
                return {"padding": rate // 2 + rate % 2, "output_padding": rate % 2}
            return {"padding": (taps - rate) // 2}

        widths = [config.channels // 2**n for n in range(len(config.rates) + 1)]
        self.conv_pre = normed(nn.Conv1d(config.mel_bands, widths[0], 7, padding=3))
        self.ups = nn.ModuleList(
            normed(nn.ConvTranspose1d(widths[n], widths[n + 1], taps, rate, **crop(rate, taps)))
            for n, (rate, taps) in enumerate(zip(config.rates, config.rate_kernel_sizes, strict=True))
        )
        self.resblocks = nn.ModuleList(
            (OfficialBlock if config.block == "1" else OfficialBlock2)(width, taps, dilations)
            for width in widths[1:]
            for taps, dilations in zip(config.kernel_sizes, config.dilations, strict=True)
        )
        self.conv_post = normed(nn.Conv1d(widths[-1], 1, 7, padding=3))

    def forward(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        count = len(self.resblocks) // len(self.ups)
        for n, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            x = torch.stack([block(x) for block in self.resblocks[n * count : (n + 1) * count]]).mean(0)
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class KanBayashiBlock(nn.Module):
    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1, self.convs2 = nn.ModuleList(), nn.ModuleList()
        for dilation in dilations:
            self.convs1.append(nn.Sequential(nn.LeakyReLU(0.1), same(channels, taps, dilation)))
            self.convs2.append(nn.Sequential(nn.LeakyReLU(0.1), same(channels, taps, 1)))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(first(x))
        return x


def up(wide: int, rate: int) -> nn.Module:
    crop = {"padding": rate // 2 + rate % 2, "output_padding": rate % 2}
    return normed(nn.ConvTranspose1d(wide, wide // 2, 2 * rate, rate, **crop))


class KanBayashiHiFiGAN(nn.Module):
    def __init__(self, config: HiFiGANConfig) -> None:
        super().__init__()
        self.input_conv = normed(nn.Conv1d(config.mel_bands, config.channels, 7, padding=3))
        self.upsamples, self.blocks = nn.ModuleList(), nn.ModuleList()
        width = config.channels
        for rate in config.rates:
            self.upsamples.append(nn.Sequential(nn.LeakyReLU(0.1), up(width, rate)))
            width //= 2
            for taps, dilations in zip(config.kernel_sizes, config.dilations, strict=True):
                self.blocks.append(KanBayashiBlock(width, taps, dilations))
        self.output_conv = nn.Sequential(nn.LeakyReLU(), normed(nn.Conv1d(width, 1, 7, padding=3)), nn.Tanh())

    def forward(self, mel: Tensor) -> Tensor:
        x = self.input_conv(mel)
        count = len(self.blocks) // len(self.upsamples)
        for n, upsample in enumerate(self.upsamples):
            x = upsample(x)
            x = torch.stack([block(x) for block in self.blocks[n * count : (n + 1) * count]]).mean(0)
        return self.output_conv(x)


class ResidualStack(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        first, second, skip = (
            normed(nn.Conv1d(channels, channels, taps, dilation=d)) for taps, d in self.taps(dilation)
        )
        pad = nn.ReflectionPad1d(dilation)
        self.stack = nn.Sequential(nn.LeakyReLU(0.2), pad, first, nn.LeakyReLU(0.2), second)
        self.skip_layer = skip

    @staticmethod
    def taps(dilation: int) -> list[tuple[int, int]]:
        return [(3, dilation), (1, 1), (1, 1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.stack(x) + self.skip_layer(x)


class KanBayashiMelGAN(nn.Module):
    def __init__(self, config: MelGANConfig) -> None:
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [nn.ReflectionPad1d(3), normed(nn.Conv1d(config.mel_bands, width, 7))]
        for rate in config.rates:
            layers += [nn.LeakyReLU(0.2), up(width, rate)]
            width //= 2
            layers += [ResidualStack(width, 3**unit) for unit in range(config.units)]
        layers += [nn.LeakyReLU(0.2), nn.ReflectionPad1d(3), normed(nn.Conv1d(width, 1, 7)), nn.Tanh()]
        self.melgan = nn.Sequential(*layers)

    def forward(self, mel: Tensor) -> Tensor:
        return self.melgan(mel)


def scale_layers(channels: int, strides: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv1d(1, channels, 15, padding=7)]
    wide, groups = channels, 4
    for stride, wider in zip(strides, (1, 2, 4, 8, 8), strict=True):
        layers.append(nn.Conv1d(wide, wider * channels, 41, stride, padding=20, groups=groups))
        wide, groups = wider * channels, 16
    return [*layers, nn.Conv1d(wide, wide, 5, padding=2), nn.Conv1d(wide, 1, 3, padding=1)]


def period_layers(channels: int, taps: int) -> list[nn.Module]:
    widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
    layers: list[nn.Module] = [
        nn.Conv2d(widths[n], widths[n + 1], (5, 1), (3 if n < 4 else 1, 1), padding=(2, 0)) for n in range(5)
    ]
    return [*layers, nn.Conv2d(widths[-1], 1, (taps, 1), padding=(1, 0))]


class Chain(nn.Module):
    """Convolutions with a leaky ReLU behind each but the last; `period` folds the wave."""

    def __init__(self, period: int = 0) -> None:
        super().__init__()
        self.period = period

    def steps(self) -> list[Callable[[Tensor], Tensor]]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.period:
            x = F.pad(x, (0, -x.shape[-1] % self.period), "reflect")
            x = x.reshape(len(x), 1, -1, self.period)
        maps = []
        for step in self.steps():
            x = step(x)
            maps.append(x)
        return maps


class OfficialChain(Chain):
    def __init__(self, layers: list[nn.Module], norm: str, period: int = 0) -> None:
        super().__init__(period)
        self.convs = nn.ModuleList(normed(layer, norm) for layer in layers[:-1])
        self.conv_post = normed(layers[-1], norm)

    def steps(self) -> list[Callable[[Tensor], Tensor]]:
        return [*(lambda x, conv=conv: F.leaky_relu(conv(x), 0.1) for conv in self.convs), self.conv_post]


class KanBayashiChain(Chain):
    """`place` is the name of the list; the last layer is in it, or apart as ``output_conv``."""

    def __init__(
        self, layers: list[nn.Module], norm: str, place: str, *, slope: float = 0.1, pad: int = 0, period: int = 0
    ) -> None:
        super().__init__(period)
        first = [nn.ReflectionPad1d(pad)] if pad else []
        convs = [normed(layer, norm) for layer in layers]
        chain: list[nn.Module] = [
            nn.Sequential(*(first if n == 0 else []), conv, nn.LeakyReLU(slope)) for n, conv in enumerate(convs[:-1])
        ]
        setattr(self, place, nn.ModuleList(chain if period else [*chain, convs[-1]]))
        if period:
            self.output_conv = convs[-1]

    def steps(self) -> list[Callable[[Tensor], Tensor]]:
        return [*(self.convs if self.period else self.layers), *([self.output_conv] if self.period else [])]


class Several(nn.Module):
    """Discriminators of a wave, each of the waves that the pooling makes of that of the one before."""

    def __init__(self, discriminators: list[nn.Module], pooling: nn.Module | None = None) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(discriminators)
        self.pooling = pooling

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        results = []
        for discriminator in self.discriminators:
            results.append(discriminator(wave))
            wave = self.pooling(wave) if self.pooling else wave
        return results


def official_discriminators(channels: tuple[int, int], periods: tuple[int, ...], scales: int) -> nn.ModuleDict:
    """In the order of the original's optimiser."""
    wide, narrow = channels
    norms = ["spectral", *["weight"] * (scales - 1)]
    return nn.ModuleDict(
        {
            "msd": Several(
                [OfficialChain(scale_layers(wide, (2, 2, 4, 4, 1)), norm) for norm in norms],
                nn.AvgPool1d(4, 2, padding=2),
            ),
            "mpd": Several([OfficialChain(period_layers(narrow, 3), "weight", period) for period in periods]),
        }
    )


def kan_bayashi_discriminators(
    channels: tuple[int, int], periods: tuple[int, ...], norms: tuple[str, ...]
) -> nn.ModuleDict:
    wide, narrow = channels
    return nn.ModuleDict(
        {
            "msd": Several(
                [KanBayashiChain(scale_layers(wide, (4, 4, 4, 4, 1)), norm, "layers") for norm in norms],
                nn.AvgPool1d(4, 2, padding=2),
            ),
            "mpd": Several(
                [KanBayashiChain(period_layers(narrow, 2), "weight", "convs", period=period) for period in periods]
            ),
        }
    )


def kan_bayashi_melgan_discriminator(scales: int, channels: int, strides: tuple[int, ...]) -> Several:
    def layers() -> list[nn.Module]:
        wide, result = channels, [nn.Conv1d(1, channels, 15)]
        for stride in strides:
            taps, wider = 10 * stride + 1, wide * stride
            result.append(nn.Conv1d(wide, wider, taps, stride, padding=5 * stride, groups=wide // 4))
            wide = wider
        return [*result, nn.Conv1d(wide, 2 * wide, 5, padding=2), nn.Conv1d(2 * wide, 1, 3, padding=1)]

    chains = [KanBayashiChain(layers(), "weight", "layers", slope=0.2, pad=7) for _ in range(scales)]
    return Several(chains, nn.AvgPool1d(4, 2, padding=1, count_include_pad=False))


def spelled(state: dict[str, Any]) -> dict[str, Any]:
    """Spell spectral norm as the originals' version of PyTorch does."""
    old = {"original": "weight_orig", "0._u": "weight_u", "0._v": "weight_v"}
    return {
        name if ".parametrizations." not in name else f"{name.split('.parametrizations.')[0]}.{old[ending]}": value
        for name, value in state.items()
        for ending in [name.split(".parametrizations.weight.")[-1]]
    }


class Trainer:
    """A GAN in turns: the official one's discriminators come first, kan-bayashi's generator."""

    def __init__(self, config: TrainConfig, generator: nn.Module, discriminators: nn.Module) -> None:
        assert config.adversary is not None
        self.config, self.adversary = config, config.adversary
        self.generator, self.discriminators = generator, discriminators
        classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}

        def optimiser(network: nn.Module, settings: Any) -> torch.optim.Optimizer:
            more = {} if settings.kind == "radam" else {"amsgrad": settings.amsgrad}
            values = {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.epsilon}
            values["weight_decay"] = settings.weight_decay
            return classes[settings.kind](network.parameters(), **values, **more)

        def schedule(optimiser: torch.optim.Optimizer, settings: Any) -> Any:
            if settings.schedule.kind == "exponential":
                return torch.optim.lr_scheduler.ExponentialLR(optimiser, settings.schedule.decay)
            milestones = list(settings.schedule.milestones)
            return torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, settings.schedule.decay)

        settings = (config.optimiser, self.adversary.optimiser)
        self.optimisers = [optimiser(n, s) for n, s in zip((generator, discriminators), settings, strict=True)]
        self.schedules = [schedule(o, s) for o, s in zip(self.optimisers, settings, strict=True)]

    def hear(self, waves: Tensor) -> list[list[Tensor]]:
        if isinstance(self.discriminators, Several):
            return self.discriminators(waves)
        return [maps for several in self.discriminators.values() for maps in several(waves)]

    def compare(self, wave: Tensor, fake: Tensor) -> list[list[tuple[Tensor, Tensor]]]:
        """Maps of recordings and of generated waves, in pairs."""
        maps = self.hear(torch.cat([wave[:, None], fake]))
        return [[(x[: len(wave)], x[len(wave) :]) for x in scale] for scale in maps]

    def make(self, wave: Tensor) -> Tensor:
        return self.generator(mel_spectrogram(wave, self.config.mel)[..., : wave.shape[-1] // self.config.mel.hop])

    def teach_discriminators(self, wave: Tensor, fake: Tensor) -> float:
        pairs = self.compare(wave, fake.detach())
        losses = [((1 - scale[-1][0]) ** 2).mean() + (scale[-1][1] ** 2).mean() for scale in pairs]
        return self.follow(1, torch.stack(losses).sum() / self.share(losses))

    def teach_generator(self, wave: Tensor, fake: Tensor, *, judged: bool = True) -> float:
        weights = {name: loss.weight for name, loss in self.config.losses.items()}
        loss = wave.new_zeros(())
        if "mel" in weights:
            loss = loss + weights["mel"] * mel_l1(fake[:, 0], wave, self.config.loss_mel or self.config.mel)
        if "stft" in weights:
            loss = loss + weights["stft"] * sum(multi_resolution_stft(fake[:, 0], wave, FULL_BAND))
        if judged:
            pairs = self.compare(wave, fake)
            scores = [((1 - scale[-1][1]) ** 2).mean() for scale in pairs]
            loss = loss + weights["adversarial"] * torch.stack(scores).sum() / self.share(scores)
            for scale in pairs if "features" in weights else []:
                for real, made in scale if self.adversary.features_score else scale[:-1]:
                    loss = loss + weights["features"] * (real.detach() - made).abs().mean()
        return self.follow(0, loss)

    def share(self, scores: list[Tensor]) -> int:
        return len(scores) if self.adversary.across == "mean" else 1

    def follow(self, which: int, loss: Tensor) -> float:
        self.optimisers[which].zero_grad()
        loss.backward()
        self.optimisers[which].step()
        return float(loss.detach())

    def official(self, wave: Tensor) -> tuple[float, float]:
        """A step; its schedules count epochs."""
        fake = self.make(wave)
        d = self.teach_discriminators(wave, fake)
        return d, self.teach_generator(wave, fake)

    def kan_bayashi(self, wave: Tensor, steps: int) -> tuple[float, float]:
        """A step, after so many, of which the first teaches nobody; its schedules count updates."""
        d = g = 0.0
        judged = steps > self.adversary.starts_at
        if steps > 0:
            g = self.teach_generator(wave, self.make(wave), judged=judged)
            self.schedules[0].step()
        if judged:
            with torch.no_grad():
                fake = self.make(wave)
            d = self.teach_discriminators(wave, fake)
            self.schedules[1].step()
        return d, g

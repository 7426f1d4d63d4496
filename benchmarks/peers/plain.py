"""The generators' arithmetic in plain PyTorch, as the official networks do it once weight norm is removed.

jik876/hifi-gan 4769534, descriptinc/melgan-neurips 6488045, kan-bayashi/ParallelWaveGAN 8674037 and NVIDIA/BigVGAN
7d2b454: a module for each convolution and transposed convolution, `leaky_relu` and `+` between them. Importing this
needs torch only, so that what a peer costs at start-up is not ours. `planar` makes every signal an image of height 1,
the one form in which PyTorch has channels-last memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from fastvoc.models import Generator


class Chain(nn.Module):
    """One branch of residual blocks: each unit adds to its input what its convolutions make of it."""

    def __init__(
        self,
        units: list[list[nn.Module]],
        shortcuts: list[nn.Module],
        *,
        slope: float,
        activations: list[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activations or [])
        self.units = nn.ModuleList(nn.ModuleList(unit) for unit in units)
        self.shortcuts = nn.ModuleList(shortcuts)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        place = 0
        for number, unit in enumerate(self.units):
            y = x
            for conv in unit:  # type: ignore[attr-defined]
                y = conv(self.activations[place](y) if len(self.activations) else F.leaky_relu(y, self.slope))
                place += 1
            x = (self.shortcuts[number](x) if len(self.shortcuts) else x) + y
        return x


class SmoothSnake(nn.Module):
    """BigVGAN's activation as its PyTorch module computes it: depthwise filters around Snake at twice the rate."""

    taps: Tensor

    def __init__(self, snake: Any, planar: bool) -> None:
        from fastvoc.ops.smooth_snake.call import FILTER

        super().__init__()
        shape = (1, -1, 1, 1) if planar else (1, -1, 1)
        scales = [value.detach().exp() if snake.logarithmic else value.detach().clone() for value in _both(snake)]
        self.frequency, self.divisor = (nn.Parameter(scale.view(shape)) for scale in scales)
        self.register_buffer("taps", torch.tensor(FILTER, dtype=snake.alpha.dtype).view(shape[:1] + shape[2:] + (12,)))
        self.planar = planar

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T), or with a height of 1."""
        channels = x.shape[1]
        taps = self.taps.expand(channels, *self.taps.shape[1:])
        up, down, stride = F.conv_transpose1d, F.conv1d, (2,)
        if self.planar:
            up, down, stride = F.conv_transpose2d, F.conv2d, (1, 2)
        x = F.pad(x, (5, 5, 0, 0)[: 2 + 2 * self.planar], "replicate")
        x = 2 * up(x, taps, stride=stride, groups=channels)[..., 15:-15]
        x = x + (1 / (self.divisor + 1e-9)) * torch.sin(x * self.frequency).square()
        return down(F.pad(x, (5, 6, 0, 0)[: 2 + 2 * self.planar], "replicate"), taps, stride=stride, groups=channels)


class PlainGenerator(nn.Module):
    """Stem, transposed convolutions each followed by the mean of residual blocks, head, filter bank.

    Parameters
    ----------
    generator : fastvoc.models.Generator
        A HiFi-GAN, MelGAN or BigVGAN of any size; its weights are copied.
    planar : bool
        Compute with two-dimensional convolutions on signals of height 1.

    Raises
    ------
    ValueError
        If the generator is of another family, conditioned or causal.
    """

    filters: Tensor | None

    def __init__(self, generator: Generator, *, planar: bool = False) -> None:
        from fastvoc.blocks import PqmfHead, SmoothHead, WaveHead
        from fastvoc.models import BigVGAN, HiFiGAN, MelGAN

        super().__init__()
        if not isinstance(generator, HiFiGAN | MelGAN | BigVGAN) or not isinstance(
            generator.head, WaveHead | SmoothHead
        ):
            raise ValueError(f"PlainGenerator: {type(generator).__name__} is no HiFi-GAN, MelGAN or BigVGAN")
        trunk, head = generator.trunk, generator.head
        if (
            getattr(generator.config, "causal", False)
            or len(trunk.condition)
            or generator.standardised
            or trunk.slope_after != 1.0
        ):
            raise ValueError("PlainGenerator: no variants; the generator must be one of the official papers")
        self.planar = planar
        self.slope, self.head_slope = trunk.slope, getattr(head, "slope", 1.0)
        self.last = SmoothSnake(head.activation, planar) if isinstance(head, SmoothHead) else None
        self.clamps = getattr(head, "final", "tanh") == "clamp"
        self.stem = _conv(trunk.stem, planar)
        self.up = nn.ModuleList(_transposed(up, planar) for up in trunk.up)
        self.residual = nn.ModuleList(
            nn.ModuleList(
                _smooth_chain(branch, blocks.activations[number], planar)
                if self.last is not None
                else _chain(branch, blocks, planar)
                for number, branch in enumerate(blocks.branches)
            )
            for blocks in trunk.residual
        )
        self.head = _conv(head.conv, planar)
        self.stride, self.crop = head.rate, getattr(head, "crop", (0, 0))
        self.register_buffer("filters", head.filters.detach().clone() if isinstance(head, PqmfHead) else None)
        self.requires_grad_(False).eval()
        if planar:
            self.to(memory_format=torch.channels_last)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, bands, T) → (B, T · hop)."""
        x = mel[:, :, None].contiguous(memory_format=torch.channels_last) if self.planar else mel
        x = self.stem(x)
        for up, chains in zip(self.up, self.residual, strict=True):
            x = up(x if self.slope == 1.0 else F.leaky_relu(x, self.slope))
            total = chains[0](x)  # type: ignore[index]
            for chain in chains[1:]:  # type: ignore[index]
                total = total + chain(x)
            x = total / len(chains) if len(chains) > 1 else total  # type: ignore[arg-type]
        x = self.head(F.leaky_relu(x, self.head_slope) if self.last is None else self.last(x))
        x = x.clamp(-1, 1) if self.clamps else torch.tanh(x)
        x = x[:, :, 0] if self.planar else x
        if self.filters is not None:
            left, right = self.crop
            x = F.conv_transpose1d(x, self.filters, stride=self.stride, padding=left, output_padding=left - right)
        return x[:, 0]


def _chain(branch: Any, blocks: Any, planar: bool) -> Chain:
    units = [[_conv(conv, planar) for conv in unit] for unit in branch]
    shortcuts = [unit.pop() for unit in units] if blocks.shortcut else []
    return Chain(units, shortcuts, slope=blocks.slope)


def _smooth_chain(branch: Any, snakes: Any, planar: bool) -> Chain:
    units = [[_conv(conv, planar) for conv in unit] for unit in branch]
    return Chain(units, [], slope=1.0, activations=[SmoothSnake(snake, planar) for snake in snakes])


def _both(snake: Any) -> tuple[Tensor, Tensor]:
    return snake.alpha, snake.alpha if snake.beta is None else snake.beta


def _conv(conv: Any, planar: bool) -> nn.Module:
    channels_out, channels_in, taps = conv.weight.shape
    side, _ = conv.padding
    inside = side if conv.padding_mode == "zero" else 0
    made: nn.Module
    if planar:
        made = nn.Conv2d(channels_in, channels_out, (1, taps), dilation=(1, conv.dilation), padding=(0, inside))
    else:
        made = nn.Conv1d(channels_in, channels_out, taps, dilation=conv.dilation, padding=inside)
    _fill(made, conv, planar)
    if conv.padding_mode == "zero" or side == 0:
        return made
    if conv.padding_mode != "reflect":
        raise ValueError(f"PlainGenerator: no official network pads with {conv.padding_mode!r}")
    pad = nn.ReflectionPad2d((side, side, 0, 0)) if planar else nn.ReflectionPad1d(side)
    return nn.Sequential(pad, made)


def _transposed(up: Any, planar: bool) -> nn.Module:
    channels_in, channels_out, taps = up.weight.shape
    left, right = up.crop
    made: nn.Module
    if planar:
        made = nn.ConvTranspose2d(
            channels_in, channels_out, (1, taps), (1, up.rate), padding=(0, left), output_padding=(0, left - right)
        )
    else:
        made = nn.ConvTranspose1d(channels_in, channels_out, taps, up.rate, padding=left, output_padding=left - right)
    _fill(made, up, planar)
    return made


def _fill(made: Any, ours: Any, planar: bool) -> None:
    with torch.no_grad():
        made.weight.copy_(ours.weight[:, :, None] if planar else ours.weight)
        made.bias.copy_(ours.bias)

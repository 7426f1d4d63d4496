"""The trunk that MelGAN, multi-band MelGAN, HiFi-GAN and iSTFTNet share: stem → (up-sample → residual blocks)*."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from fastvoc.blocks.conv import CausalUpsample, Conv1d, Upsample
from fastvoc.graph import Graph, LeakyReLU, Pointwise
from fastvoc.ops.layout import to_channels_last


class Trunk(nn.Module):
    """Turn a mel spectrogram into features at a higher rate, halving the channels at each stage.

    Parameters
    ----------
    mel_bands : int
    channels : int
        Width after the stem; stage ``i`` has ``channels // 2**(i + 1)``.
    rates : sequence of int
        Up-sampling factor of each stage.
    kernel_sizes : sequence of int
        Taps of each stage's transposed convolution.
    residual : callable
        Makes the residual blocks of a stage from its number of channels.
    slope : float
        Of the leaky ReLU before each transposed convolution.
    slope_after : float
        Of a leaky ReLU behind each transposed convolution; 1 is none (only the Keras tutorial's MelGAN has one).
    stem_kernel_size : int
    padding_mode : {"zero", "reflect", "replicate"}
        Of the stem.
    crop_rule : {"centred", "symmetric", "output-padded"}
        As in `Upsample`.
    causal : bool
    condition_channels : int
        Width of a vector per utterance (speaker embedding) that a 1×1 convolution adds behind the stem; 0 is none.
    condition_each_stage : bool
        Add it behind every transposed convolution too (XTTS).
    """

    def __init__(
        self,
        mel_bands: int,
        channels: int,
        rates: Sequence[int],
        kernel_sizes: Sequence[int],
        residual: Callable[[int], nn.Module],
        *,
        slope: float,
        slope_after: float = 1.0,
        stem_kernel_size: int = 7,
        padding_mode: str = "zero",
        crop_rule: str = "centred",
        causal: bool = False,
        condition_channels: int = 0,
        condition_each_stage: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels // 2**i for i in range(len(rates) + 1)]
        self.slope = slope
        self.slope_after = slope_after
        self.rate = math.prod(rates)
        self.channels = widths[-1]
        self.condition_channels = condition_channels
        self.stem = Conv1d(mel_bands, channels, stem_kernel_size, padding_mode=padding_mode, causal=causal)
        up = [
            CausalUpsample(widths[i], widths[i + 1], rate)
            if causal
            else Upsample(widths[i], widths[i + 1], kernel_size, rate, crop_rule=crop_rule)
            for i, (rate, kernel_size) in enumerate(zip(rates, kernel_sizes, strict=True))
        ]
        self.up = nn.ModuleList(up)
        # rows at the end beyond `rate` for each frame: what a stage makes too many is multiplied by those behind it
        self.extra = reduce(lambda extra, stage: extra * stage.rate + stage.extra, up, 0)
        self.residual = nn.ModuleList(residual(width) for width in widths[1:])
        conditioned = (widths if condition_each_stage else widths[:1]) if condition_channels else []
        self.condition = nn.ModuleList(Conv1d(condition_channels, width, 1) for width in conditioned)

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where the trunk is conditioned, (B, condition_channels) → (B, C, T·rate + extra)."""
        if (condition is None) != (len(self.condition) == 0):
            given, fits = (
                ("no", "this generator needs one") if condition is None else ("a", "this generator takes none")
            )
            raise ValueError(f"Trunk: {given} condition was given; {fits}")
        # kernels of a GPU read neighbouring channels at once
        x = self._conditioned(self.stem(to_channels_last(mel) if mel.is_cuda else mel), 0, condition)
        for stage, (up, residual) in enumerate(zip(self.up, self.residual, strict=True), start=1):
            x = self._conditioned(up(x, slope=self.slope), stage, condition)
            if self.slope_after != 1.0:
                x = nn.functional.leaky_relu(x, self.slope_after)
            x = residual(x)
        return x

    def _conditioned(self, x: Tensor, stage: int, condition: Tensor | None) -> Tensor:
        if condition is None or stage >= len(self.condition):
            return x
        shift: Tensor = self.condition[stage](condition[..., None])
        return x + shift

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add stem and stages to a graph; without a condition, those of a trunk that would have none."""

        def conditioned(x: int, stage: int) -> int:
            if condition is None or stage >= len(self.condition):
                return x
            return graph.add(Pointwise(torch.add), x, graph.lower(self.condition[stage], condition))

        x = conditioned(graph.lower(self.stem, x), 0)
        for stage, (up, residual) in enumerate(zip(self.up, self.residual, strict=True), start=1):
            x = conditioned(graph.lower(up, x, slope=self.slope), stage)
            if self.slope_after != 1.0:
                x = graph.add(LeakyReLU(self.slope_after), x)
            x = graph.lower(residual, x)
        return x

"""What tasks have in common whose generators turn mels into waves, which are compared with recordings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from fastvoc.audio import mel_spectrogram
from fastvoc.models import Generator
from fastvoc.train.tasks.losses import Example
from fastvoc.train.tasks.smoothing import smooth
from fastvoc.train.tasks.task import Batch, Task


class WaveTask(Task):
    """A generator that learns from recordings and their mels.

    Parameters are those of `Task`. A batch is waves, (B, T), or these and their mels, (B, bands, T / hop), which are
    computed where they are not given; with `data.smoothing`, these and how far each mel is smoothed, (B, 2), int64.
    """

    generator: Generator

    validation_seconds: float | None = None
    """How much of each validation clip is made and compared, from its start; None is all of it."""

    def prepare(self, generator: Any) -> None:
        """Refuse a generator whose waves are not as long as their recordings, and tell it the convention."""
        if generator.extra_samples:
            extra = generator.extra_samples
            less, remedy = "more", 'crop_rule "centred" or "output-padded"'
            if extra < 0:
                less, remedy = "less", 'padding "same"'
            raise ValueError(
                f"generator: its waves have {abs(extra)} samples {less} than the recordings that they are compared "
                f"with; {remedy} makes them as long"
            )
        generator.prepare(self.config.convention)

    def examples(self, batch: Batch) -> list[Example]:
        """Bring a batch to the device, with its mel, in as many parts as the run computes one after another."""
        wave, other = batch if isinstance(batch, (tuple, list)) else (batch, None)
        wave = wave.to(self.device, non_blocking=True)
        if other is not None and other.is_floating_point():
            mel = other.to(self.device, non_blocking=True)
        else:
            convention = self.config.convention
            # a centred convention has one frame more than hops
            mel = mel_spectrogram(wave, convention)[..., : wave.shape[-1] // convention.hop]
            if other is not None:
                data: Any = self.config.data
                mel = smooth(mel, other.to(self.device, non_blocking=True), data.smoothing)
        count = self.config.accumulate
        return [Example(*pair) for pair in zip(wave.chunk(count), mel.chunk(count), strict=True)]

    def make(self, example: Example, names: Collection[str]) -> dict[str, Tensor]:
        """Make outputs of the generator, unless they are there and have the graph that is needed."""
        made = example.made
        if not made or (torch.is_grad_enabled() and not any(value.requires_grad for value in made.values())):
            with self.autocast():
                made = self.generator.outputs(example.mel, names)
            if "wave" in made:
                example.fake = made["wave"].to(example.wave.dtype)
                made["wave"] = example.fake[:, 0]
            example.made = made
        return made

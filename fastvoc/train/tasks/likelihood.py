"""One step of a vocoder that is trained by maximum likelihood: recordings are made more probable, given their mels.

van den Oord 2016, arXiv:1609.03499, eq. 1 (WaveNet); Prenger 2018, arXiv:1811.00002, eq. 12 (WaveGlow).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from fastvoc.audio import mel_spectrogram
from fastvoc.config import config
from fastvoc.models import Generator
from fastvoc.train.tasks.task import TASKS, Batch, Numbers, own_defaults
from fastvoc.train.tasks.waves import WaveTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastvoc.train.config import TrainConfig

TOTAL = "negative_log_likelihood"
"""What is minimised, in the log."""


class Likely(Protocol):
    """What this task asks of a generator."""

    def negative_log_likelihood(self, wave: Tensor, mel: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
        """Say how improbable recordings are, in nats for each sample.

        Parameters
        ----------
        wave : Tensor, shape (B, T·hop)
            In [−1, 1].
        mel : Tensor, shape (B, bands, T)
        condition : Tensor, shape (B, condition_channels), optional

        Returns
        -------
        dict of str to Tensor
            Scalars, one at least: the parts of a sum, by names for the log. The sum is minimised.
        """


@TASKS.add
@config
class LikelihoodConfig:
    """A generator minimises the negative logarithm of the likelihood of recordings, and nothing else."""

    kind: Literal["likelihood"] = "likelihood"
    validation_seconds: Annotated[float, Field(gt=0)] = 2.0
    """Of each validation clip, from its start, so much is made and compared: networks of this kind may be slow."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if a run asks for what this task does not do."""
        if run.losses:
            raise ValueError(f"task likelihood minimises no losses; leave out {', '.join(run.losses)}")
        for name in ("adversary", "start_adversary_from"):
            if getattr(run, name) is not None:
                raise ValueError(f"task likelihood has no adversary; leave out {name}")

    def build(self, run: TrainConfig, device: torch.device) -> LikelihoodTask:
        """Build the task with fresh weights."""
        return LikelihoodTask(run, device)


class LikelihoodTask(WaveTask):
    """A generator that learns from the likelihood of recordings."""

    @own_defaults()
    def __init__(
        self, config: TrainConfig, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config, device, dtype)
        if not hasattr(type(self.generator), "negative_log_likelihood"):
            raise ValueError(
                f"task likelihood: the generator {config.generator.kind} says nothing of how likely a wave is; choose "
                "one with negative_log_likelihood, or another task"
            )
        if self.generator.condition_channels:
            raise ValueError(
                f"generator: it is conditioned on {self.generator.condition_channels} channels, and recordings come "
                "with none; leave out condition_channels"
            )
        settings = config.task
        assert isinstance(settings, LikelihoodConfig)
        self.validation_seconds = settings.validation_seconds

    def update(self, batch: Batch, turn: None = None) -> Numbers:
        """Make the update of a step."""
        numbers = Numbers()
        for example in self.examples(batch):
            with self.autocast():
                parts = _parts(self.generator, example.wave, example.mel)
            loss = torch.stack([*parts.values()]).sum()
            for name, part in {TOTAL: loss, **parts}.items():
                share = part.detach() / self.config.accumulate
                numbers[name] = numbers[name] + share if name in numbers else share
            self.learner.backward(loss / self.config.accumulate)
        numbers["generator_gradient"] = self.learner.update()
        return numbers

    def validate(self, generator: Generator, clips: Mapping[str, Tensor]) -> dict[str, float]:
        """Measure how improbable the beginnings of recordings are, as long as a segment is at most."""
        mel_config = self.config.convention
        weight = next(generator.parameters())
        found = []
        with torch.no_grad():
            for clip in clips.values():
                length = min(len(clip) // mel_config.hop * mel_config.hop, self.config.segment)
                wave = clip[None, :length].to(weight)
                mel = mel_spectrogram(wave, mel_config)[..., : length // mel_config.hop]
                found.append(torch.stack([*_parts(generator, wave, mel).values()]).sum())
        return {TOTAL: float(torch.stack(found).mean())} if found else {}


def _parts(generator: Generator, wave: Tensor, mel: Tensor) -> dict[str, Tensor]:
    likely: Likely = generator  # type: ignore[assignment]
    return {name: part.float() for name, part in likely.negative_log_likelihood(wave, mel).items()}

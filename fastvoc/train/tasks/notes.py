"""One step of GANSynth: a Wasserstein GAN whose discriminator also learns to name pitches, and which grows.

Engel et al. 2019, arXiv:1902.08710, § 3; Gulrajani et al. 2017, arXiv:1704.00028, eq. 3 (the penalty on gradients);
Karras et al. 2018, arXiv:1710.10196, § 2 to 4 (growth, equalised learning rate, drift); reference: magenta/magenta
526d3eb, magenta/models/gansynth/lib/{model,train_util,networks}.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.audio.instantaneous_frequency import denormalise, normalise, note_spectrum, note_wave
from fastvoc.config import config
from fastvoc.models import GANSynth
from fastvoc.models.discriminators.note import NoteDiscriminator
from fastvoc.models.gansynth import Convolution
from fastvoc.noise import normal, uniform
from fastvoc.train.data.notes import NoteDataConfig
from fastvoc.train.learning import parallel
from fastvoc.train.learning.optimisers import Learner
from fastvoc.train.tasks.adversary import frozen
from fastvoc.train.tasks.task import TASKS, Batch, Numbers, Task, own_defaults

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig


AUDIBLE = 50.0
"""dB below the loudest pixel of a note, where regression no longer asks for frequencies."""

SILENT = 0.05
"""How much levels below that count all the same."""


@TASKS.add
@config
class NoteConfig:
    """What a step does; by default the published ones. The discriminator has the run's optimiser, too."""

    kind: Literal["notes"] = "notes"
    penalty: float = Field(10.0, ge=0)
    """Weight of the mean of (‖gradient‖ - 1)², between notes that are real and others that are made."""
    drift: float = Field(0.001, ge=0)
    """Weight of the mean square of the scores of real notes."""
    pitch: float = Field(10.0, ge=0)
    """Weight of the cross-entropy of pitches."""
    steady: int = Field(800_000, ge=0)
    """Notes that are seen between two growths; 0 of these and of `growth` is full-grown from the first."""
    growth: int = Field(800_000, ge=0)
    """Notes that are seen during a growth."""
    regression: float = Field(0.0, ge=0)
    """Weight of how far notes that are made near the points of their instruments are from the real ones. Ours: the
    paper has no such loss, and points of timbre belong to no instrument there."""
    closeness: float = Field(0.8, ge=0, le=1)
    """Correlation of such a point with its instrument's own one; at 1 it is that one."""
    starts_at: int = Field(0, ge=0)
    """Steps before the discriminator takes part, with `regression` alone."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if a run asks for what this task does not do."""
        if not isinstance(run.data, NoteDataConfig):
            raise ValueError(f"task notes learns from notes, and data is of kind {run.data.kind}; set data.kind: notes")
        if getattr(run.generator, "progress", None) is not None:
            raise ValueError(
                "generator.progress: what task notes trains grows by task.steady and task.growth; leave it out"
            )
        if run.losses:
            raise ValueError(f"task notes has losses of its own; leave out {', '.join(run.losses)}")
        for name in ("adversary", "start_adversary_from", "continue_from"):
            if getattr(run, name) is not None:
                raise ValueError(f"task notes has one adversary, the mirror of its generator; leave out {name}")
        if run.weight_norm != "none":
            raise ValueError(f"weight_norm is {run.weight_norm}; task notes equalises learning rates: set none")
        if run.precision != "float32":
            raise ValueError(f"precision is {run.precision}; task notes needs second derivatives: set float32")
        if self.starts_at and not self.regression:
            raise ValueError(
                f"task.starts_at is {self.starts_at} and task.regression 0, so that nothing is learned before the "
                "discriminator takes part; set either"
            )
        if run.accumulate != 1:
            raise ValueError(
                f"accumulate is {run.accumulate}; the discriminator of task notes compares the notes of a batch: set 1"
            )
        for name in ("compile", "graph", "recompute"):
            if getattr(run, name):
                raise ValueError(f"task notes does not {name}; leave it out")

    def hastened(self) -> NoteConfig:
        """Return the settings of a smoke test, whose networks are full-grown from the first, and all learn."""
        return replace(self, steady=0, growth=0, starts_at=0)

    def build(self, run: TrainConfig, device: torch.device) -> NoteTask:
        """Build the task with fresh weights."""
        return NoteTask(run, device)


class Moment(NamedTuple):
    """What differs from step to step."""

    done: int
    """Steps before it."""
    progress: float
    """How far the networks have grown, in blocks from 0."""


def growth(notes: int, steps: NoteConfig, blocks: int) -> float:
    """Return the progress of networks that have seen so many notes: still for `steady`, then growing for `growth`."""
    if not steps.steady + steps.growth:
        return blocks - 1.0
    whole, rest = divmod(notes, steps.steady + steps.growth)
    share = max(0, rest - steps.steady) / steps.growth if steps.growth else 0.0
    return min(whole + share, blocks - 1.0)


def blurred(picture: Tensor, progress: float, blocks: int) -> Tensor:
    """Return real pictures, (B, 2, T, F), as a generator of this progress could make them at best."""
    if progress == blocks - 1:  # full-grown
        return picture
    result = torch.zeros_like(picture)
    for block in range(math.floor(progress), math.ceil(progress) + 1):
        factor = 1 << blocks - 1 - block
        coarse = F.interpolate(F.avg_pool2d(picture, factor), scale_factor=float(factor), mode="nearest")
        result = result + (1 - abs(progress - block)) * coarse
    return result


def audible(picture: Tensor, *, power: bool = False) -> Tensor:
    """Return how much each pixel of notes is heard: 1 at the loudest of its note, and 0 from 50 dB below.

    Parameters
    ----------
    picture : Tensor, shape (B, 2, T, F)
        As the networks see it.
    power : bool
        Whether its levels are of powers, as those of mel bands, and not of magnitudes.

    Returns
    -------
    Tensor, shape (B, T, F)
    """
    level = denormalise(picture.permute(0, 2, 3, 1))[..., 0]
    below = level - level.amax(dim=(1, 2), keepdim=True)
    return (1 + below / (AUDIBLE * math.log(10) / (10 if power else 20))).clamp(min=0)


class NoteTask(Task):
    """A generator of notes and its discriminator."""

    generator: GANSynth

    @own_defaults()
    def __init__(
        self, config: TrainConfig, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config, device, dtype)
        assert isinstance(config.task, NoteConfig) and isinstance(config.data, NoteDataConfig)
        self.settings, self.data = config.task, config.data
        self.discriminator = NoteDiscriminator(self.generator.config).to(self.device, dtype)
        self.discriminator_learner = self.learner_of(self.discriminator, config.optimiser)
        for network in self.networks().values():
            # pixel by pixel, in which a CPU is a third faster
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def networks(self) -> dict[str, nn.Module]:
        """Return every network, by its name in the saved state."""
        return super().networks() | {"discriminator": self.discriminator}

    def learners(self) -> dict[str, Learner]:
        """Return what updates the networks that learn, by their names."""
        return super().learners() | {"discriminator": self.discriminator_learner}

    def learner_of(self, network: nn.Module, config: Any) -> Learner:
        """Make what updates a network, all of whose weights change as much as if each had a variance of 1.

        With regression the first biases do, too: beside a wide first kernel they would soon hide all that differs.
        """
        equalised = sizes(network)
        assert isinstance(self.config.task, NoteConfig)
        if self.config.task.regression and isinstance(network, GANSynth):
            # what they are added to is as small: each tap of the first kernel meets a single pixel
            layer = network.blocks[0].conv0
            assert layer.bias is not None
            equalised[layer.bias] = layer.deviation * math.sqrt(layer.in_channels)
        return Learner(network, config, sizes=equalised)

    def turn(self, step: int) -> Moment:
        """Say how far the networks have grown at a step, counted from 1."""
        blocks = self.generator.config.blocks
        return Moment(step - 1, growth((step - 1) * self.config.batch, self.settings, blocks))

    @own_defaults()
    def plain_generator(self) -> GANSynth:
        """Return the generator as it is used, with the average's weights, as far as it had grown at the last step."""
        settings = self.generator.config
        progress = self.turn(max(1, self.learner.updates)).progress
        if progress < settings.blocks - 1:
            settings = replace(settings, progress=progress)
        with torch.random.fork_rng([]):  # first weights are drawn, which must not change the run
            generator = settings.build().to(self.device)
        weights = (self.average.network if self.average else self.generator).state_dict()
        generator.load_state_dict({name: weights[name] for name in generator.state_dict()})
        return generator

    def pictures(self, wave: Tensor) -> Tensor:
        """Turn notes into what the networks see of them: (B, samples) → (B, 2, frames, bins), in [-1, 1]."""
        data = self.data
        seen = note_spectrum(wave, data.spectrum, mel=data.bands == "mel", second=data.second)
        return normalise(seen).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def waves(self, picture: Tensor) -> Tensor:
        """Turn what the networks see into notes: (B, 2, frames, bins) → (B, samples)."""
        data, seen = self.data, denormalise(picture.permute(0, 2, 3, 1))
        return note_wave(seen, data.spectrum, mel=data.bands == "mel", second=data.second)

    def update(self, batch: Batch, turn: Moment) -> Numbers:
        """Update the generator, then the discriminator.

        Parameters
        ----------
        batch : (Tensor, Tensor), of shapes (B, samples) and (B, 2)
            Notes; and of each its pitch, counted from the lowest one, from 0, and the seed of its instrument's point
            of timbre. Notes of these pitches are made, too.
        turn : Moment

        Returns
        -------
        dict of str to Tensor
            Scalars: ``generator`` and ``discriminator`` (whole losses), ``distance`` (of scores), ``penalty``,
            ``real_pitch`` and ``fake_pitch`` (cross-entropies in nats), ``progress``, and norms of gradients; with
            `NoteConfig.regression` also what `regression` returns. Those of the discriminator are absent before it
            takes part.
        """
        wave, notes = (part.to(self.device, non_blocking=True) for part in batch)
        pitch, instrument = notes.unbind(dim=1)
        progress, weights = turn.progress, self.settings
        picture = blurred(self.pictures(wave), progress, self.generator.config.blocks)
        numbers: Numbers = {"progress": torch.tensor(progress, device=self.device)}
        judged = turn.done >= weights.starts_at

        with frozen(self.discriminator):
            numbers["generator"] = picture.new_zeros(())
            if judged:
                made = self.generator(self._timbres(len(pitch), turn, 0), pitch, progress)
                score, named = self.discriminator(made, progress)
                numbers["fake_pitch"] = F.cross_entropy(named, pitch)
                numbers["generator"] = weights.pitch * numbers["fake_pitch"] - score.mean()
            if weights.regression:
                numbers |= (distances := self.regression(picture, pitch, instrument, turn))
                numbers["generator"] = numbers["generator"] + weights.regression * sum(distances.values())
        self.learner.backward(numbers["generator"])
        numbers["generator_gradient"] = self.learner.update()
        if judged:
            numbers |= self._judge(picture, pitch, turn)
        return {name: value.detach() for name, value in numbers.items()}

    def _judge(self, picture: Tensor, pitch: Tensor, turn: Moment) -> Numbers:
        """Update the discriminator."""
        progress, weights = turn.progress, self.settings
        numbers: Numbers = {}
        with torch.no_grad():
            fake = self.generator(self._timbres(len(pitch), turn, 1), pitch, progress)
        real_score, named = self.discriminator(picture, progress)
        numbers["distance"] = real_score.mean() - self.discriminator(fake, progress)[0].mean()
        numbers["real_pitch"] = F.cross_entropy(named, pitch)
        numbers["penalty"] = self.penalty(picture, fake, turn)
        drift = real_score.square().mean()
        numbers["discriminator"] = (
            weights.penalty * numbers["penalty"]
            - numbers["distance"]
            + weights.drift * drift
            + weights.pitch * numbers["real_pitch"]
        )
        self.discriminator_learner.backward(numbers["discriminator"])
        numbers["discriminator_gradient"] = self.discriminator_learner.update()
        return numbers

    def regression(self, picture: Tensor, pitch: Tensor, instrument: Tensor, turn: Moment) -> Numbers:
        """Compare real notes with those that are made near the points of timbre of their instruments.

        The picture of a note is nearly a function of its instrument and pitch, which a wave is not. Points near that of
        an instrument are normally distributed with it, so a point that might be of several has a picture between
        theirs, and all points have one.

        Parameters
        ----------
        picture : Tensor, shape (B, 2, frames, bins)
            Of real notes.
        pitch : Tensor, shape (B,)
            From 0.
        instrument : Tensor, shape (B,)
            The seeds of their instruments' points.
        turn : Moment

        Returns
        -------
        dict of str to Tensor
            ``level`` (mean difference of the first layers), ``turn`` (of the second ones: mean chord between their
            directions on the circle, as a part of its diameter), and ``wave_level`` (as ``level``, once the picture
            has become a wave, whose overlapping frames must agree). Means are by what is heard (`audible`): of levels
            by that and a little more, so that a note is silent between its partials; of turns by its square.
        """
        own = normal(instrument, 0, channels=self.generator.config.latent, rows=1)[..., 0].to(picture)
        share = self.settings.closeness
        point = share * own + math.sqrt(1 - share * share) * self._timbres(len(pitch), turn, 2)
        made = self.generator(point, pitch, turn.progress)
        heard, shown = audible(picture, power=self.data.bands == "mel"), self.pictures(self.waves(made))
        half_turns = denormalise((made - picture).permute(0, 2, 3, 1))[..., 1]
        weight = heard + SILENT
        return {
            "level": ((made - picture)[:, 0].abs() * weight).mean() / weight.mean(),
            "turn": ((0.5 * math.pi * half_turns).sin().abs() * heard.square()).mean() / heard.square().mean(),
            "wave_level": ((shown - picture)[:, 0].abs() * weight).mean() / weight.mean(),
        }

    def penalty(self, real: Tensor, fake: Tensor, turn: Moment) -> Tensor:
        """Return the mean of (‖gradient‖ - 1)² of the scores of pictures between real and made ones."""
        row = self._first(turn.done, len(real))
        share = uniform(self._seeds(), row, channels=1, rows=len(real)).reshape(-1, 1, 1, 1).to(real)
        mixed = torch.lerp(real, fake, share).requires_grad_(True)
        score = self.discriminator(mixed, turn.progress)[0].sum()
        (gradient,) = torch.autograd.grad(score, mixed, create_graph=True)
        lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (lengths - 1).square().mean()

    def _timbres(self, count: int, turn: Moment, part: int) -> Tensor:
        """Draw points of timbre, (B, latent): others in each step, and in each of its parts."""
        parts = 3 if self.settings.regression else 2
        row = self._first(parts * turn.done + part, count)
        drawn = normal(self._seeds(), row, channels=self.generator.config.latent, rows=count)
        return drawn[0].T.contiguous().to(next(self.generator.parameters()))

    def _first(self, draw: int, count: int) -> int:
        """Return the row of random numbers at which a draw of this process begins."""
        return (draw * parallel.world_size() + parallel.rank()) * count

    def _seeds(self) -> Tensor:
        return torch.tensor([self.config.seed], dtype=torch.int64, device=self.device)


def sizes(network: nn.Module) -> dict[Tensor, float]:
    """Return the deviation of each weight's first values: what an equalised weight is multiplied by when it is used.

    Adam divides by the size of gradients, so a weight that is stored s times larger moves 1 / s as far; scaling its
    learning rate by s, and by 1 / s what is added to the divisor, is the same (Karras et al. 2018, § 4.1).
    """
    return {layer.weight: layer.deviation for layer in network.modules() if isinstance(layer, Convolution)}

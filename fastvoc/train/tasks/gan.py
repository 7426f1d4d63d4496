"""One step of a GAN vocoder: the discriminators learn to tell waves apart, the generator to be taken for recordings.

Kumar 2019, arXiv:1910.06711, § 2; Kong 2020, arXiv:2010.05646, eqs. 1 to 6; Yang 2020, arXiv:2005.05106, § 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from fastvoc.config import config
from fastvoc.train.learning.optimisers import Learner
from fastvoc.train.learning.weight_norm import folded
from fastvoc.train.tasks.adversary import Adversary, Turn, frozen
from fastvoc.train.tasks.losses import Example
from fastvoc.train.tasks.task import TASKS, Batch, Numbers, own_defaults
from fastvoc.train.tasks.waves import WaveTask

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig


@TASKS.add
@config
class GanConfig:
    """A generator minimises the run's losses, together with the run's adversary where there is one."""

    kind: Literal["gan"] = "gan"

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if losses and adversary do not fit each other."""
        alone = [name for name, loss in run.losses.items() if not loss.maps]
        judged = [name for name, loss in run.losses.items() if loss.maps]
        adversary = run.adversary
        if not run.losses:
            raise ValueError("losses: every weight is zero; a generator needs something to minimise")
        if bool(judged) != (adversary is not None):
            raise ValueError("losses.adversarial and losses.features need an adversary, and an adversary needs one")
        for number, discriminator in enumerate(adversary.discriminators if adversary else ()):
            check_mel = getattr(discriminator, "check_mel", None)  # of one that is made for some waves only
            if check_mel is not None:
                try:
                    check_mel(run.convention)
                except ValueError as error:
                    raise ValueError(f"adversary.discriminators.{number}: {error}") from None
        for field in ("starts_at", "listens_for"):
            if adversary and getattr(adversary, field) and not alone:
                raise ValueError(f"before adversary.{field} {getattr(adversary, field)} there is nothing to minimise")

    def build(self, run: TrainConfig, device: torch.device) -> GanTask:
        """Build the task with fresh weights."""
        return GanTask(run, device)


class GanTask(WaveTask):
    """A generator and its adversary, if it has one, in the turns that a recipe lets them take."""

    @own_defaults()
    def __init__(
        self, config: TrainConfig, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config, device, dtype)
        if self.generator.condition_channels:
            raise ValueError(
                f"generator: it is conditioned on {self.generator.condition_channels} channels, and recordings come "
                "with none; leave out condition_channels"
            )
        if config.adversary is not None:
            self.adversary = Adversary(config.adversary, self.device, dtype, self.learner_of)
            if config.compile:
                self.adversary.network.compile()

    def networks(self) -> dict[str, nn.Module]:
        """Return every network, by its name in the saved state."""
        return super().networks() | ({"discriminators": self.adversary.network} if self.adversary else {})

    def learners(self) -> dict[str, Learner]:
        """Return what updates the networks that learn, by their names."""
        return super().learners() | ({"discriminators": self.adversary.learner} if self.adversary else {})

    def turn(self, step: int) -> Turn:
        """Say what the adversary does in a step, counted from 1."""
        return self.adversary.config.turn(step) if self.adversary else Turn(learns=False, judges=False)

    def schedule(self, turn: Turn, epoch: int) -> None:
        """Set the learning rates of the updates of a step."""
        self.learner.schedule(epoch)
        if self.adversary is not None and turn.learns:
            self.adversary.learner.schedule(epoch)

    def update(self, batch: Batch, turn: Turn) -> Numbers:
        """Make the updates of a step, in the order of the adversary's configuration."""
        examples, numbers = self.examples(batch), Numbers()
        adversary = self.adversary
        if adversary is None or not turn.learns:
            self._teach_generator(examples, turn, numbers)
            self._update(self.learner, "generator", numbers)
        elif adversary.config.order == "discriminators-first":
            self._teach_discriminators(adversary, examples, turn, numbers)
            self._update(adversary.learner, "discriminators", numbers)
            self._teach_generator(examples, turn, numbers)
            self._update(self.learner, "generator", numbers)
        elif adversary.config.order == "generator-first":
            self._teach_generator(examples, turn, numbers)
            self._update(self.learner, "generator", numbers)
            made_again = [Example(example.wave, example.mel) for example in examples]
            self._teach_discriminators(adversary, made_again, turn, numbers)
            self._update(adversary.learner, "discriminators", numbers)
        else:
            self._teach_discriminators(adversary, examples, turn, numbers)
            self._teach_generator(examples, turn, numbers)
            self._update(adversary.learner, "discriminators", numbers)
            self._update(self.learner, "generator", numbers)
        return numbers

    def judge(self, example: Example, adversary: Adversary) -> Numbers:
        """Compute the losses that read what discriminators say of a generated wave."""
        losses = {name: loss for name, loss in self.config.losses.items() if loss.maps}
        with frozen(adversary.network), folded(adversary.network), self.autocast():
            if not example.real_maps and any("real" in loss.maps for loss in losses.values()):
                with torch.no_grad():
                    example.real_maps = adversary.network(example.wave[:, None])
            example.fake_maps = adversary.network(example.fake)
            example.shares = adversary.shares
            return {name: loss(example, self.config) for name, loss in losses.items()}

    def _teach_discriminators(
        self, adversary: Adversary, examples: list[Example], turn: Turn, numbers: Numbers
    ) -> None:
        """Find the gradient of the discriminators."""
        # a single fake that the generator learns from afterwards is made once, with its graph
        again = len(examples) > 1 or adversary.config.order == "generator-first"
        for example in examples:
            with torch.set_grad_enabled(not again):
                self.make(example, self._outputs(turn))
            assert example.fake is not None
            with folded(adversary.network), self.autocast():
                loss, real_maps = adversary.loss(example.wave[:, None], example.fake)
            if adversary.config.reuse:
                example.real_maps = real_maps
            _count(numbers, {"discriminators": loss}, len(examples))
            adversary.learner.backward(loss / len(examples))

    def _teach_generator(self, examples: list[Example], turn: Turn, numbers: Numbers) -> None:
        """Find the gradient of the generator."""
        losses = self.config.losses
        for example in examples:
            self.make(example, self._outputs(turn))
            terms = {name: loss(example, self.config) for name, loss in losses.items() if not loss.maps}
            if self.adversary is not None and turn.judges:
                terms |= self.judge(example, self.adversary)
            loss = torch.stack([losses[name].weight * term for name, term in terms.items()]).sum()
            _count(numbers, terms, len(examples))
            self.learner.backward(loss / len(examples))

    def _outputs(self, turn: Turn) -> set[str]:
        """Return which outputs of the generator are read in a step."""
        read = {loss.of for loss in self.config.losses.values() if not loss.maps}
        return read | ({"wave"} if turn.learns or turn.judges else set())

    def _update(self, learner: Learner, name: str, numbers: Numbers) -> None:
        numbers[f"{name}_gradient"] = learner.update()


def _count(numbers: Numbers, terms: Numbers, parts: int) -> None:
    """Add the terms of one of several parts to the means."""
    for name, term in terms.items():
        share = term.detach() / parts
        numbers[name] = numbers[name] + share if name in numbers else share

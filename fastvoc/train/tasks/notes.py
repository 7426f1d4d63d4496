"""One step of GANSynth: a Wasserstein GAN whose discriminator also learns to name pitches, and which grows.

Engel et al. 2019, arXiv:1902.08710, § 3; Gulrajani et al. 2017, arXiv:1704.00028, eq. 3 (the penalty on gradients);
Karras et al. 2018, arXiv:1710.10196, § 2 to 4 (growth, equalised learning rate, drift); reference: magenta/magenta
526d3eb, magenta/models/gansynth/lib/{model,train_util,networks}.py.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.config import config
from fastvoc.models import GANSynth, GANSynthConfig
from fastvoc.models.discriminators.note import NoteDiscriminator
from fastvoc.models.gansynth import Convolution
from fastvoc.noise import normal, uniform
from fastvoc.train.tasks.task import Numbers, own_defaults


@config
class NoteConfig:
    """What a step does; by default the published ones."""

    learning_rate: float = Field(8e-4, gt=0)
    """Of both networks, for weights of unit variance."""
    decays: tuple[float, float] = (0.0, 0.99)
    """Of the means of gradients and of their squares."""
    penalty: float = Field(10.0, ge=0)
    """Weight of the mean of (‖gradient‖ - 1)², between notes that are real and others that are made."""
    drift: float = Field(0.001, ge=0)
    """Weight of the mean square of the scores of real notes."""
    pitch: float = Field(10.0, ge=0)
    """Weight of the cross-entropy of pitches."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the moving average of the generator, which is what is played."""
    steady: int = Field(800_000, ge=0)
    """Notes that are seen between two growths; 0 is full-grown from the first."""
    growth: int = Field(800_000, ge=0)
    """Notes that are seen during a growth."""
    seed: int = Field(1234, ge=0, lt=1 << 63)
    """Of first weights, points of timbre and mixtures."""


def growth(notes: int, steps: NoteConfig, blocks: int) -> float:
    """Return the progress of networks that have seen so many notes: still for `steady`, then growing for `growth`."""
    if not steps.steady + steps.growth:
        return blocks - 1.0
    whole, rest = divmod(notes, steps.steady + steps.growth)
    share = max(0, rest - steps.steady) / steps.growth if steps.growth else 0.0
    return min(whole + share, blocks - 1.0)


def blurred(picture: Tensor, progress: float, blocks: int) -> Tensor:
    """Return real pictures, (B, 2, T, F), as a generator of this progress could make them at best."""
    result = torch.zeros_like(picture)
    for block in range(math.floor(progress), math.ceil(progress) + 1):
        factor = 1 << blocks - 1 - block
        coarse = F.interpolate(F.avg_pool2d(picture, factor), scale_factor=float(factor), mode="nearest")
        result = result + (1 - abs(progress - block)) * coarse
    return result


class NoteTask:
    """A generator of notes, its discriminator, and all that changes from step to step.

    Parameters
    ----------
    generator : GANSynthConfig
    steps : NoteConfig
    device : torch.device, optional
        By default the CPU.
    """

    @own_defaults()
    def __init__(
        self, generator: GANSynthConfig, steps: NoteConfig | None = None, device: torch.device | None = None
    ) -> None:
        self.steps = steps or NoteConfig()
        self.device = device or torch.device("cpu")
        with torch.random.fork_rng([]):
            torch.manual_seed(self.steps.seed)
            self.generator: GANSynth = generator.build().to(self.device)
            self.discriminator = NoteDiscriminator(generator).to(self.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self._learners = {
            "generator": equalised_adam(self.generator, self.steps),
            "discriminator": equalised_adam(self.discriminator, self.steps),
        }
        self.done, self.seen = 0, 0

    @property
    def progress(self) -> float:
        """How far the networks have grown, in blocks from 0."""
        return growth(self.seen, self.steps, self.generator.config.blocks)

    @own_defaults()
    def step(self, picture: Tensor, pitch: Tensor) -> Numbers:
        """Update the generator, then the discriminator.

        Parameters
        ----------
        picture : Tensor, shape (B, 2, frames, bins), float32
            Of real notes, in [-1, 1], as `fastvoc.audio.instantaneous_frequency.normalise` scales them.
        pitch : Tensor, shape (B,), int64
            Counted from the lowest one, from 0; notes of these are made, too.

        Returns
        -------
        dict of str to Tensor
            Scalars: ``generator`` and ``discriminator`` (whole losses), ``distance`` (of scores), ``penalty``,
            ``real_pitch`` and ``fake_pitch`` (cross-entropies in nats).
        """
        picture, pitch = picture.to(self.device), pitch.to(self.device)
        progress, steps = self.progress, self.steps
        picture = blurred(picture, progress, self.generator.config.blocks)
        self.discriminator.requires_grad_(False)
        score, named = self.discriminator(self.generator(self._timbres(len(pitch), 0), pitch, progress), progress)
        fake_pitch = F.cross_entropy(named, pitch)
        generator_loss = steps.pitch * fake_pitch - score.mean()
        self._update("generator", generator_loss)
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(value, 1 - steps.ema)
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fake = self.generator(self._timbres(len(pitch), 1), pitch, progress)
        real_score, named = self.discriminator(picture, progress)
        distance = real_score.mean() - self.discriminator(fake, progress)[0].mean()
        real_pitch = F.cross_entropy(named, pitch)
        penalty = self._penalty(picture, fake, progress)
        drift = real_score.square().mean()
        loss = steps.penalty * penalty - distance + steps.drift * drift + steps.pitch * real_pitch
        self._update("discriminator", loss)
        self.done, self.seen = self.done + 1, self.seen + len(pitch)
        numbers = {
            "generator": generator_loss,
            "discriminator": loss,
            "distance": distance,
            "penalty": penalty,
            "real_pitch": real_pitch,
            "fake_pitch": fake_pitch,
        }
        return {name: value.detach() for name, value in numbers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, but its notes."""
        learners = {f"{name}_learner": learner.state_dict() for name, learner in self._learners.items()}
        networks = {name: network.state_dict() for name, network in self._networks().items()}
        return networks | learners | {"done": self.done, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        for name, network in self._networks().items():
            network.load_state_dict(state[name])
        for name, learner in self._learners.items():
            learner.load_state_dict(state[f"{name}_learner"])
        self.done, self.seen = state["done"], state["seen"]

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "average": self.average, "discriminator": self.discriminator}

    def _penalty(self, real: Tensor, fake: Tensor, progress: float) -> Tensor:
        share = uniform(self._seeds(), self.done * len(real), channels=1, rows=len(real)).reshape(-1, 1, 1, 1)
        mixed = torch.lerp(real, fake, share).requires_grad_(True)
        score = self.discriminator(mixed, progress)[0].sum()
        (gradient,) = torch.autograd.grad(score, mixed, create_graph=True)
        lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (lengths - 1).square().mean()

    def _timbres(self, count: int, turn: int) -> Tensor:
        """Draw points of timbre, (B, latent): others in each step, and in each of its two turns."""
        first = (2 * self.done + turn) * count
        drawn = normal(self._seeds(), first, channels=self.generator.config.latent, rows=count)
        return drawn[0].T.contiguous()

    def _seeds(self) -> Tensor:
        return torch.tensor([self.steps.seed], dtype=torch.int64, device=self.device)

    def _update(self, name: str, loss: Tensor) -> None:
        learner = self._learners[name]
        learner.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        learner.step()


def equalised_adam(network: nn.Module, steps: NoteConfig) -> torch.optim.Adam:
    """Return an Adam that changes all weights as much as if each had a variance of 1, and were scaled when it is used.

    Adam divides by the size of gradients, so a weight that is stored s times larger moves 1 / s as far; scaling its
    learning rate by s, and by 1 / s what is added to the divisor, is the same.
    """
    groups = []
    for layer in network.modules():
        if isinstance(layer, Convolution):
            s = layer.deviation
            groups.append({"params": [layer.weight], "lr": s * steps.learning_rate, "eps": 1e-8 / s})
            groups.append({"params": [layer.bias], "lr": steps.learning_rate, "eps": 1e-8})
    return torch.optim.Adam(groups, betas=steps.decays, foreach=True)

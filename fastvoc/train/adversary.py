"""The adversary of a generator: which discriminators, how they learn, and when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from fastvoc.config import config
from fastvoc.models.discriminators import Maps
from fastvoc.train.discriminators import DiscriminatorConfig
from fastvoc.train.losses import Across, Objective, Scale, adversarial_loss, discriminator_loss, feature_matching
from fastvoc.train.optimisers import Learner, OptimiserConfig


class Turn(NamedTuple):
    """What the adversary does in a step."""

    learns: bool
    judges: bool


@config
class AdversaryConfig:
    """Discriminators, and how they and the generator take turns."""

    discriminators: Annotated[tuple[DiscriminatorConfig, ...], Field(min_length=1)]
    """Their sub-discriminators count as one list."""
    optimiser: OptimiserConfig
    """Of all discriminators together."""
    objective: Objective
    """Hinge (descript's MelGAN) or least squares (HiFi-GAN, ParallelWaveGAN, Keras)."""
    across: Across = "sum"
    """Add or average the losses of the sub-discriminators."""
    order: Literal["discriminators-first", "generator-first", "together"] = "discriminators-first"
    """Whose update comes first: the discriminators' (descript, HiFi-GAN), the generator's, which then makes its waves
    again (ParallelWaveGAN), or both from the weights before either (Keras)."""
    features_score: bool = False
    """Whether feature matching compares the scores too (HiFi-GAN)."""
    features_scale: Scale = "mean"
    """How feature matching joins its maps: "sum" (HiFi-GAN), "mean" (Keras), "descript"."""
    reuse: bool = False
    """Match the recordings' features from the discriminators' own turn, an update ago (descript): a pass less."""
    starts_at: Annotated[int, Field(ge=0)] = 0
    """Updates that the generator makes before there is any adversary."""
    listens_for: Annotated[int, Field(ge=0)] = 0
    """Steps from there in which the discriminators learn and the generator does not hear them yet."""
    frozen_for: Annotated[int, Field(ge=0)] = 0
    """Steps from there in which the discriminators judge and do not learn: for those of an earlier run."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reuse and self.order == "generator-first":
            raise ValueError("reuse needs the discriminators' turn before the generator's; order is generator-first")
        if self.listens_for and self.frozen_for:
            raise ValueError("listens_for and frozen_for contradict each other; give one of them")
        return self

    def turn(self, step: int) -> Turn:
        """Say what the adversary does in a step, counted from 1."""
        age = step - self.starts_at
        return Turn(learns=age > self.frozen_for, judges=age > self.listens_for) if age > 0 else Turn(False, False)


class Discriminators(nn.Module):
    """All discriminators as one: a wave goes in, the maps of every sub-discriminator come out."""

    def __init__(self, config: AdversaryConfig) -> None:
        super().__init__()
        self.networks = nn.ModuleList(discriminator.build() for discriminator in config.discriminators)

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per sub-discriminator, the feature maps and the score."""
        return [maps for network in self.networks for maps in network(wave)]


class Adversary:
    """Discriminators that learn.

    Parameters
    ----------
    config : AdversaryConfig
    device : torch.device
    dtype : torch.dtype
        Of the weights.
    scaled, captured : bool
        As in `Learner`.
    """

    def __init__(
        self, config: AdversaryConfig, device: torch.device, dtype: torch.dtype, *, scaled: bool, captured: bool = False
    ) -> None:
        self.config = config
        self.network = Discriminators(config).to(device, dtype)
        self.learner = Learner(self.network, config.optimiser, scaled=scaled, captured=captured)

    def loss(self, wave: Tensor, fake: Tensor) -> tuple[Tensor, list[Maps]]:
        """Compare recordings with generated waves, in one pass.

        Parameters
        ----------
        wave, fake : Tensor, shape (B, 1, T)

        Returns
        -------
        loss : Tensor, scalar
            What the discriminators minimise.
        real : list of (list of Tensor)
            The recordings' maps, without gradients.
        """
        maps = self.network(torch.cat([wave, fake.detach()]))
        real = [[x[: len(wave)] for x in scale] for scale in maps]
        scores = [scale[-1][len(wave) :] for scale in maps]
        loss = discriminator_loss(_scores(real), scores, objective=self.config.objective, across=self.config.across)
        return loss, [[x.detach() for x in scale] for scale in real]

    def judge(
        self, wave: Tensor, fake: Tensor, real: list[Maps] | None = None, *, features: bool = True
    ) -> dict[str, Tensor]:
        """Tell the generator what it could do better.

        Parameters
        ----------
        wave, fake : Tensor, shape (B, 1, T)
        real : list of (list of Tensor), optional
            The recordings' maps where they are known already.
        features : bool
            Whether to compare the maps too.

        Returns
        -------
        dict of str to Tensor
            The terms ``adversarial`` and ``features``.
        """
        config = self.config
        if features and real is None:
            with torch.no_grad():
                real = self.network(wave)
        maps = self.network(fake)
        terms = {"adversarial": adversarial_loss(_scores(maps), objective=config.objective, across=config.across)}
        if features and real is not None:
            terms["features"] = feature_matching(real, maps, score=config.features_score, scale=config.features_scale)
        return terms


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no variable of a network ask for its gradient in a `with` block, in which only what it hears learns.

    Autograd leaves out whole functions whose gradients nobody wants, but an operator that is asked for one of its
    gradients computes all that its arguments ask for.
    """
    variables = [variable for variable in network.parameters() if variable.requires_grad]
    for variable in variables:
        variable.requires_grad_(False)
    try:
        yield
    finally:
        for variable in variables:
            variable.requires_grad_(True)


def _scores(maps: list[Maps]) -> list[Tensor]:
    return [scale[-1] for scale in maps]

"""The adversary of a generator: which discriminators, how they learn, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.config import config
from fastvoc.models.discriminators import DiscriminatorConfig, Maps
from fastvoc.train.learning.optimisers import Learner, OptimiserConfig
from fastvoc.train.tasks.losses import combine, mean


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
    objective: Literal["hinge", "hinge-both", "least-squares"]
    """Hinge (descript's MelGAN), where the generator's scores have no bound; the same with a hinge of the generator's
    too (Vocos); or least squares (HiFi-GAN, ParallelWaveGAN, Keras)."""
    across: Literal["sum", "mean", "mean-of-each"] = "sum"
    """Add or average the losses of all sub-discriminators, or average those of each discriminator and add these
    (Vocos, also for the maps that features compare)."""
    weights: tuple[NonNegativeFloat, ...] = ()
    """With "mean-of-each": a factor of the losses of each discriminator; by default all have 1."""
    order: Literal["discriminators-first", "generator-first", "together"] = "discriminators-first"
    """Whose update comes first: the discriminators' (descript, HiFi-GAN), the generator's, which then makes its waves
    again (ParallelWaveGAN), or both from the weights before either (Keras)."""
    features_score: bool = False
    """Whether feature matching compares the scores too (HiFi-GAN)."""
    features_scale: Literal["sum", "mean", "descript"] = "mean"
    """How feature matching joins its maps: "sum" (HiFi-GAN), "mean" (Keras), "descript"."""
    reuse: bool = False
    """Match the recordings' features from the discriminators' own turn, an update ago (descript): a pass less."""
    starts_at: Annotated[int, Field(ge=0)] = 0
    """Updates that the generator makes before there is any adversary."""
    listens_for: Annotated[int, Field(ge=0)] = 0
    """Steps from there in which the discriminators learn and the generator does not learn from them yet."""
    frozen_for: Annotated[int, Field(ge=0)] = 0
    """Steps from there in which the discriminators judge and do not learn: for those of an earlier run."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reuse and self.order == "generator-first":
            raise ValueError("reuse needs the discriminators' turn before the generator's; order is generator-first")
        if self.listens_for and self.frozen_for:
            raise ValueError("listens_for and frozen_for contradict each other; give one of them")
        if self.weights and self.across != "mean-of-each":
            raise ValueError(f"weights are of discriminators that are added, across mean-of-each, not {self.across}")
        if self.weights and len(self.weights) != len(self.discriminators):
            raise ValueError(f"weights are {len(self.weights)} for {len(self.discriminators)} discriminators")
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
        self.weights = config.weights or (1.0,) * len(self.networks)
        self.shares: tuple[float, ...] = ()
        """Of each sub-discriminator in the mean of those of its discriminator, with the weight of that."""

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per sub-discriminator, the feature maps and the score."""
        each = [network(wave) for network in self.networks]
        pairs = zip(self.weights, each, strict=True)
        self.shares = tuple(weight / len(found) for weight, found in pairs for _ in found)
        return [maps for found in each for maps in found]


class Adversary:
    """Discriminators that learn.

    Parameters
    ----------
    config : AdversaryConfig
    device : torch.device
    dtype : torch.dtype
        Of the weights.
    learner_of : callable
        Makes what updates a network by an `OptimiserConfig`.
    """

    def __init__(
        self,
        config: AdversaryConfig,
        device: torch.device,
        dtype: torch.dtype,
        learner_of: Callable[[nn.Module, OptimiserConfig], Learner],
    ) -> None:
        self.config = config
        self.network = Discriminators(config).to(device, dtype)
        self.learner = learner_of(self.network, config.optimiser)

    @property
    def shares(self) -> tuple[float, ...]:
        """What the losses of each sub-discriminator are multiplied by, if they are not added or averaged alike."""
        return self.network.shares if self.config.across == "mean-of-each" else ()

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the first weights of the discriminators from an earlier run.

        Raises
        ------
        ValueError
            If they are other discriminators.
        """
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"start_adversary_from: its discriminators are others: {reason}") from None

    def loss(self, wave: Tensor, fake: Tensor) -> tuple[Tensor, list[Maps]]:
        """Compare recordings with generated waves, in one pass.

        Parameters
        ----------
        wave, fake : Tensor, shape (B, 1, T)

        Returns
        -------
        loss : Tensor, scalar
            What the discriminators minimise, joined over the sub-discriminators and averaged over a score map:
            ``relu(1 - D(x)) + relu(1 + D(G))`` (hinge) or ``(1 - D(x))² + D(G)²`` (least squares).
        real : list of (list of Tensor)
            The recordings' maps, without gradients.
        """
        maps = self.network(torch.cat([wave, fake.detach()]))
        real = [[x[: len(wave)] for x in scale] for scale in maps]
        pairs = [(scale[-1][: len(wave)], scale[-1][len(wave) :]) for scale in maps]
        if self.config.objective != "least-squares":
            losses = [mean(F.relu(1 - x)) + mean(F.relu(1 + y)) for x, y in pairs]
        else:
            losses = [mean((1 - x).square()) + mean(y.square()) for x, y in pairs]
        return combine(losses, self.config.across, self.shares), [[x.detach() for x in scale] for scale in real]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no variable of a network ask for its gradient in a `with` block, in which only its input learns.

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

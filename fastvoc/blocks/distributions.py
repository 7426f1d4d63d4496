"""What an autoregressive network says about its next sample: the distributions of WaveNet vocoders.

A network's last layer makes `outputs` parameters for each sample. Its next input is the number of a class, or the
sample itself. A distribution turns waves into such inputs and back, measures how improbable an input was, and draws one
from random numbers that it is given.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio.mu_law import Numbering, decode_mu_law, encode_mu_law
from fastvoc.config import Kinds, config

Randomness = Literal["normal", "uniform"]

UNLIKELIEST = 1e-5
"""Uniform numbers nearer to 0 or 1 are taken for this one, so that no logistic's sample is infinite."""


class Distribution(Protocol):
    """A distribution of samples; parameters stand in the first axis behind the batch."""

    @property
    def kind(self) -> str:
        """The name of the distribution in configurations."""

    @property
    def outputs(self) -> int:
        """Parameters for each sample."""

    @property
    def classes(self) -> int | None:
        """How many classes an input is one of, or None if it is a sample."""

    @property
    def silence(self) -> float:
        """The input that stands before the first sample."""

    @property
    def numbers(self) -> int:
        """Random numbers for each sample."""

    @property
    def randomness(self) -> Randomness:
        """Of which distribution these are."""

    def encode(self, wave: Tensor) -> Tensor:
        """Return the inputs that samples become, in the samples' shape."""

    def decode(self, inputs: Tensor) -> Tensor:
        """Return the samples of inputs."""

    def negative_log_likelihood(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Say how improbable inputs were, in nats: (B, outputs, T), (B, T) → (B, T)."""

    def draw(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        """Draw one input for each item: (B, outputs), (B, numbers), (B,) → (B,). At temperature 0, the likeliest."""


@config
class MuLawConfig:
    """Classes of a μ-law, each with a probability of its own (van den Oord 2016, arXiv:1609.03499, §2.2)."""

    kind: Literal["mu-law"] = "mu-law"
    numbering: Numbering = "truncated"
    """How samples become classes; see `fastvoc.audio.mu_law`."""
    classes: Annotated[int, Field(ge=2, le=65536)] = 256
    """How many there are."""

    @property
    def outputs(self) -> int:
        """A logit for each class."""
        return self.classes

    @property
    def silence(self) -> float:
        """The class of a sample of 0."""
        nothing = torch.zeros((), dtype=torch.float64, device="cpu")
        return float(encode_mu_law(nothing, self.numbering, self.classes))

    @property
    def numbers(self) -> int:
        """One for each sample, which selects the class."""
        return 1

    @property
    def randomness(self) -> Randomness:
        """Uniform."""
        return "uniform"

    def encode(self, wave: Tensor) -> Tensor:
        """Return the class of each sample, int64."""
        return encode_mu_law(wave, self.numbering, self.classes)

    def decode(self, inputs: Tensor) -> Tensor:
        """Return the sample of each class, in the inputs' dtype if that is of floating point."""
        dtype = inputs.dtype if inputs.is_floating_point() else torch.float32
        return decode_mu_law(inputs, self.numbering, self.classes, dtype)

    def negative_log_likelihood(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Return the cross-entropy of each sample."""
        return F.cross_entropy(parameters, inputs.long(), reduction="none")

    def draw(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        """Return the smallest class whose cumulative probability exceeds the number."""
        return draw_class(parameters, noise[:, 0], temperature).to(parameters.dtype)


class _OfSamples:
    """What distributions share whose inputs are the samples themselves."""

    @property
    def classes(self) -> None:
        """None: an input is a sample."""

    @property
    def silence(self) -> float:
        """A sample of 0."""
        return 0.0

    def encode(self, wave: Tensor) -> Tensor:
        """Return the samples."""
        return wave.clamp(-1, 1)

    def decode(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        return inputs


@config
class LogisticsConfig(_OfSamples):
    """A mixture of logistics, of which each level of 16 bits has a share (Salimans 2017, arXiv:1701.05517, §2.1)."""

    kind: Literal["logistics"] = "logistics"
    mixtures: Annotated[int, Field(ge=1, le=256)] = 10
    """How many are mixed."""
    levels: Annotated[int, Field(ge=3, le=1 << 24)] = 65536
    """Of the recordings' samples, whose probabilities are learned."""
    smallest_log_scale: float = -16.0
    """Logarithms of scales are at least this."""

    @property
    def outputs(self) -> int:
        """The logits of all, then the means, then the logarithms of the scales."""
        return 3 * self.mixtures

    @property
    def numbers(self) -> int:
        """Two for each sample: which logistic, and where in it."""
        return 2

    @property
    def randomness(self) -> Randomness:
        """Uniform."""
        return "uniform"

    def negative_log_likelihood(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Return minus the logarithm of the probability of the level that each sample is nearest to.

        Where a logistic is so narrow that this probability vanishes, its density at the sample counts instead, and the
        outermost levels hold all that lies beyond them (r9y9/wavenet_vocoder a35fff7, mixture.py).
        """
        logits, means, log_scales = parameters.chunk(3, dim=1)
        log_scales = log_scales.clamp(min=self.smallest_log_scale)
        x = inputs.to(parameters)[:, None]
        centred, inverse = x - means, (-log_scales).exp()
        half = 1 / (self.levels - 1)
        above, below = inverse * (centred + half), inverse * (centred - half)
        share = above.sigmoid() - below.sigmoid()
        middle = inverse * centred
        density = middle - log_scales - 2 * F.softplus(middle) - math.log((self.levels - 1) / 2)
        inside = torch.where(share > 1e-5, share.clamp(min=1e-12).log(), density)
        ends = torch.where(x > 0.999, -F.softplus(below), inside)
        each = torch.where(x < -0.999, above - F.softplus(above), ends)
        return -(each + logits.log_softmax(dim=1)).logsumexp(dim=1)

    def draw(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        """Select a logistic by the first number, and invert its cumulative distribution at the second."""
        logits, means, log_scales = parameters.chunk(3, dim=1)
        chosen = draw_class(logits, noise[:, 0], temperature)[:, None]
        mean, log_scale = means.gather(1, chosen)[:, 0], log_scales.gather(1, chosen)[:, 0]
        number = noise[:, 1].to(mean).clamp(UNLIKELIEST, 1 - UNLIKELIEST)
        scale = log_scale.clamp(min=self.smallest_log_scale).exp() * temperature.to(mean)
        return (mean + scale * (number.log() - (1 - number).log())).clamp(-1, 1)


@config
class GaussianConfig(_OfSamples):
    """One Gaussian (Ping 2018, arXiv:1807.07281, §3.1)."""

    kind: Literal["gaussian"] = "gaussian"
    smallest_log_scale: float = -16.0
    """The logarithm of the standard deviation is at least this."""

    @property
    def outputs(self) -> int:
        """The mean and the logarithm of the standard deviation."""
        return 2

    @property
    def numbers(self) -> int:
        """One for each sample."""
        return 1

    @property
    def randomness(self) -> Randomness:
        """Normal."""
        return "normal"

    def negative_log_likelihood(self, parameters: Tensor, inputs: Tensor) -> Tensor:
        """Return minus the logarithm of the density."""
        mean, log_scale = parameters[:, 0], parameters[:, 1].clamp(min=self.smallest_log_scale)
        centred = (inputs.to(parameters) - mean) * (-log_scale).exp()
        return 0.5 * centred.square() + log_scale + 0.5 * math.log(2 * math.pi)

    def draw(self, parameters: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
        """Return the mean and so much of the standard deviation."""
        scale = parameters[:, 1].clamp(min=self.smallest_log_scale).exp() * temperature.to(parameters)
        return (parameters[:, 0] + scale * noise[:, 0].to(parameters)).clamp(-1, 1)


def draw_class(logits: Tensor, number: Tensor, temperature: Tensor) -> Tensor:
    """Return the smallest class whose cumulative probability exceeds a number: (B, classes), (B,), (B,) → (B,)."""
    cold = temperature <= 0
    warmth = torch.where(cold, 1.0, temperature.to(logits))[:, None]
    centred = logits - logits.amax(dim=-1, keepdim=True)  # so that no quotient is infinite but those of no probability
    sums = (centred / warmth).softmax(dim=-1).cumsum(dim=-1)
    found = (sums <= number.to(logits)[:, None] * sums[:, -1:]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return torch.where(cold, logits.argmax(dim=-1), found)


DISTRIBUTIONS = Kinds("distribution")
for _distribution in (MuLawConfig, LogisticsConfig, GaussianConfig):
    DISTRIBUTIONS.add(_distribution)

DistributionConfig = Annotated[Distribution, DISTRIBUTIONS]

"""The random numbers of generators that draw some."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.noise import Seed, read_seeds


class Sampling(NamedTuple):
    """What the random numbers of a batch of streams depend on."""

    seeds: Tensor  # (B,), int64
    temperature: Tensor  # (B,)

    def of(self, item: int) -> Sampling:
        """Return that of one stream."""
        return Sampling(self.seeds[item : item + 1], self.temperature[item : item + 1])


def read_sampling(
    generator: Any, seed: Seed | None, temperature: float | None, batch: int, where: str = "Vocoder"
) -> Sampling | None:
    """Return what the random numbers of a call depend on, or None where the generator draws none.

    Parameters
    ----------
    generator : Generator
    seed, temperature
        As in `fastvoc.Vocoder.__call__`.
    batch : int
        Streams side by side.
    where : str
        What error messages begin with.

    Raises
    ------
    ValueError
        If one of them is given to a generator that draws nothing, or is out of range.
    """
    draws = generator.draws
    if draws is None:
        for name, value in (("seed", seed), ("temperature", temperature)):
            if value is not None:
                raise ValueError(f"{where}: a {name} was given; {describe_no_draws(type(generator).__name__)}")
        return None
    chosen: Any = draws.temperature if temperature is None else temperature
    weight = next(generator.parameters())
    real = isinstance(chosen, Real)
    chosen = chosen.item() if real and hasattr(chosen, "item") else chosen  # NumPy would compare in its own precision
    limits = torch.finfo(weight.dtype)
    most = limits.max
    if not (real and 0 <= chosen <= most):
        limit = f", in {weight.dtype} {most:g} at most" if real and most < chosen < math.inf else ""
        raise ValueError(f"{where}: temperature is {chosen!r}; it must be a finite number that is not negative{limit}")
    # the reciprocal of a smaller number than these is infinite, and its limit is 0
    chosen = float(chosen) if chosen >= limits.tiny else 0.0
    return Sampling(
        torch.tensor(read_seeds(seed, batch, where), dtype=torch.int64, device=weight.device),
        torch.full((batch,), chosen, dtype=weight.dtype, device=weight.device),
    )


def describe_no_draws(name: str) -> str:
    """Say of a generator of a name that it draws nothing."""
    return f"{name} draws no random numbers, so that its waves depend on the mel alone"

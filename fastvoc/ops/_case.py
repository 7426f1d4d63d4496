"""One call of an op, by name: the shapes that tests, benchmarks and diagnostics share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Case:
    """A named call of an op.

    Parameters
    ----------
    name : str
        Model, stage and what is special, such as ``"hifigan-v1 stage 2, 11 taps"``.
    frames : int
        Length in time of the input.
    make : callable
        ``make(draw, frames)`` returns the arguments of the schema; ``draw(*shape, scale=1.0)`` makes a random tensor.
    flops : callable
        Floating point operations, a multiply-add being two, for an input of so many frames.
    elements : callable
        Tensor elements that must be read or written at least once, for an input of so many frames.
    model : bool
        True for the shape of a published model, False for an edge that only tests look at.
    """

    name: str
    frames: int
    make: Callable[[Callable[..., Tensor], int], tuple[Any, ...]]
    flops: Callable[[int], int]
    elements: Callable[[int], int]
    model: bool

    def arguments(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        frames: int | None = None,
        sliced: bool = False,
        seed: int = 0,
    ) -> tuple[Any, ...]:
        """Make the arguments of this call, the same ones for the same seed.

        Parameters
        ----------
        dtype : torch.dtype
            Of every tensor; values are drawn in float64 and rounded, so that dtypes share their values.
        device : str or torch.device
            Of every tensor.
        frames : int, optional
            Length in time, if not this case's own.
        sliced : bool
            Cut every tensor out of a larger one that is NaN elsewhere, so that wrong strides cannot hide.
        seed : int
            Of the random generator.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            values = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype).to(device)
            if not sliced:
                return values
            larger = torch.full([size + 2 for size in shape], float("nan"), dtype=dtype, device=device)
            inner = larger[tuple(slice(1, size + 1) for size in shape)]
            return inner.copy_(values)

        return self.make(draw, self.frames if frames is None else frames)

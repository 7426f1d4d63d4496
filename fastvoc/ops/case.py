"""A named call of an operator: the shapes that tests, benchmarks and diagnostics share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fastvoc.ops.layout import to_channels_last

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Case(Generic[C]):
    """A named call of an operator.

    Parameters
    ----------
    name : str
        Model, stage and what is special, such as ``"hifigan-v1 stage 2, 11 taps"``.
    frames : int
        Length in time of the input.
    make : callable
        ``make(draw, frames)`` returns the record of the call; ``draw(*shape, scale=1.0)`` makes a random tensor.
    flops : callable
        Floating point operations, a multiply-add being two, for an input of so many frames.
    elements : callable
        Tensor elements that must be read or written at least once, for an input of so many frames.
    model : bool
        True for the shape of a published model, False for an edge that only tests look at.
    """

    name: str
    frames: int
    make: Callable[[Callable[..., Tensor], int], C]
    flops: Callable[[int], int]
    elements: Callable[[int], int]
    model: bool

    def call(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        frames: int | None = None,
        sliced: bool = False,
        seed: int = 0,
    ) -> C:
        """Make the call, the same one for the same seed.

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
        generator = torch.Generator("cpu").manual_seed(seed)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            values = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu") * scale
            values = values.to(dtype).to(device)
            if not sliced:
                return values
            larger = torch.full([size + 2 for size in shape], float("nan"), dtype=dtype, device=device)
            inner = larger[tuple(slice(1, size + 1) for size in shape)]
            return inner.copy_(values)

        return self.make(draw, self.frames if frames is None else frames)


def gradient_cases(
    forward: Sequence[Case[Any]],
    wide: Case[Any],
    backward: Callable[[Any, Tensor, tuple[bool, bool, bool], Callable[..., Tensor]], C],
) -> list[Case[C]]:
    """Return the cases of a convolution's gradient: those of itself, with a gradient in place of a result, and edges.

    Parameters
    ----------
    forward : sequence of Case
        Of the convolution.
    wide : Case
        Of the convolution, from which the edges are made.
    backward : callable
        ``backward(call, grad, needs, draw)`` returns the record of the gradient of a call; `draw` is as in `Case`.
    """

    def gradient_of(
        case: Case[Any],
        name: str,
        *,
        needs: tuple[bool, bool, bool] | None = None,
        last: bool = False,
        constant: bool = False,
    ) -> Case[C]:
        def make(draw: Callable[..., Tensor], frames: int) -> C:
            call = case.make(draw, frames)
            grad = draw(1, 1, 1).expand(call.shape) if constant else draw(*call.shape)
            wanted = (True, True, call.bias is not None) if needs is None else needs
            return backward(call, to_channels_last(grad) if last else grad, wanted, draw)

        return Case(
            name=name,
            frames=case.frames,
            make=make,
            flops=lambda frames: 2 * case.flops(frames),
            elements=lambda frames: 2 * case.elements(frames),
            model=case.model,
        )

    return [
        *(gradient_of(case, case.name) for case in forward),
        gradient_of(wide, "only the input's", needs=(True, False, False)),
        gradient_of(wide, "only the weight's, another memory order", needs=(False, True, False), last=True),
        gradient_of(wide, "only the bias's", needs=(False, False, True)),
        gradient_of(wide, "one number for all of the gradient", constant=True),
    ]

"""Shapes of `smooth_snake` from real models, one second of 24 kHz sound each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward

FLOPS = 80
"""Of an element: 24 multiply-adds of the filters, and two Snakes of some 16 operations."""


def forward() -> list[Case[SmoothSnake]]:
    """Return the cases of the operator."""
    return [
        # Lee et al. 2022, arXiv:2206.04658, appendix A: widths and rates of the stages.
        _case("bigvgan base stage 1", 1, 256, 750, model=True),
        _case("bigvgan base stage 4", 1, 32, 24000, last=True, model=True),
        _case("bigvgan 112M stage 3", 1, 192, 3000, last=True, model=True),
        _case("bigvgan 112M stage 6", 1, 24, 24000, last=True, model=True),
        _case("bigvgan 112M stage 6, in training", 2, 24, 8192, model=True),
        _case("one of everything", 1, 1, 1, model=False),
        _case("a single frame", 3, 18, 1, last=True, model=False),
        _case("two frames", 4, 17, 2, last=True, model=False),
        _case("fewer frames than the filter", 1, 5, 7, model=False),
        _case("plain Snake", 2, 17, 31, beta=False, model=False),
        _case("linear parameters, another memory order", 2, 20, 67, logarithmic=False, last=True, model=False),
        _case("linear plain Snake", 1, 33, 40, beta=False, logarithmic=False, model=False),
        _case("more frames than a tile", 1, 6, 300, last=True, model=False),
        _case("no batch", 0, 4, 7, model=False),
    ]


def backward() -> list[Case[SmoothSnakeBackward]]:
    """Return the cases of its gradient: the same calls, and edges of its own."""
    wide = _case("", 2, 21, 90, model=False)
    return [
        # of a single number rounding says nothing: the definition's may happen to be none
        *(_gradient_of(case, case.name) for case in forward() if case.name != "one of everything"),
        _gradient_of(wide, "only the input's", needs=(True, False, False)),
        _gradient_of(wide, "only the frequency's", needs=(False, True, False)),
        _gradient_of(wide, "only the divisor's, another memory order", needs=(False, False, True), last=True),
        _gradient_of(wide, "one number for all of the gradient", constant=True),
    ]


def _case(
    name: str,
    batch: int,
    channels: int,
    frames: int,
    *,
    beta: bool = True,
    logarithmic: bool = True,
    last: bool = False,
    model: bool,
) -> Case[SmoothSnake]:
    def make(draw: Callable[..., Tensor], frames: int) -> SmoothSnake:
        def parameter() -> Tensor:
            values = draw(channels, scale=0.3)
            return values if logarithmic else 0.7 + values.abs()

        x = draw(batch, channels, frames)
        return SmoothSnake(to_channels_last(x) if last else x, parameter(), parameter() if beta else None, logarithmic)

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: FLOPS * batch * channels * frames,
        elements=lambda frames: 2 * batch * channels * frames + (2 if beta else 1) * channels,
        model=model,
    )


def _gradient_of(
    case: Case[SmoothSnake],
    name: str,
    *,
    needs: tuple[bool, bool, bool] | None = None,
    last: bool = False,
    constant: bool = False,
) -> Case[SmoothSnakeBackward]:
    def make(draw: Callable[..., Tensor], frames: int) -> SmoothSnakeBackward:
        call = case.make(draw, frames)
        shape = call.x.shape
        grad = draw(1, 1, 1).expand(shape) if constant else draw(*shape)
        wanted = (True, True, call.beta is not None) if needs is None else needs
        return SmoothSnakeBackward(to_channels_last(grad) if last else grad, *call, wanted)

    return Case(
        name=name,
        frames=case.frames,
        make=make,
        flops=lambda frames: 2 * case.flops(frames),
        elements=lambda frames: 2 * case.elements(frames),
        model=case.model,
    )

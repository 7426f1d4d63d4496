"""Shapes of `gate` from real models, a tenth of a second of audio each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.gate.call import Gate, GateBackward
from fastvoc.ops.layout import to_channels_last

FLOPS = 60
"""Of a gate: two hyperbolic tangents of some thirty operations."""


def forward() -> list[Case[Gate]]:
    """Return the cases of the operator."""
    return [
        # Prenger et al. 2018, arXiv:1811.00002, §3.4: groups of 8 samples, at 2756 a second.
        _case("waveglow", 1, 256, 276, last=True, model=True),
        # r9y9/wavenet_vocoder 1b32d1a, presets/ljspeech_mulaw256.json, at 22050 samples a second.
        _case("wavenet mulaw256", 1, 128, 2205, model=True),
        _case("one of everything", 1, 1, 1, model=False),
        _case("prime sizes", 3, 7, 61, model=False),
        _case("prime sizes, channels-last", 3, 19, 37, last=True, model=False),
        _case("sigmoid first", 2, 5, 29, sigmoid_first=True, model=False),
        _case("sigmoid first, channels-last", 2, 33, 7, sigmoid_first=True, last=True, model=False),
        _case("no batch", 0, 4, 11, model=False),
    ]


def backward() -> list[Case[GateBackward]]:
    """Return the cases of its gradient: the same calls, and edges of its own."""
    wide = _case("", 2, 21, 90, model=False)
    return [
        *(_gradient_of(case, case.name) for case in forward()),
        _gradient_of(wide, "another memory order", last=True),
        _gradient_of(wide, "one number for all of the gradient", constant=True),
    ]


def _case(
    name: str, batch: int, gates: int, frames: int, *, sigmoid_first: bool = False, last: bool = False, model: bool
) -> Case[Gate]:
    def make(draw: Callable[..., Tensor], frames: int) -> Gate:
        x = draw(batch, 2 * gates, frames)
        return Gate(to_channels_last(x) if last else x, sigmoid_first)

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: FLOPS * batch * gates * frames,
        elements=lambda frames: 3 * batch * gates * frames,
        model=model,
    )


def _gradient_of(case: Case[Gate], name: str, *, last: bool = False, constant: bool = False) -> Case[GateBackward]:
    def make(draw: Callable[..., Tensor], frames: int) -> GateBackward:
        call = case.make(draw, frames)
        batch, channels, frames = call.x.shape
        shape = batch, channels // 2, frames
        grad = draw(1, 1, 1).expand(shape) if constant else draw(*shape)
        return GateBackward(to_channels_last(grad) if last else grad, *call)

    return Case(
        name=name,
        frames=case.frames,
        make=make,
        flops=lambda frames: 2 * case.flops(frames),
        elements=lambda frames: 5 * case.elements(frames) // 3,
        model=case.model,
    )

"""Shapes of `strided_conv1d` from real discriminators, one segment of 8192 samples each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastvoc.ops.case import Case, gradient_cases
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward


def forward() -> list[Case[StridedConv1d]]:
    """Return the cases of the operator."""
    return [
        # Kong et al. 2020, arXiv:2010.05646, §2.3: the period discriminator, whose columns are items of the batch, ...
        _case("hifigan period 2, layer 1", 2, (1, 32), 4096, 5, stride=3, padding=(2, 2), slope=0.1, model=True),
        _case("hifigan period 2, layer 3", 2, (128, 512), 456, 5, stride=3, padding=(2, 2), slope=0.1, model=True),
        _case("hifigan period 2, layer 5", 2, (1024, 1024), 51, 5, padding=(2, 2), slope=0.1, model=True),
        _case("hifigan period 11, layer 4", 11, (512, 1024), 28, 5, stride=3, padding=(2, 2), slope=0.1, model=True),
        # ... and the scale discriminator.
        _case(
            "hifigan scale 1, layer 2",
            1,
            (128, 128),
            8192,
            41,
            stride=2,
            groups=4,
            padding=(20, 20),
            slope=0.1,
            model=True,
        ),
        _case(
            "hifigan scale 1, layer 3",
            1,
            (128, 256),
            4096,
            41,
            stride=2,
            groups=16,
            padding=(20, 20),
            slope=0.1,
            model=True,
        ),
        _case("hifigan scale 1, layer 6", 1, (1024, 1024), 128, 41, groups=16, padding=(20, 20), slope=0.1, model=True),
        # Kumar et al. 2019, arXiv:1910.06711, §2.2.
        _case(
            "melgan scale 1, layer 3",
            1,
            (64, 256),
            2048,
            41,
            stride=4,
            groups=16,
            padding=(20, 20),
            slope=0.2,
            model=True,
        ),
        _case(
            "melgan scale 1, layer 5",
            1,
            (1024, 1024),
            128,
            41,
            stride=4,
            groups=256,
            padding=(18, 19),
            slope=0.2,
            model=True,
        ),
        _case("one of everything", 1, (1, 1), 1, 1, model=False),
        _case("odd stride, uneven padding", 2, (7, 5), 13, 10, stride=5, padding=(3, 2), bias=False, model=False),
        _case("three groups, another memory order", 2, (9, 21), 17, 4, stride=3, groups=3, last=True, model=False),
        _case("frames behind the last step", 1, (6, 4), 12, 3, stride=4, slope=0.3, model=False),
        _case("fewer taps than the stride", 3, (2, 3), 9, 2, stride=5, padding=(1, 0), slope=0.1, model=False),
        _case("more padding than taps", 1, (3, 2), 5, 2, stride=2, padding=(4, 5), slope=0.1, model=False),
        _case("a group for every channel", 1, (20, 40), 30, 7, stride=2, groups=20, padding=(3, 3), model=False),
        _case("a single frame is left", 2, (3, 5), 8, 8, stride=3, slope=0.5, model=False),
        _case("no batch", 0, (4, 2), 7, 4, stride=2, padding=(1, 1), model=False),
    ]


def backward() -> list[Case[StridedConv1dBackward]]:
    """Return the cases of its gradient: the same calls, with a gradient in place of a result, and edges of its own."""
    wide = _case("", 2, (36, 26), 300, 7, stride=3, groups=2, padding=(2, 3), slope=0.1, model=False)
    return gradient_cases(forward(), wide, _backward_of)


def _case(
    name: str,
    batch: int,
    channels: tuple[int, int],
    frames: int,
    taps: int,
    *,
    stride: int = 1,
    groups: int = 1,
    padding: tuple[int, int] = (0, 0),
    slope: float = 1.0,
    bias: bool = True,
    last: bool = False,
    model: bool,
) -> Case[StridedConv1d]:
    inner, out = channels

    def made(frames: int) -> int:
        return (frames + sum(padding) - taps) // stride + 1

    def make(draw: Callable[..., Tensor], frames: int) -> StridedConv1d:
        x = draw(batch, inner, frames)
        return StridedConv1d(
            to_channels_last(x) if last else x,
            draw(out, inner // groups, taps, scale=(inner // groups * taps) ** -0.5),
            draw(out) if bias else None,
            stride,
            *padding,
            groups,
            slope,
        )

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * out * inner // groups * taps * made(frames),
        elements=lambda frames: batch * (inner * frames + out * made(frames)) + out * (inner // groups * taps + bias),
        model=model,
    )


def _backward_of(
    call: StridedConv1d, grad: Tensor, needs: tuple[bool, bool, bool], draw: Callable[..., Tensor]
) -> StridedConv1dBackward:
    y = draw(*call.shape)  # of which only the sign counts
    return StridedConv1dBackward(grad, call.x, call.weight, y, *call.settings, needs)

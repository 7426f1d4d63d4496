"""Shapes of `residual` from real models, one second of audio at 22050 Hz each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.residual.call import Residual

_V1 = [(taps, dilation) for taps in (3, 7, 11) for first in (1, 3, 5) for dilation in (first, 1)]
_V3 = [(3, 1), (3, 2), (5, 2), (5, 6), (7, 3), (7, 12)]


def forward() -> list[Case[Residual]]:
    """Return the cases of the operator."""
    return [
        # Kong et al. 2020, arXiv:2010.05646, appendix A: the mean of three blocks.
        _case("hifigan-v1 stage 1", 1, 256, 689, _V1, branches=3, model=True),
        _case("hifigan-v1 stage 2", 1, 128, 5512, _V1, branches=3, model=True),
        _case("hifigan-v1 stage 3", 1, 64, 11025, _V1, branches=3, model=True),
        _case("hifigan-v1 stage 4", 1, 32, 22050, _V1, branches=3, model=True),
        _case("hifigan-v2 stage 3", 1, 16, 11025, _V1, branches=3, model=True),
        _case("hifigan-v2 stage 4", 1, 8, 22050, _V1, branches=3, model=True),
        _case("hifigan-v3 stage 3", 1, 32, 22050, _V3, branches=3, convs=1, model=True),
        # Kumar et al. 2019, arXiv:1910.06711: a dilated and a 1x1 convolution, and a 1x1 shortcut.
        _melgan("melgan stage 3", 64, 11025, units=3),
        _melgan("mb-melgan stage 3", 48, 5512, units=4),
        _case("one unit of one", 1, 1, 1, [(1, 1)], convs=1, model=False),
        _case("causal, even taps", 2, 5, 23, [(4, 1), (2, 3)], causal=True, model=False),
        _case("unactivated start, replicated", 1, 3, 17, [(3, 5), (3, 1)], bare=True, mode="replicate", model=False),
        _case("two branches, channels-last", 1, 7, 31, [(3, 1)] * 4, branches=2, convs=1, last=True, model=False),
        _case("no batch", 0, 2, 5, [(3, 1), (3, 1)], model=False),
    ]


def _melgan(name: str, channels: int, frames: int, *, units: int) -> Case[Residual]:
    taps = [pair for unit in range(units) for pair in ((3, 3**unit), (1, 1), (1, 1))]
    return _case(name, 1, channels, frames, taps, shortcut=True, slope=0.2, mode="reflect", model=True)


def _case(
    name: str,
    batch: int,
    channels: int,
    frames: int,
    taps: Sequence[tuple[int, int]],
    *,
    branches: int = 1,
    convs: int = 2,
    shortcut: bool = False,
    slope: float = 0.1,
    mode: str = "zero",
    causal: bool = False,
    bare: bool = False,
    last: bool = False,
    model: bool,
) -> Case[Residual]:
    def make(draw: Callable[..., Tensor], frames: int) -> Residual:
        x = draw(batch, channels, frames)
        return Residual(
            to_channels_last(x) if last else x,
            [draw(channels, channels, k, scale=(channels * k) ** -0.5) for k, _ in taps],
            [draw(channels, scale=0.1) for _ in taps],
            [dilation for _, dilation in taps],
            branches,
            convs,
            shortcut,
            slope,
            mode,
            causal,
            not bare,
        )

    multiplies = sum(channels * channels * k for k, _ in taps)
    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * multiplies * frames,
        elements=lambda frames: 2 * batch * channels * frames + multiplies + len(taps) * channels,
        model=model,
    )

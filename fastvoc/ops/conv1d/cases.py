"""Shapes of `conv1d` from real models, one second of audio at 22050 Hz each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastvoc.ops.case import Case, gradient_cases
from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.layout import to_channels_last


def forward() -> list[Case[Conv1d]]:
    """Return the cases of the operator itself."""
    return [
        # Kong et al. 2020, arXiv:2010.05646, appendix A: stages at 689, 5512, 11025 and 22050 frames per second.
        _same("hifigan-v1 stem", 80, 512, 86, 7, activate=False, skip=False),
        _same("hifigan-v1 stage 1, 3 taps", 256, 256, 689, 3),
        _same("hifigan-v1 stage 1, 11 taps", 256, 256, 689, 11, 5, skip=False),
        _same("hifigan-v1 stage 2, 7 taps", 128, 128, 5512, 7, 3, skip=False),
        _same("hifigan-v1 stage 3, 7 taps", 64, 64, 11025, 7),
        _same("hifigan-v1 stage 4, 3 taps", 32, 32, 22050, 3),
        _same("hifigan-v1 stage 4, 11 taps", 32, 32, 22050, 11, 5, skip=False),
        _same("hifigan-v1 head", 32, 1, 22050, 7, slope=0.01, skip=False, tanh=True),
        _same("hifigan-v2 stage 1, 7 taps", 64, 64, 689, 7, 3),
        _same("hifigan-v2 stage 2, 7 taps", 32, 32, 5512, 7, 3),
        _same("hifigan-v2 stage 3, 7 taps", 16, 16, 11025, 7, 3),
        _same("hifigan-v2 stage 4, 7 taps", 8, 8, 22050, 7, 3),
        _same("hifigan-v2 head", 8, 1, 22050, 7, slope=0.01, skip=False, tanh=True),
        _same("hifigan-v3 stage 3, 7 taps", 32, 32, 22050, 7, 12),
        # Kumar et al. 2019, arXiv:1910.06711: reflection, slope 0.2, a 1x1 convolution closes each unit.
        _same("melgan stage 2, 3 taps", 128, 128, 5512, 3, 9, mode="reflect", slope=0.2, skip=False),
        _same("melgan stage 4, 1 tap", 32, 32, 22050, 1, slope=0.2),
        # Yang et al. 2020, arXiv:2005.05106: widths 192, 96, 48 and four bands.
        _same("mb-melgan stage 3, 3 taps", 48, 48, 5512, 3, 27, mode="reflect", slope=0.2, skip=False),
        _same("mb-melgan head", 48, 4, 5512, 7, mode="reflect", slope=0.2, skip=False, tanh=True),
        _case("one of everything", 1, (1, 1), 1, 1, model=False),
        _case("two frames, reflection", 2, (2, 3), 2, 3, padding=(1, 1), mode="reflect", slope=0.2, model=False),
        _case("prime sizes, uneven padding", 3, (7, 13), 61, 5, 3, padding=(11, 2), slope=0.3, bias=False, model=False),
        _case("causal, replicated", 1, (5, 31), 17, 3, 4, padding=(8, 0), mode="replicate", slope=0.1, model=False),
        _case("no padding, channels-last", 2, (17, 33), 63, 4, 2, slope=0.1, skip=True, last=True, model=False),
        _case("reflected, channels-last", 1, (24, 9), 29, 7, 2, padding=(6, 6), mode="reflect", last=True, model=False),
        _case(
            "channels-last into one", 2, (19, 1), 37, 7, padding=(3, 3), tanh=True, skip=True, last=True, model=False
        ),
        _case("padding wider than the input", 1, (3, 2), 1, 5, 2, padding=(4, 4), skip=True, model=False),
        _case("more channels than are taken together", 2, (5, 1031), 23, 3, padding=(1, 1), model=False),
        _case("no batch", 0, (4, 6), 11, 3, padding=(1, 1), skip=True, model=False),
    ]


def backward() -> list[Case[Conv1dBackward]]:
    """Return the cases of its gradient: the same calls, with a gradient in place of a result, and edges of its own."""
    wide = _case("", 2, (35, 26), 300, 5, 3, padding=(6, 6), mode="reflect", slope=0.1, model=False)
    return gradient_cases(forward(), wide, _backward_of)


def _same(
    name: str,
    channels: int,
    out: int,
    frames: int,
    taps: int,
    dilation: int = 1,
    *,
    mode: str = "zero",
    slope: float = 0.1,
    activate: bool = True,
    skip: bool = True,
    tanh: bool = False,
) -> Case[Conv1d]:
    half = dilation * (taps - 1) // 2
    return _case(
        name,
        1,
        (channels, out),
        frames,
        taps,
        dilation,
        padding=(half, half),
        mode=mode,
        slope=slope if activate else 1.0,
        skip=skip,
        tanh=tanh,
        model=True,
    )


def _case(
    name: str,
    batch: int,
    channels: tuple[int, int],
    frames: int,
    taps: int,
    dilation: int = 1,
    *,
    padding: tuple[int, int] = (0, 0),
    mode: str = "zero",
    slope: float = 1.0,
    bias: bool = True,
    skip: bool = False,
    tanh: bool = False,
    last: bool = False,
    model: bool,
) -> Case[Conv1d]:
    inner, out = channels
    extra = sum(padding) - dilation * (taps - 1)

    def make(draw: Callable[..., Tensor], frames: int) -> Conv1d:
        x = draw(batch, inner, frames)
        residual = draw(batch, out, frames + extra) if skip else None
        return Conv1d(
            to_channels_last(x) if last else x,
            draw(out, inner, taps, scale=(inner * taps) ** -0.5),
            draw(out) if bias else None,
            to_channels_last(residual) if last and residual is not None else residual,
            dilation,
            *padding,
            mode,
            slope,
            tanh,
        )

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * out * inner * taps * (frames + extra),
        elements=lambda frames: (
            batch * (inner * frames + (1 + skip) * out * (frames + extra)) + out * (inner * taps + bias)
        ),
        model=model,
    )


def _backward_of(call: Conv1d, grad: Tensor, needs: tuple[bool, bool, bool], _: Any) -> Conv1dBackward:
    return Conv1dBackward(grad, call.x, call.weight, *call.settings[:-1], needs)

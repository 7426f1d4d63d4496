"""Shapes of `upsample` from real models, one second of audio at 22050 Hz each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastvoc.ops.case import Case, gradient_cases
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward


def forward() -> list[Case[Upsample]]:
    """Return the cases of the operator."""
    return [
        # Kong et al. 2020, arXiv:2010.05646, appendix A; MelGAN has the widths and rates of V1.
        _case("hifigan-v1 stage 1", 1, (512, 256), 86, 16, 8, crop=(4, 4), slope=0.1, model=True),
        _case("hifigan-v1 stage 2", 1, (256, 128), 689, 16, 8, crop=(4, 4), slope=0.1, model=True),
        _case("hifigan-v1 stage 3", 1, (128, 64), 5512, 4, 2, crop=(1, 1), slope=0.1, model=True),
        _case("hifigan-v1 stage 4", 1, (64, 32), 11025, 4, 2, crop=(1, 1), slope=0.1, model=True),
        _case("hifigan-v2 stage 2", 1, (64, 32), 689, 16, 8, crop=(4, 4), slope=0.1, model=True),
        _case("hifigan-v2 stage 4", 1, (16, 8), 11025, 4, 2, crop=(1, 1), slope=0.1, model=True),
        _case("hifigan-v3 stage 3", 1, (64, 32), 5512, 8, 4, crop=(2, 2), slope=0.1, model=True),
        # Yang et al. 2020, arXiv:2005.05106.
        _case("mb-melgan stage 2", 1, (192, 96), 689, 8, 4, crop=(2, 2), slope=0.2, model=True),
        _case("one of everything", 1, (1, 1), 1, 1, 1, model=False),
        _case("odd stride, uneven crop", 2, (7, 5), 13, 10, 5, crop=(3, 2), slope=0.3, bias=False, model=False),
        _case("all of the crop at the end, as in causal models", 1, (3, 6), 5, 6, 3, crop=(0, 3), model=False),
        _case("taps no multiple of the stride", 1, (6, 4), 11, 7, 3, crop=(2, 2), last=True, model=False),
        _case("fewer taps than the stride", 1, (2, 3), 5, 2, 3, crop=(1, 0), slope=0.1, model=False),
        # of two: of one, oneDNN 3.12's gradients in bfloat16 are garbage once in a while
        _case("a single frame is left", 1, (3, 5), 2, 8, 8, crop=(8, 7), model=False),
        _case("no batch", 0, (4, 2), 7, 4, 2, crop=(1, 1), model=False),
    ]


def backward() -> list[Case[UpsampleBackward]]:
    """Return the cases of its gradient: the same calls, with a gradient in place of a result, and edges of its own."""
    wide = _case("", 2, (35, 26), 300, 7, 3, crop=(2, 3), slope=0.1, model=False)
    return gradient_cases(forward(), wide, _backward_of)


def _case(
    name: str,
    batch: int,
    channels: tuple[int, int],
    frames: int,
    taps: int,
    stride: int,
    *,
    crop: tuple[int, int] = (0, 0),
    slope: float = 1.0,
    bias: bool = True,
    last: bool = False,
    model: bool,
) -> Case[Upsample]:
    inner, out = channels
    extra = taps - stride - sum(crop)

    def make(draw: Callable[..., Tensor], frames: int) -> Upsample:
        x = draw(batch, inner, frames)
        return Upsample(
            to_channels_last(x) if last else x,
            draw(inner, out, taps, scale=(inner * taps / stride) ** -0.5),
            draw(out) if bias else None,
            stride,
            *crop,
            slope,
        )

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * out * inner * taps * frames,
        elements=lambda frames: (
            batch * (inner * frames + out * (frames * stride + extra)) + out * (inner * taps + bias)
        ),
        model=model,
    )


def _backward_of(call: Upsample, grad: Tensor, needs: tuple[bool, bool, bool], _: Any) -> UpsampleBackward:
    return UpsampleBackward(grad, call.x, call.weight, *call.settings, needs)

"""Shapes of `gated` from real models, a tenth of a second of audio each, and edges for tests."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.gated.call import Gated, around
from fastvoc.ops.layout import to_channels_last

_HALF = math.sqrt(0.5)


def forward() -> list[Case[Gated]]:
    """Return the cases of the operator."""
    return [
        # Prenger et al. 2018, arXiv:1811.00002, §3.4: groups of 8 samples, at 2756 a second.
        _model("waveglow first layer", (256, 256, 256), 276, 3),
        _model("waveglow last layer", (256, 256, 256), 276, 3, 128, last=True),
        _model("waveglow of 512 channels", (512, 512, 512), 276, 3, 8),
        # r9y9/wavenet_vocoder 1b32d1a, presets/ljspeech_mulaw256.json, at 22050 samples a second.
        _model("wavenet mulaw256", (128, 128, 128), 2205, 3, 16, causal=True, scale=_HALF),
        # NVIDIA/nv-wavenet 03f6957, at 16000 samples a second.
        _model("nv-wavenet", (64, 64, 256), 1600, 2, 64, causal=True),
        # magenta 526d3eb, nsynth, at 16000 samples a second: the decoder.
        _model("nsynth decoder", (512, 512, 256), 400, 3, 4, causal=True, sigmoid_first=True),
        # Yamamoto et al. 2019, arXiv:1910.11480, table 1, at 24000 samples a second.
        _model("parallel wavegan", (64, 64, 64), 2400, 3, 32, bias=False, scale=_HALF),
        _case("one of everything", 1, (1, 1, 1), 1, 1, model=False),
        _case("prime sizes, causal", 3, (7, 5, 11), 61, 4, 3, causal=True, model=False),
        _case("even taps on both sides", 2, (5, 9, 3), 37, 4, 2, sigmoid_first=True, scale=_HALF, model=False),
        _case("a part of a signal", 1, (6, 4, 5), 43, 3, 5, padding=(2, 0), model=False),
        _case(
            "a part, causal, channels-last", 2, (6, 4, 5), 43, 3, 5, padding=(0, 0), causal=True, order=1, model=False
        ),
        _case("no skip connection", 1, (5, 3, 0), 29, 3, model=False),
        _case("no residual connection, channels-last", 2, (5, 3, 4), 29, 3, 2, last=True, order=1, model=False),
        _case("nothing but products", 1, (3, 2, 4), 17, 3, bias=False, condition=False, skip=False, model=False),
        _case("padding wider than the input", 1, (3, 2, 2), 3, 3, 9, model=False),
        _case("no batch", 0, (4, 6, 2), 11, 3, model=False),
    ]


def _model(
    name: str,
    channels: tuple[int, int, int],
    frames: int,
    taps: int,
    dilation: int = 1,
    *,
    causal: bool = False,
    sigmoid_first: bool = False,
    scale: float = 1.0,
    bias: bool = True,
    last: bool = False,
) -> Case[Gated]:
    return _case(
        name,
        1,
        channels,
        frames,
        taps,
        dilation,
        causal=causal,
        sigmoid_first=sigmoid_first,
        scale=scale,
        bias=bias,
        last=last,
        model=True,
    )


def _case(
    name: str,
    batch: int,
    channels: tuple[int, int, int],
    frames: int,
    taps: int,
    dilation: int = 1,
    *,
    padding: tuple[int, int] | None = None,
    causal: bool = False,
    sigmoid_first: bool = False,
    scale: float = 1.0,
    bias: bool = True,
    condition: bool = True,
    skip: bool = True,
    last: bool = False,
    order: int = 0,
    model: bool,
) -> Case[Gated]:
    inner, gates, skips = channels
    rows = skips if last else inner + skips
    left, right = around(taps, dilation, causal=causal) if padding is None else padding
    lost = dilation * (taps - 1) - left - right

    def make(draw: Callable[..., Tensor], frames: int) -> Gated:
        x, made = draw(batch, inner, frames), frames - lost
        return Gated(
            to_channels_last(x) if order else x,
            draw(2 * gates, inner, taps, scale=(inner * taps) ** -0.5),
            draw(2 * gates, scale=0.1) if bias else None,
            draw(batch, 2 * gates, made) if condition else None,
            draw(rows, gates, 1, scale=gates**-0.5),
            draw(rows, scale=0.1) if bias else None,
            draw(batch, skips, made) if skip and skips else None,
            skips,
            dilation,
            left,
            right,
            causal,
            sigmoid_first,
            scale,
        )

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * (frames - lost) * gates * (2 * inner * taps + rows),
        elements=lambda frames: (
            batch * frames * (2 * inner + 2 * gates + 2 * skips) + gates * (2 * inner * taps + rows)
        ),
        model=model,
    )

"""Shapes of `convnext` from published vocoders, a second of sound each, and edges for tests."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from fastvoc.ops.case import Case
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.layout import to_channels_last


def forward() -> list[Case[Convnext]]:
    """Return the cases of the operator."""
    return [
        # Siuzdak 2023, arXiv:2306.00814: gemelo-ai/vocos c859e3b, configs/vocos.yaml and vocos-encodec.yaml ...
        _case("vocos mel-24khz", 1, 512, 1536, 94, model=True),
        _case("vocos encodec-24khz", 1, 384, 1152, 75, model=True),
        # ... and what a stream asks for: eight frames behind the six that reach into them.
        _case("vocos mel-24khz, 8 frames of a stream", 1, 512, 1536, 14, padding=(0, 0), model=True),
        _case("one of everything", 1, 1, 1, 1, taps=1, padding=(0, 0), model=False),
        _case("odd widths, another memory order", 2, 37, 53, 19, last=True, model=False),
        _case("fewer frames than taps", 3, 5, 11, 2, model=False),
        _case("uneven padding, three taps", 1, 16, 48, 50, taps=3, padding=(2, 0), model=False),
        _case("more padding than taps", 1, 9, 7, 4, padding=(9, 5), model=False),
        _case("a single frame is left", 2, 33, 65, 7, padding=(0, 0), model=False),
        _case("many rows", 1, 20, 40, 301, model=False),
        _case("no batch", 0, 4, 8, 7, model=False),
    ]


def _case(
    name: str,
    batch: int,
    channels: int,
    hidden: int,
    frames: int,
    *,
    taps: int = 7,
    padding: tuple[int, int] | None = None,
    last: bool = False,
    model: bool,
) -> Case[Convnext]:
    left, right = (taps // 2, taps // 2) if padding is None else padding

    def made(frames: int) -> int:
        return frames + left + right - taps + 1

    def make(draw: Callable[..., Tensor], frames: int) -> Convnext:
        x = draw(batch, channels, frames)
        return Convnext(
            to_channels_last(x) if last else x,
            draw(channels, 1, taps, scale=taps**-0.5),
            draw(channels),
            draw(channels),
            draw(channels),
            draw(hidden, channels, scale=channels**-0.5),
            draw(hidden),
            draw(channels, hidden, scale=hidden**-0.5),
            draw(channels),
            draw(channels),
            left,
            right,
        )

    return Case(
        name=name,
        frames=frames,
        make=make,
        flops=lambda frames: 2 * batch * channels * (2 * hidden + taps) * made(frames),
        elements=lambda frames: batch * channels * (frames + made(frames)) + channels * (2 * hidden + taps),
        model=model,
    )

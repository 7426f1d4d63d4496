"""Whether a mel can be, and is likely to be, of the convention that a network expects.

Undoing a convention's logarithm and normalization gives the loudness in each band, compared with noise at full scale.
What a sound can be does not depend on conventions, so a wrong guess shows: no frame is louder than full scale, and
speech changes in time by so much and no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastvoc.audio.mels.convention import MelConfig, Normalization
from fastvoc.audio.mels.levels import level_scales, plausible_range, silence
from fastvoc.audio.mels.presets import CONVENTIONS
from fastvoc.constants import kept
from fastvoc.device import sent

LONG_ENOUGH = 60
"""Frames from which changes in time say something."""

_LOOKED_AT = 4096
"""Frames after which nothing new is learnt."""

_FAR_FROM_MEAN = 1.5
"""Average of a standardised mel beyond which it is hardly one: those of logarithms alone are under -2."""

_FULL_SCALE = 2.0
"""Decibels above a wave of power 1 that no frame has; a wave that overshoots [-1, 1] has some."""

_FAINT, _DULL = -33.0, -3.0
"""Decibels of the loudest frame, and nepers from the low to the high bands: below both of them, a mel of bands
normalized to unit area may have been taken for one of bands of peak 1."""


_ENDS = {"last": (-1, -2), "first": (0, 1)}
"""Places of the outermost frame and its neighbour, by what to call the end."""

_NEARLY_SILENT = -70.0
"""Mean decibels of the bands, against noise at full scale. Digital silence has at most -79 in every convention of
`CONVENTIONS` without a dynamic range, the value 0 at least -55, and a wave that stands still at 1/128 at most -78."""

_STILL, _CALM, _ROUGH, _SMALLEST = 0.7, 0.28, 0.74, 0.02
"""For `_is_transposed`: share of values at the floor from which there is too little to see; changes between neighbours
that speech has along both axes, in nepers; and nepers that changes are raised by before they are compared."""


class _Sound(NamedTuple):
    """What a mel would be if it were of some convention."""

    loudness: float  # of the loudest frame, in decibels of full scale
    brightness: float  # peaks in the highest third of the bands over those in the lowest, in nepers
    spread: float  # standard deviation in time, in nepers, mean over the bands
    change: float  # from frame to frame, in nepers, mean over the louder half of all values

    @property
    def ordinary(self) -> bool:
        """Whether speech is like this.

        32 clips of LJ Speech, with peaks of 0 and -20 dB, have spreads of 1.2 to 2.1 and changes of 0.38 to 0.64 in
        every convention of `CONVENTIONS` but "keras", which keeps 40 dB of them.
        """
        return (
            not self.odd
            and self.loudness < 6
            and -4.5 < self.brightness < -1
            and 1.3 < self.spread < 2.7
            and 0.28 < self.change < 0.72
        )

    @property
    def odd(self) -> bool:
        """Whether speech is hardly like this: squeezed, stretched, or faint and dull.

        Smoothed speech changes less and noisy speech spreads less; both at once are a matter of units.
        """
        squeezed = self.spread < 1.5 and self.change < 0.42
        stretched = self.spread > 2.4 and self.change > 0.72
        return squeezed or stretched or (self.loudness < _FAINT and self.brightness < _DULL)


def suspicion(mel: Tensor, config: MelConfig) -> str | None:
    """Say why a mel is hardly one of a convention, or None where nothing speaks against it.

    Parameters
    ----------
    mel : Tensor, shape (bands, frames) or (B, bands, frames)
        What is about to be fed to a network of the convention.
    config : MelConfig

    Returns
    -------
    str or None
        One sentence for a warning: a mel may be unusual and right.
    """
    several = mel.shape[-1] > 1
    ends = [(mel[..., at] == mel[..., beside]).all(dim=-1).any() for at, beside in _ENDS.values() if several]
    # one look, since each waits for a GPU
    lowest, highest, *still = torch.stack([*torch.aminmax(mel), *(end.to(mel.dtype) for end in ends)]).tolist()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return "mel holds values that are not finite"
    known = not config.normalization.unknown
    if known and any(still) and (reason := _padding(mel, config)):
        return reason
    mel = mel[..., :_LOOKED_AT].float()
    if known and mel.shape[-1] == config.bands >= LONG_ENOUGH and _is_transposed(mel, config):
        return (
            f"mel of shape {tuple(mel.shape)} is smoother from band to band than from frame to frame, as no sound is: "
            "is it transposed, (frames, bands)?"
        )
    low, high = plausible_range(config)
    if not known:
        middle = float(mel.mean())
        if low <= lowest and highest <= high and (mel.shape[-1] < LONG_ENOUGH or abs(middle) < _FAR_FROM_MEAN):
            return None
        return (
            f"mel lies between {lowest:.3g} and {highest:.3g}, {middle:.3g} on average; this convention is "
            f"{config.describe()}: is the mel standardised, to about 0 on average and 1 around it in each band?"
        )
    sound = _sound(mel, config)
    impossible = not _in_range(lowest, highest, config) or sound.loudness > _FULL_SCALE
    long_enough = mel.shape[-1] >= LONG_ENOUGH
    if not impossible and (not long_enough or not sound.odd or _is_silence(lowest, config)):
        return None
    others = _others(mel, config, lowest, highest) if long_enough else iter(())
    meant = next((words for words, other in others if other.ordinary), None)
    if meant is None and not impossible:
        return None
    return (
        f"mel lies between {lowest:.3g} and {highest:.3g}; this convention is {config.describe()}, "
        f"between {low:.3g} and {high:.3g}: is the mel {meant or 'in decibels, linear or normalized otherwise'}?"
    )


def look(mel: Tensor, lengths: Sequence[int], config: MelConfig) -> Callable[[], list[bool]]:
    """Begin to look at a padded batch: whether each mel is finite, and `suspicion` has nothing against it.

    All are looked at together and read back once, so that a GPU is waited for once. Where there is any doubt the answer
    is no, and `suspicion` has to say what it is.

    Parameters
    ----------
    mel : Tensor, shape (B, bands, frames)
    lengths : sequence of int
        Frames of each, from 1; what stands behind them is not looked at.
    config : MelConfig

    Returns
    -------
    callable
        Waits for the answers, one for each mel. Until it is called, the host waits for no GPU.
    """
    if config.normalization.unknown or not len(mel):
        return lambda: [False] * len(mel)
    frames = sent(lengths, mel.device)
    inside = (torch.arange(mel.shape[-1], device=mel.device) < frames[:, None])[:, None]
    mel = mel.masked_fill(~inside, 0)
    finite = mel.isfinite().all(-1).all(-1)
    at, beside = frames - 1, (frames - 2).clamp(min=0)
    ends = [mel[..., 0], mel[..., min(1, mel.shape[-1] - 1)], *(_frame(mel, place) for place in (at, beside))]
    still = ((ends[0] == ends[1]).all(-1) | (ends[2] == ends[3]).all(-1)) & (frames > 1)
    mel, inside = mel[..., :_LOOKED_AT].float(), inside[..., :_LOOKED_AT]
    lowest, highest = (mel.masked_fill(~inside, end).flatten(1) for end in (math.inf, -math.inf))
    sounds = _sounds(mel, inside, config)
    facts = torch.stack([finite & ~still, lowest.amin(-1), highest.amax(-1), *sounds], dim=-1)
    return lambda: _judged(facts.tolist(), lengths, config)


def _judged(facts: list[list[float]], lengths: Sequence[int], config: MelConfig) -> list[bool]:
    return [
        bool(clear)
        and not count == config.bands >= LONG_ENOUGH
        and count <= _LOOKED_AT
        and _in_range(low, high, config)
        and sound.loudness <= _FULL_SCALE
        and (count < LONG_ENOUGH or not sound.odd)
        for (clear, low, high, *measured), count in zip(facts, lengths, strict=True)
        for sound in [_Sound(*measured)]
    ]


def _frame(mel: Tensor, place: Tensor) -> Tensor:
    """Return one frame of each mel of a batch, (B, bands)."""
    return mel.gather(-1, place[:, None, None].expand(-1, mel.shape[1], 1))[..., 0]


@kept(256)
def _scales_on(config: MelConfig, device: torch.device) -> Tensor:
    return level_scales(config).to(device)


def _sounds(mel: Tensor, inside: Tensor, config: MelConfig) -> tuple[Tensor, ...]:
    """Measure each mel of a batch, (B, bands, frames), where it is, (B, 1, frames): the numbers of a `_Sound`, (B,)."""
    factor, offset, share = _scales_on(config, mel.device)
    level, count = mel * factor + offset, inside.sum(-1)
    power = (2 * level).exp().mul(share).sum(dim=-2).mul(inside[:, 0]).amax(-1)
    louder = (level[..., 1:] > level.masked_fill(~inside, math.nan).flatten(1).nanmedian(-1).values[:, None, None]) & (
        inside[..., 1:]
    )
    change = (level.diff(dim=-1).abs() * louder).sum((-2, -1)) / louder.sum((-2, -1))
    middle = (level * inside).sum(-1) / count
    spread = (((level - middle[..., None]) * inside).square().sum(-1) / count).sqrt().mean(-1)
    peaks, third = level.masked_fill(~inside, -math.inf).amax(-1), max(1, level.shape[-2] // 3)
    brightness = peaks[..., -third:].mean(-1) - peaks[..., :third].mean(-1)
    return 10 * power.log10(), brightness, spread, change


def _padding(mel: Tensor, config: MelConfig) -> str | None:
    """Say that frames at an end of a mel, or of an item of a batch, are equal and loud: digital silence is not."""
    factor, offset, _ = level_scales(config).to(mel.device)
    items = mel if mel.ndim == 3 else mel[None]
    for side, (at, _) in _ENDS.items():
        frame = items[..., at].float()  # (B, bands)
        equal = (items == items[..., at][..., None]).all(dim=-2)
        run = (equal if at == 0 else equal.flip(-1)).int().cumprod(dim=-1).sum(dim=-1)
        flat = (frame == frame[:, :1]).all(dim=-1)
        decibels = 20 / math.log(10) * (frame[..., None] * factor + offset).mean(dim=(-2, -1))
        suspected = (run >= torch.where(flat, 2, 4)) & (run < items.shape[-1]) & (decibels > _NEARLY_SILENT)
        if config.dynamic_range is not None:  # under which silence may be anything, but nothing lies lower
            suspected &= frame.amax(dim=-1) > items.float().amin(dim=(-2, -1))
        found = suspected.nonzero()[:, 0].tolist()
        if found:
            first = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            where = f"item {first} of the batch{more}" if mel.ndim == 3 else "mel"
            value = f", {float(frame[first, 0]):.4g} in every band" if flat[first] else ""
            return (
                f"{where}: the {side} {int(run[first])} frames are exactly equal{value}, which is sound of "
                f"{float(decibels[first]):.0f} dB of full scale in this convention: padding? Cut them off, or give "
                "the lengths= of a batch"
            )
    return None


def _is_transposed(mel: Tensor, config: MelConfig) -> bool:
    """Whether a mel of as many frames as bands has its axes in the wrong order.

    Frames overlap, so neighbours are alike and differ more from those three apart, by a factor that bands do not reach;
    and harmonics stand apart in the lowest quarter of the bands, but not in the third. Of every square of LJ Speech and
    of 24 other voices in 20 conventions of `CONVENTIONS`, 606,670, none is suspected (with limits three quarters as
    strict, seven would be); of the same squares transposed, 96 % are: 89 % in "vocos", and 94 % or more in each other
    but "keras", whose squares lie at the floor of its dynamic range for the most part and are not judged. In
    "bigvgan-44k-256x" few transposed mels are found (9 %): its low bands lie closer than the bins of its transform, and
    are as alike as its frames.
    """
    factor, offset, _ = level_scales(config).to(mel.device)
    if (mel < mel.amin() + 1e-4).float().mean() > _STILL:
        return False
    level = mel * factor + offset
    given, turned = _smoothness(level), _smoothness(level.mT)
    if not all(_CALM < axis.change < _ROUGH for axis in (given, turned)):  # tones, noise and silence are no speech
        return False
    growth, texture = given.growth - turned.growth, given.texture - turned.texture
    return growth < -0.045 and texture < 0.3 and growth + texture / 4 < -0.13


class _Smoothness(NamedTuple):
    """How a level, (..., bands, frames), changes along its last axis."""

    change: float  # between neighbours, in nepers
    growth: float  # logarithm of the change over three steps, against that over one
    texture: float  # logarithm of the change along the other axis in its first quarter, against its third


def _smoothness(level: Tensor) -> _Smoothness:
    quarter = level.shape[-2] // 4
    near, far = level.diff(dim=-1).abs().mean(), (level[..., 3:] - level[..., :-3]).abs().mean()
    across = level.diff(dim=-2).abs()
    first, third = across[..., :quarter, :].mean(), across[..., 2 * quarter : 3 * quarter, :].mean()
    near, far, first, third = torch.stack([near, far, first, third]).add(_SMALLEST).tolist()
    return _Smoothness(near - _SMALLEST, math.log(far / near), math.log(first / third))


def _others(mel: Tensor, config: MelConfig, lowest: float, highest: float) -> Iterator[tuple[str, _Sound]]:
    """Say what the mel would be in the conventions of others, where its values are possible there."""
    if 0 <= lowest < 1e-3 * highest:
        plain = replace(config, logarithm="natural", gain=1.0, normalization=Normalization())
        for kind in (replace(plain, power=1), replace(plain, power=2)):
            for bank in (replace(kind, area_normalized=True), replace(kind, area_normalized=False)):
                yield "linear, without a logarithm", _sound(mel.clamp(min=1e-5**kind.power).log(), bank)
    for words, other in _kinds(config).items():
        if _in_range(lowest, highest, other):
            yield words, _sound(mel, other)


@lru_cache(maxsize=64)
def _kinds(config: MelConfig) -> dict[str, MelConfig]:
    """Conventions of the same bands whose values mean something else, by what to call them."""
    kinds = {"not normalized": replace(config, normalization=Normalization())}
    for name, other in CONVENTIONS.items():
        unit = "natural" if other.logarithm == "natural" else "decimal"
        normalized = ", normalized" if other.normalization != Normalization() else ""
        kinds[f"in {unit} logarithms{normalized}, as of {name!r}"] = replace(
            config,
            scale=other.scale,
            area_normalized=other.area_normalized,
            power=other.power,
            logarithm=other.logarithm,
            gain=other.gain,
            floor=other.floor,
            floor_mode=other.floor_mode,
            dynamic_range=other.dynamic_range,
            last_frame=None,
            normalization=other.normalization,
        )
    known = [config]
    for words, kind in list(kinds.items()):
        if kind in known:
            del kinds[words]
        known.append(kind)
    return kinds


def _in_range(lowest: float, highest: float, config: MelConfig) -> bool:
    low, high = plausible_range(config)
    slack = 0.05 * (high - low)
    return min(low - slack, silence(config)[0]) <= lowest and highest <= high + slack


def _is_silence(value: float, config: MelConfig) -> bool:
    """Whether a value is where this convention puts silence, as no other does."""
    low, high = silence(config)
    tolerance = 1e-3 * np.ptp(plausible_range(config))
    return bool(low - tolerance < value < high + tolerance)


def _sound(mel: Tensor, config: MelConfig) -> _Sound:
    scales: Tensor = level_scales(config)
    factor, offset, share = scales.to(mel.device)
    level = mel * factor + offset
    power = (2 * level).exp().mul(share).sum(dim=-2).amax()
    louder = level[..., 1:] > level.median()
    change = (level.diff(dim=-1).abs() * louder).sum() / louder.sum()
    middle = level.mean(dim=-1, keepdim=True)
    spread = (level - middle).square().mean(dim=-1).sqrt().mean()  # `std` takes ten times as long
    peaks, third = level.amax(dim=-1), max(1, level.shape[-2] // 3)
    brightness = peaks[..., -third:].mean() - peaks[..., :third].mean()
    measured = torch.stack([10 * power.log10(), brightness, spread, change])
    return _Sound(*measured.tolist())

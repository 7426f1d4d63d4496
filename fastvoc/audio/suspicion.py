"""Whether a mel can be, and is likely to be, of the convention that a network expects.

Undoing a convention's logarithm and normalization gives the loudness in each band, compared with noise at full scale.
What a sound can be does not depend on conventions, so a wrong guess shows: no frame is louder than full scale, and
speech changes in time by so much and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastvoc.audio.convention import MelConfig, Normalization, band_edges
from fastvoc.audio.mel import mel_spectrogram
from fastvoc.audio.presets import CONVENTIONS

_LONG_ENOUGH = 60
"""Frames from which changes in time say something."""

_LOOKED_AT = 4096
"""Frames after which nothing new is learnt."""

_FULL_SCALE = 2.0
"""Decibels above a wave of power 1 that no frame has; a wave that overshoots [-1, 1] has some."""

_FAINT, _DULL = -33.0, -3.0
"""Decibels of the loudest frame, and nepers from the low to the high bands: below both of them, a mel of bands
normalized to unit area may have been taken for one of bands of peak 1."""


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
    """Say why a mel is hardly of a convention, as `MelConfig.suspicion` does.

    Parameters
    ----------
    mel : Tensor, shape (bands, frames) or (B, bands, frames)
    config : MelConfig

    Returns
    -------
    str or None
        One sentence for a warning: a mel may be unusual and right.
    """
    lowest, highest = torch.stack(torch.aminmax(mel)).tolist()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return "mel holds values that are not finite"
    mel = mel[..., :_LOOKED_AT].float()
    low, high = config.plausible_range()
    sound = _sound(mel, config)
    impossible = not _in_range(lowest, highest, config) or sound.loudness > _FULL_SCALE
    long_enough = mel.shape[-1] >= _LONG_ENOUGH
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
    low, high = config.plausible_range()
    slack = 0.05 * (high - low)
    return min(low - slack, _silence(config)[0]) <= lowest and highest <= high + slack


def _is_silence(value: float, config: MelConfig) -> bool:
    """Whether a value is where this convention puts silence, as no other does."""
    low, high = _silence(config)
    tolerance = 1e-3 * np.ptp(config.plausible_range())
    return bool(low - tolerance < value < high + tolerance)


@lru_cache(maxsize=256)
def _silence(config: MelConfig) -> tuple[float, float]:
    """Values of silence, in the lowest and the highest band of them."""
    mel = mel_spectrogram(torch.zeros(2 * config.fft_size, device="cpu"), replace(config, last_frame=None))
    lowest, highest = torch.stack(torch.aminmax(mel)).tolist()
    return lowest, highest


def _sound(mel: Tensor, config: MelConfig) -> _Sound:
    scales: Tensor = _scales(config)
    factor, offset, share = scales.to(mel.device)
    level = mel * factor + offset
    power = (2 * level).exp().mul(share).sum(dim=-2).amax()
    louder = level[..., 1:] > level.median()
    change = (level.diff(dim=-1).abs() * louder).sum() / louder.sum()
    spread = level.std(dim=-1, correction=0).mean()
    peaks, third = level.amax(dim=-1), max(1, level.shape[-2] // 3)
    brightness = peaks[..., -third:].mean() - peaks[..., :third].mean()
    measured = torch.stack([10 * power.log10(), brightness, spread, change])
    return _Sound(*measured.tolist())


@lru_cache(maxsize=256)
def _scales(config: MelConfig) -> Tensor:
    """Factor and offset from a mel to nepers against white noise of power 1, and each band's share of its power.

    Of shape (3, bands, 1).
    """
    edges = band_edges(config)
    width = (edges[2:] - edges[:-2]) / 2
    bins = np.broadcast_to(1.0 if config.area_normalized else width, width.shape) * config.fft_size / config.sample_rate
    noise = np.log(bins) / config.power + 0.5 * math.log(3 / 8 * config.window_size)  # a Hann's mean square is 3/8
    neper = (1 if config.logarithm == "natural" else math.log(10)) / (config.gain * config.power)
    factor = neper * np.asarray(config.normalization.scale)
    offset = neper * np.asarray(config.normalization.mean) - noise
    share = width / (config.sample_rate / 2)
    rows = np.stack(np.broadcast_arrays(factor, offset, share)).astype(np.float32)
    with torch.inference_mode(False):
        return torch.from_numpy(rows)[..., None]

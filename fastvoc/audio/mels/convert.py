"""Mels of one convention as mels of another, where that is exact, and why not where it is not.

What follows the filter bank (floor, logarithm, gain, statistics) can be undone; what the filter bank has summed, and
which samples a frame has seen, cannot.
"""

from __future__ import annotations

from typing import Any

import torch

from fastvoc.audio.inputs import Signal, as_given
from fastvoc.audio.mels.convention import MelConfig
from fastvoc.audio.mels.inputs import as_mel
from fastvoc.audio.mels.presets import CONVENTIONS
from fastvoc.audio.mels.spectrogram import _constants, _log, _normalize, linear_mel
from fastvoc.config import nearest

_SPECTRUM = {
    "sample_rate": "sample rate of {} Hz",
    "bands": "{} bands",
    "low": "bands from {} Hz",
    "highest": "bands up to {} Hz",
    "hop": "hop of {} samples",
    "fft_size": "transform of {} samples",
    "window_size": "window of {} samples",
    "padding": "padding {!r}",
    "padding_mode": "padding of mode {!r}",
    "scale": "mel scale {!r}",
    "area_normalized": "triangles with area_normalized {}",
    "straight_in": "triangles straight in {!r}",
    "power": "magnitudes to the power of {}",
    "window": "{} window",
}
"""What has to be the same, most telling first, and how to say its value."""

_NAMED = 3
"""Differences that a sentence names."""


def find_convention(convention: MelConfig | str) -> MelConfig:
    """Return a convention as it is, or the one of `CONVENTIONS` that has this name.

    Raises
    ------
    ValueError
        If there is no convention of the name.
    """
    if isinstance(convention, MelConfig):
        return convention
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: {convention!r} is not a known name; {nearest(convention, list(CONVENTIONS))}")
    return CONVENTIONS[convention]


def convert_mel(mel: Signal, source: MelConfig, target: MelConfig) -> Signal:
    """Turn a mel of one convention into the mel that another would have made of the same sound.

    Exact for all values above both floors. A floor is a loss: values at the source's floor stay at its level, even
    where the target's is lower, and the target's floor, clip and dynamic range are applied as they would have been.
    `root_epsilon` and `root_floor` cannot be undone either; they move a mel by no more than they make of silence.

    Parameters
    ----------
    mel : Tensor or ndarray, shape (bands, frames) or (B, bands, frames), floating point
        In the convention `source`.
    source, target : MelConfig

    Returns
    -------
    Tensor or ndarray, as given, same shape and dtype, on the same device
        In the convention `target`; `mel` itself where both mean the same.

    Raises
    ------
    ValueError
        If there is no exact way, with the sentence of `why_not`.
    """
    reason = why_not(source, target)
    if reason is not None:
        raise ValueError(f"convert_mel: {reason}")
    values = as_mel(mel, source, "convert_mel")
    if _after_the_filters(source) == _after_the_filters(target) or not values.numel():
        return as_given(values, mel)
    # Half precision cannot hold the smallest magnitudes.
    exact = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    constants: Any = _constants(target, exact.device, exact.dtype)
    converted = _normalize(_log(linear_mel(exact, source), target), target, constants)
    if target.last_frame is not None:
        converted[..., -1] = target.last_frame
    return as_given(converted.to(values.dtype), mel)


def why_not(source: MelConfig, target: MelConfig) -> str | None:
    """Say why a mel of one convention cannot become one of another, or None where it can.

    Parameters
    ----------
    source, target : MelConfig

    Returns
    -------
    str or None
        One sentence with the first fields that differ and both values of each.
    """
    if source != target and (source.normalization.unknown or target.normalization.unknown):
        return "one of the mels is standardised by statistics that are not known; give it as the vocoder takes it"
    pairs = [(words, getattr(source, name), getattr(target, name)) for name, words in _SPECTRUM.items()]
    different = [f"{words.format(_plain(a))} against {_plain(b)!r}" for words, a, b in pairs if a != b]
    if source.padding != target.padding and {source.padding, target.padding} == {"centre", "same"}:
        different = [text + " (frames lie half a hop apart)" if "padding '" in text else text for text in different]
    if source.last_frame is not None and source.last_frame != target.last_frame:
        different.append(f"a last frame overwritten with {source.last_frame:g}")
    if not different:
        return None
    named = ", ".join(different[:_NAMED])
    more = f" and {len(different) - _NAMED} more differences" if len(different) > _NAMED else ""
    return f"the mel has {named}{more}, which nothing undoes; compute it from the sound in the target's convention"


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _after_the_filters(config: MelConfig) -> tuple[object, ...]:
    return (
        config.logarithm,
        config.gain,
        config.floor,
        config.floor_mode,
        config.dynamic_range,
        config.last_frame,
        config.normalization,
    )

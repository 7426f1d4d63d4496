"""A pitch is that of the strongest partials, and neither the octave's nor a neighbour's."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.audio.partials import hertz_of_pitch, strongest_pitch

RATE = 8000
PITCHES = range(36, 85)


def tone(pitch: float, levels: Sequence[float] = (1, 0.5, 0.33, 0.25, 0.2), seconds: float = 1.0) -> Tensor:
    time = torch.arange(round(RATE * seconds), dtype=torch.float64) / RATE
    partials = [
        level * torch.sin(2 * math.pi * k * hertz_of_pitch(pitch) * time + k)
        for k, level in enumerate(levels, 1)
        if k * hertz_of_pitch(pitch) < RATE / 2
    ]
    return 0.3 * torch.stack(partials).sum(dim=0)


@pytest.mark.parametrize(
    "levels",
    [
        (1.0,),  # a flute
        (1, 0.5, 0.33, 0.25, 0.2, 0.17),  # a string
        (1, 0, 0.33, 0, 0.2, 0, 0.14),  # a clarinet: odd partials
        (0.2, 1, 0.7, 0.5, 0.3),  # most of it an octave higher
        (0, 0.8, 0.7, 0.6, 0.5),  # without its fundamental
        (1, 0, 0, 0.5),  # a marimba
    ],
)
def test_a_right_tone_is_told_from_its_octaves_and_neighbours(levels: Sequence[float]) -> None:
    pitches = range(48, 73)
    notes = torch.stack([tone(pitch, levels) for pitch in pitches])
    wanted = torch.tensor(pitches)
    assert torch.equal(strongest_pitch(notes, RATE, PITCHES), wanted)
    for wrong in (-12, -1, 1, 12):
        other = torch.stack([tone(pitch + wrong, levels) for pitch in pitches])
        assert torch.equal(strongest_pitch(other, RATE, PITCHES), wanted + wrong)


def test_noise_detuning_fading_and_precision_change_nothing() -> None:
    noise = torch.randn(RATE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fading = torch.exp(-4 * torch.arange(RATE) / RATE)
    for pitch in (48, 59, 72):
        for note in (tone(pitch) + 0.03 * noise, tone(pitch + 0.3), tone(pitch - 0.3), tone(pitch) * fading):
            assert int(strongest_pitch(note, RATE, PITCHES)) == pitch
            assert int(strongest_pitch(note.float() * 1e-3, RATE, PITCHES)) == pitch


def test_any_shape_and_short_notes() -> None:
    notes = torch.stack([tone(60), tone(61), tone(72), tone(50)]).reshape(2, 2, -1)
    assert strongest_pitch(notes, RATE, PITCHES).tolist() == [[60, 61], [72, 50]]
    assert strongest_pitch(tone(60, seconds=0.1), RATE, PITCHES).shape == ()
    assert int(strongest_pitch(tone(60, seconds=0.1), RATE, PITCHES)) == 60
    assert int(strongest_pitch(torch.zeros(RATE), RATE, (50, 40))) == 50
    assert int(strongest_pitch(tone(60), RATE, (67, 60, 48))) == 60


@pytest.mark.parametrize(
    ("wave", "pitches", "sentence"),
    [
        (torch.zeros(0), (60,), "wave has shape (0,); it must be (..., T), one sample at least"),
        (torch.zeros(9), (), "there are no pitches"),
        (torch.zeros(9), (60, 108), "pitch 108 is of 4186 Hz; it must lie below half the sample rate, 4000 Hz"),
    ],
)
def test_what_has_no_pitch_is_a_sentence(wave: Tensor, pitches: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        strongest_pitch(wave, RATE, pitches)
    with pytest.raises(TypeError, match="strongest_pitch"):
        strongest_pitch(torch.zeros(9, dtype=torch.int64), RATE, (60,))

"""Melodies: notes with their times, and MIDI files of them."""

from __future__ import annotations

import math
import numbers
from collections import deque
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

_DRUMS = 9
"""The channel, counted from 0, whose pitches are kinds of drums."""

_LARGEST, _MOST = 1 << 22, 1 << 16
"""Bytes of a MIDI file that is read, and its notes."""

_TEMPO = 500_000
"""Microseconds of a quarter note before a file says otherwise."""


@dataclass(frozen=True)
class Note:
    """A note of a melody.

    Attributes
    ----------
    pitch : int
        Its MIDI number; 60 is the middle C.
    start, end : float
        In seconds.
    velocity : int
        Loudness, 1 to 127.
    """

    pitch: int
    start: float
    end: float
    velocity: int = 127

    def __post_init__(self) -> None:
        for name in ("start", "end", "velocity"):
            if not isinstance(value := getattr(self, name), numbers.Real):
                raise TypeError(f"Note: {name} is {value!r}, a {type(value).__name__}; it must be a number")
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end):
            raise ValueError(f"Note: from {self.start} s to {self.end} s; it must start at 0 s or later, and then end")
        if not 1 <= self.velocity <= 127:
            raise ValueError(f"Note: velocity is {self.velocity}; it must be between 1 and 127")


def read_midi(path: str | Path) -> list[Note]:
    """Read the notes of a MIDI file, all tracks together, by its own tempo or in SMPTE time.

    Drums are left out, and pedals are not heard. A note that nothing ends lasts until the file does.

    Parameters
    ----------
    path : str or Path
        Of a standard MIDI file of type 0 or 1.

    Returns
    -------
    list of Note
        By their starts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If mido is not installed.
    ValueError
        If it is no MIDI file, is damaged, or has no notes.
    """
    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"{where}: no such file")
    try:
        mido = import_module("mido")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{where}: is a MIDI file; to read it, run: pip install 'fastvoc[midi]'") from None
    if (size := where.stat().st_size) > _LARGEST:
        raise ValueError(f"{where}: has {size} bytes, more than any melody in MIDI")
    try:
        notes = _notes(mido.MidiFile(str(where), clip=True), where)
    except (
        *(OSError, EOFError, IndexError, KeyError, TypeError, ArithmeticError, UnicodeError),
        mido.KeySignatureError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: is damaged, or no MIDI file ({reason})") from None
    except ValueError as error:
        reason = str(error)
        raise ValueError(reason if reason.startswith(f"{where}:") else f"{where}: is damaged ({reason})") from None
    if not notes:
        raise ValueError(f"{where}: has no notes, but for drums")
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def _notes(file: Any, where: Path) -> list[Note]:
    if file.type == 2:
        raise ValueError(f"{where}: is a MIDI file of type 2, several melodies; save one of them")
    notes: list[Note] = []
    sounding: dict[tuple[int, int], deque[tuple[float, int]]] = {}
    now, begun, tick = 0.0, 0, _tick(file.ticks_per_beat, _TEMPO)
    for message in file.merged_track:  # in order of time, with ticks between them
        now += message.time * tick
        if message.type == "set_tempo":
            tick = _tick(file.ticks_per_beat, message.tempo)
        if message.type not in ("note_on", "note_off") or message.channel == _DRUMS:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity:
            begun += 1
            if begun > _MOST:
                raise ValueError(f"{where}: has more than {_MOST} notes")
            sounding.setdefault(key, deque()).append((now, message.velocity))
        elif sounding.get(key):
            start, velocity = sounding[key].popleft()
            notes.append(Note(message.note, start, now, velocity))
    notes += [Note(pitch, start, now, velocity) for (_, pitch), held in sounding.items() for start, velocity in held]
    return notes


def _tick(division: int, tempo: int) -> float:
    """Return the seconds of a tick: a part of a quarter note, or, where it is negative, of a frame of a film."""
    if division >= 0:
        return tempo / 1e6 / division
    frames, parts = -(division >> 8), division & 0xFF
    return 1 / ((30000 / 1001 if frames == 29 else frames) * parts)

"""Notes that a machine makes itself: FluidSynth plays the acoustic instruments of a General MIDI soundfont.

What comes out is laid out as NSynth is (`fastvoc.train.data.notes`), and like NSynth's notes each is four seconds at
16 kHz, of which the key is held for three.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from torch import Tensor

from fastvoc.audio import read_audio, write_audio
from fastvoc.train.data.notes import AUDIO, EXAMPLES, NoteFile, write_examples

_logger = logging.getLogger(__name__)

RATE, SAMPLES = 16000, 64000
"""Of a note, in Hz and in samples."""

HELD = 3.0
"""Seconds for which a key is held down."""

VELOCITIES = (25, 50, 75, 100, 127)
"""NSynth's."""

PARTS = ("nsynth-train", "nsynth-test")
"""Folders of the two parts; a fifth of the instruments of all are in the second."""

SOUNDFONTS = (
    Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    Path("/usr/share/soundfonts/FluidR3_GM.sf2"),
    Path("/opt/homebrew/share/soundfonts/FluidR3_GM.sf2"),
)
"""Where distributions lay the soundfont."""

PROGRAMS = {
    **dict.fromkeys((0, 1, 3, 6), "keyboard"),
    **dict.fromkeys((8, 9, 10, 11, 12, 13, 14, 15), "mallet"),
    **dict.fromkeys((19, 20, 21, 22), "organ"),
    **dict.fromkeys((24, 25), "guitar"),
    **dict.fromkeys((32,), "bass"),
    **dict.fromkeys((40, 41, 42, 43, 45, 46, 48, 49), "string"),
    **dict.fromkeys((52, 53), "vocal"),
    **dict.fromkeys((56, 57, 58, 59, 60, 61), "brass"),
    **dict.fromkeys((64, 65, 66, 67, 68, 69, 70, 71), "reed"),
    **dict.fromkeys((72, 73, 74, 75, 76, 77, 78, 79), "flute"),
}
"""Acoustic instruments of General MIDI, by their programs from 0, and the family that NSynth would count each to."""

_REPLACED = re.compile("not a SoundFont|Failed to load|No preset found|substituted")
"""What FluidSynth says when it goes on without a soundfont, or without an instrument that is not in it."""

_TICKS = 1000
"""Ticks of a MIDI file in a second: sixteen samples each."""

_APART = 5.0
"""Seconds from one note to the next in what is played at once."""


def instrument_name(program: int) -> str:
    """Return the name of an instrument, whose number is that of its program."""
    return f"{PROGRAMS[program]}_acoustic_{program:03d}"


def is_for_tests(program: int, programs: Collection[int]) -> bool:
    """Whether an instrument belongs to the second part: every fifth, from the third on, in the order of programs."""
    return sorted(programs).index(program) % 5 == 2


def render_notes(
    out: str | Path,
    *,
    pitches: Sequence[int] = range(24, 85),
    velocities: Sequence[int] = VELOCITIES,
    programs: Collection[int] = tuple(PROGRAMS),
    soundfont: str | Path | None = None,
    overwrite: bool = False,
    told: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, int]:
    """Make a data set of notes.

    Parameters
    ----------
    out : str or Path
        Gets a folder for each part of `PARTS`.
    pitches, velocities : sequence of int
        MIDI numbers.
    programs : collection of int
        Of `PROGRAMS`.
    soundfont : str or Path, optional
        An .sf2 or .sf3 file; by default FluidR3 where distributions lay it.
    overwrite : bool
        Play instruments again whose notes are all there.
    told : callable
        Gets the programs and returns them one by one; it may show how far they are.

    Returns
    -------
    dict of str to int
        Notes of each part that is not empty.

    Raises
    ------
    FileNotFoundError
        If FluidSynth or its soundfont is not installed.
    ValueError
        If a number is out of range, or FluidSynth fails: also where the soundfont is none, or lacks an instrument, for
        which it would play another.
    """
    for values, name, low in ((pitches, "pitch", 0), (velocities, "velocity", 1)):
        for value in values:
            if not low <= value <= 127:
                raise ValueError(f"render_notes: {name} {value}; a MIDI number is between {low} and 127")
    for program in programs:
        if program not in PROGRAMS:
            known = ", ".join(map(str, PROGRAMS))
            raise ValueError(f"render_notes: program {program} is none of an acoustic instrument; known: {known}")
    if not (programs and pitches and velocities):
        raise ValueError("render_notes: there are no notes; name a pitch, a velocity and a program at least")
    player, font = find_player(), find_soundfont(soundfont)
    parts: dict[str, list[NoteFile]] = {name: [] for name in PARTS}
    ordered, kept = sorted(set(programs)), 0
    for program in told(ordered):
        part = PARTS[is_for_tests(program, ordered)]
        notes = [
            _note(Path(out) / part, program, pitch, velocity)
            for pitch in sorted(set(pitches))
            for velocity in sorted(set(velocities))
        ]
        parts[part] += notes
        if overwrite or not all(note.path.is_file() for note in notes):
            _render(player, font, program, notes)
        else:
            kept += 1
    if kept:
        _logger.warning(
            "%d of %d instruments are not played again, whatever soundfont their notes are of; overwrite does so",
            *(kept, len(ordered)),
        )
    for name, notes in parts.items():
        if notes:
            write_examples(Path(out) / name, notes, sample_rate=RATE)
        else:  # no instrument of an earlier data set stays behind, which may now be in the other part
            (Path(out) / name / EXAMPLES).unlink(missing_ok=True)
    return {name: len(notes) for name, notes in parts.items() if notes}


def find_player() -> str:
    """Return the path of FluidSynth, or raise what to install."""
    player = shutil.which("fluidsynth")
    if player is None:
        raise FileNotFoundError(
            "fluidsynth: is not installed; notes are played by it (Debian: apt install fluidsynth fluid-soundfont-gm, "
            "macOS: brew install fluid-synth)"
        )
    return player


def find_soundfont(path: str | Path | None) -> Path:
    """Return a soundfont, or raise what to install."""
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; expected a soundfont, .sf2 or .sf3")
        return Path(path)
    for known in SOUNDFONTS:
        if known.is_file():
            return known
    raise FileNotFoundError(
        f"{SOUNDFONTS[0]}: no such file; install FluidR3 (Debian: apt install fluid-soundfont-gm), or name a soundfont"
    )


def midi_file(program: int, notes: Sequence[tuple[int, int]], *, apart: float = _APART) -> bytes:
    """Return a MIDI file of type 0 that plays notes one after another, each for `HELD` seconds.

    Parameters
    ----------
    program : int
        Of the instrument, from 0.
    notes : sequence of (int, int)
        Pitch and velocity of each.
    apart : float
        Seconds from one to the next; all that still sounds is silenced in between.
    """
    events: list[tuple[int, bytes]] = [(0, bytes([0xC0, program]))]
    for number, (pitch, velocity) in enumerate(notes):
        start = round(number * apart * _TICKS)
        events.append((start, bytes([0x90, pitch, velocity])))
        events.append((start + round(HELD * _TICKS), bytes([0x80, pitch, 0])))
        events.append((start + round((apart - 0.5) * _TICKS), bytes([0xB0, 120, 0])))
    events.append((round(len(notes) * apart * _TICKS), b"\xff\x2f\x00"))
    track, now = b"", 0
    for time, event in events:
        track += _length(time - now) + event
        now = time
    # 500 ticks a quarter, of which there are two in a second where no tempo is set
    head = b"MThd" + (6).to_bytes(4, "big") + b"\0\0" + b"\0\1" + (_TICKS // 2).to_bytes(2, "big")
    return head + b"MTrk" + len(track).to_bytes(4, "big") + track


def _length(value: int) -> bytes:
    """Return a number as MIDI writes it: seven bits in a byte, the highest bit set in all but the last."""
    found = [value & 0x7F]
    while value := value >> 7:
        found.insert(0, value & 0x7F | 0x80)
    return bytes(found)


def _note(folder: Path, program: int, pitch: int, velocity: int) -> NoteFile:
    name = instrument_name(program)
    path = folder / AUDIO / f"{name}-{pitch:03d}-{velocity:03d}.wav"
    return NoteFile(path, pitch, velocity, name, PROGRAMS[program], "acoustic")


def _render(player: str, font: Path, program: int, notes: Sequence[NoteFile]) -> None:
    wave = play(player, font, midi_file(program, [(note.pitch, note.velocity) for note in notes]))
    for number, note in enumerate(notes):
        start = round(number * _APART * RATE)
        note.path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(note.path, wave[start : start + SAMPLES], RATE)


def play(player: str, font: Path, midi: bytes) -> Tensor:
    """Play a MIDI file without reverberation and chorus: (T,), at `RATE` Hz."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        source.write_bytes(midi)
        settings = ["-R", "0", "-C", "0", "-g", "2.0", "-r", str(RATE), "-o", "synth.polyphony=64", "-O", "float"]
        settings += ["-o", "synth.default-soundfont="]  # which would be played instead of one that is damaged
        done = subprocess.run(
            [player, "-n", "-i", "-q", *settings, "-T", "wav", "-F", str(target), str(font), str(source)],
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
        if done.returncode or not target.is_file() or _REPLACED.search(done.stderr):
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise ValueError(f"{player}: has failed to play {font}: {said or f'code {done.returncode}'}")
        return read_audio(target)[0]

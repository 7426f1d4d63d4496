"""`fastvoc note`: pitches become sound files, all of one timbre."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli.command import FileCommand, InstrumentCommand, UsageError
from fastvoc.cli.terminal import progress

_RANGE = re.compile(r"(\d{1,3})(?:\.\.(\d{1,3}))?")

AT_ONCE = 8
"""Notes between two files that appear."""


@dataclass(frozen=True, kw_only=True)
class PlayNote(InstrumentCommand, FileCommand):
    """Play notes of one timbre, a file for each.

    Example: fastvoc note --pitch 24..84 --seed 3 --instrument all_instruments/ --out scale
    """

    pitch: Annotated[str, tyro.conf.arg(metavar="PITCHES")] = "60"
    """MIDI numbers: one, such as 60, the middle C; a range, such as 24..84; or several with commas between them."""
    seed: int = 0
    """Of the timbre."""

    def run(self) -> int:
        """Play each pitch."""
        pitches = read_pitches(self.pitch)

        from fastvoc.audio import write_audio

        instrument = self.open()
        beyond = [pitch for pitch in pitches if not instrument.lowest <= pitch <= instrument.highest]
        if beyond:
            raise UsageError(
                f"--pitch {self.pitch}: {beyond[0]} is beyond the instrument, which plays {instrument.lowest}.."
                f"{instrument.highest}"
            )
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be 0 or more")
        point = instrument.timbre(self.seed)
        targets = {pitch: self.out / f"seed-{self.seed}-pitch-{pitch:03d}.wav" for pitch in pitches}
        left = [pitch for pitch in pitches if self.overwrite or not targets[pitch].exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        groups = [left[n : n + AT_ONCE] for n in range(0, len(left), AT_ONCE)]
        for group in progress(groups, f"Playing {len(left)} notes"):
            for pitch, wave in zip(group, instrument(group, point), strict=True):
                write_audio(targets[pitch], self.fit(wave), instrument.sample_rate)
        skipped = len(pitches) - len(left)
        more = f", {skipped} skipped, complete already (--overwrite makes them again)" if skipped else ""
        print(f"{len(left)} written to {self.out}{more}")
        return 0


def read_pitches(text: str) -> list[int]:
    """Read ``60``, ``24..84`` or ``60,64,67``, or raise what is wrong."""
    pitches: dict[int, None] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise UsageError(f"--pitch {text}: expected MIDI numbers, such as 60, 24..84 or 60,64,67")
        pitches |= dict.fromkeys(range(int(match[1]), int(match[2] or match[1]) + 1))
    return list(pitches)

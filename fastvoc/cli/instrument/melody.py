"""`fastvoc melody`: MIDI files become sound files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import FileCommand, InstrumentCommand, UsageError
from fastvoc.cli.inputs import Job, plan
from fastvoc.cli.terminal import complain


@dataclass(frozen=True, kw_only=True)
class Melody(InstrumentCommand, FileCommand):
    """Play MIDI files, whose timbre may move while they play.

    Example: fastvoc melody notes.mid --seed 3 5 --instrument all_instruments/ --out played
    """

    midi: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MIDI...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of .mid files; their drums are left out."""
    seed: tuple[int, ...] = (0,)
    """Of the timbre; of several, the timbre moves from one to the next between the first note and the last."""

    def run(self) -> int:
        """Play each file."""
        if not self.seed or min(self.seed) < 0:
            raise UsageError("--seed: needs at least one number, none of which is negative")
        jobs, problems = plan(self.midi, (".mid", ".midi"), self.out, ".wav")

        from fastvoc.audio import write_audio
        from fastvoc.audio.files.melody import read_midi

        instrument = self.open()
        points = instrument.timbre(self.seed)

        def work(job: Job) -> float:
            notes = read_midi(job.source)
            played = [note for note in notes if instrument.lowest <= note.pitch <= instrument.highest]
            span = f"{instrument.lowest}..{instrument.highest}"
            if not played:
                raise ValueError(f"none of its notes is among the instrument's, {span}")
            if len(played) < len(notes):
                complain(f"{job.source}: {len(notes) - len(played)} of {len(notes)} notes are left out, beyond {span}")
            wave = instrument.melody(played, points)
            write_audio(job.target, wave, instrument.sample_rate)
            return len(wave) / instrument.sample_rate

        return batch.run(self, jobs, problems, work, "Playing")

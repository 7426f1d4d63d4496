"""`fastvoc notes`: a data set of notes is made, and an instrument is judged by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from fastvoc.cli.command import Command, InstrumentCommand, UsageError
from fastvoc.cli.instrument.note import read_pitches
from fastvoc.cli.terminal import progress, show


@dataclass(frozen=True, kw_only=True)
class RenderNotes(Command):
    """Make a data set in NSynth's layout: FluidSynth plays the acoustic instruments of a General MIDI soundfont.

    Every fifth instrument is kept apart, in nsynth-test. Instruments whose notes are all there are not played again.

    Example: fastvoc notes render notes --pitch 24..84 --velocity 50 100
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT", help_behavior_hint="(required)")]
    """Folder that gets nsynth-train and nsynth-test."""
    pitch: Annotated[str, tyro.conf.arg(metavar="PITCHES")] = "24..84"
    """MIDI numbers: one, such as 60; a range, such as 24..84; or several with commas between them."""
    velocity: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (25, 50, 75, 100, 127)
    """How hard keys are struck, 1 to 127."""
    program: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = ()
    """Instruments, by their General MIDI programs from 0; by default all acoustic ones."""
    soundfont: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """An .sf2 or .sf3 file; by default FluidR3, where Debian's package fluid-soundfont-gm lays it."""
    overwrite: bool = False
    """Play instruments again whose notes are all there."""

    def run(self) -> int:
        """Render."""
        pitches = read_pitches(self.pitch)

        from fastvoc.train.data.rendering import PROGRAMS, render_notes

        made = render_notes(
            self.out,
            pitches=pitches,
            velocities=self.velocity,
            programs=self.program or tuple(PROGRAMS),
            soundfont=self.soundfont,
            overwrite=self.overwrite,
            told=lambda programs: progress(programs, f"Playing {len(programs)} instruments"),
        )
        for part, count in made.items():
            print(f"{self.out / part}: {count} notes")
        return 0


@dataclass(frozen=True, kw_only=True)
class EvaluateNotes(InstrumentCommand):
    """Judge an instrument by GANSynth's measures, beside notes of instruments that it has not learned from.

    A classifier learns the pitches of the notes of --data, for some seconds, and then judges those of --held-out and as
    many notes of the instrument, of the same pitches and of timbres of their own. Strongest partials are the share of
    notes whose pitch is the one that most energy lies at the partials of, which no classifier can be wrong about.

    Example: fastvoc notes evaluate --instrument run --data notes/nsynth-train --held-out notes/nsynth-test
    """

    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Notes in NSynth's layout that the classifier learns from."""
    held_out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Notes in NSynth's layout that the instrument was not trained on."""
    peak: float | None = None
    """Largest magnitude that notes are scaled to, where those that the instrument was trained on were."""
    seed: int = 0
    """Of the classifier, and of the first timbre."""
    most: int = 1000
    """Notes of a folder that are read; of more, that many are taken evenly."""

    def run(self) -> int:
        """Measure, and print a table."""
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be 0 or more")

        from fastvoc.train.evaluation import evaluate_instrument

        found = evaluate_instrument(
            self.open(), self.data, self.held_out, peak=self.peak, seed=self.seed, most=self.most
        )
        measures = ("different bins", "Fréchet distance", "inception score")
        judged = ("pitch accuracy", "pitch entropy", "strongest partials")
        rows = [
            (
                name,
                f"{scores.different_bins} of {scores.bins}",
                f"{scores.frechet:.1f}",
                f"{scores.inception:.1f} of {scores.pitches}",
                f"{100 * scores.accuracy:.1f} %",
                f"{scores.entropy:.2f} nats",
                f"{100 * scores.strongest:.1f} %",
            )
            for name, scores in found.items()
        ]
        show("Notes", ("notes", *measures, *judged), rows)
        return 0


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Make a data set of notes, or judge an instrument by one."""

    ACTIONS: ClassVar[tuple[type[Command], ...]] = (RenderNotes, EvaluateNotes)

    action: Annotated[
        Annotated[RenderNotes, tyro.conf.subcommand("render", prefix_name=False)]
        | Annotated[EvaluateNotes, tyro.conf.subcommand("evaluate", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    @property
    def debug(self) -> bool:
        """Whether to show the traceback of an error."""
        return self.action.debug

    def run(self) -> int:
        """Do it, and return the exit code."""
        return self.action.run()

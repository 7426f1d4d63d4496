"""`fastvoc rainbowgram`: pictures of sound, in which colour says how fast phases turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import FileCommand
from fastvoc.cli.inputs import Job, plan
from fastvoc.train.data.lists import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Rainbowgram(FileCommand):
    """Draw sound files: brightness is the level of a mel band, hue the instantaneous frequency in it.

    Example: fastvoc rainbowgram notes/ --out pictures
    """

    audio: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of sound at any rate."""
    rate: int = 16000
    """Rate that is drawn, in Hz: all below its half."""

    def run(self) -> int:
        """Draw each file."""
        jobs, problems = plan(self.audio, SUFFIXES, self.out, ".png")

        from fastvoc.audio import read_audio
        from fastvoc.audio.picture import draw_rainbowgram

        def work(job: Job) -> float:
            wave, rate = read_audio(job.source, self.rate)
            draw_rainbowgram(job.target, wave, rate, title=job.source.stem)
            return len(wave) / rate

        return batch.run(self, jobs, problems, work, "Drawing")

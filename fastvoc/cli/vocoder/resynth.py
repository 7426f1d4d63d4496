"""`fastvoc resynth`: sound files become mels and sound again, which is how a vocoder is heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import WaveCommand
from fastvoc.cli.inputs import Job, plan
from fastvoc.train.data.lists import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Resynth(WaveCommand):
    """Turn sound into mel spectrograms and back into sound, at the vocoder's sample rate.

    Example: fastvoc resynth recordings/ --out again --vocoder my-vocoder
    """

    audio: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of sound at any sample rate, in any format that libsndfile reads."""

    def run(self) -> int:
        """Resynthesise each file."""
        self.check()
        jobs, problems = plan(self.audio, SUFFIXES, self.out, f".{self.format}")

        from fastvoc.audio import read_audio

        vocoder = self.open()
        sampling = self.sampling(vocoder)

        def work(job: Job) -> float:
            original, _ = read_audio(job.source, vocoder.sample_rate)
            return self.write(job.target, vocoder(vocoder.mel(original), **sampling), vocoder.sample_rate)

        return batch.run(self, jobs, problems, work, "Resynthesising")

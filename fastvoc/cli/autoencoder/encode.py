"""`fastvoc encode`: sound files become files of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import AutoencoderCommand, FileCommand
from fastvoc.cli.inputs import Job, plan
from fastvoc.train.data.lists import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Encode(AutoencoderCommand, FileCommand):
    """Turn sound into codes of an autoencoder, as .npy files of float32, (rows, numbers).

    Example: fastvoc encode notes/ --autoencoder wavenet-ckpt/model.ckpt-200000 --picture --out codes
    """

    audio: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of sound at any rate; it is resampled to the autoencoder's."""
    picture: bool = False
    """Draw each code under its wave, as a .png beside it."""

    def run(self) -> int:
        """Encode each file."""
        jobs, problems = plan(self.audio, SUFFIXES, self.out, ".npy")

        from fastvoc.audio import read_audio
        from fastvoc.audio.picture import draw_code

        autoencoder = self.open()

        def work(job: Job) -> float:
            wave, rate = read_audio(job.source, autoencoder.sample_rate)
            code = autoencoder.encode(wave)
            if self.picture:
                draw_code(job.target.with_suffix(".png"), wave, code, rate, title=job.source.stem)
            autoencoder.save(code, job.target)
            return len(wave) / rate

        return batch.run(self, jobs, problems, work, "Encoding")

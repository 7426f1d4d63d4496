"""`fastvoc decode`: files of codes become sound files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import AutoencoderCommand, SoundCommand
from fastvoc.cli.inputs import Job, plan
from fastvoc.cli.terminal import progress


@dataclass(frozen=True, kw_only=True)
class Decode(AutoencoderCommand, SoundCommand):
    """Turn codes of an autoencoder into sound, sample by sample.

    Example: fastvoc decode codes/ --autoencoder wavenet-ckpt/model.ckpt-200000 --seed 1 --out waves
    """

    code: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CODE...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of .npy; in each one code, (rows, numbers)."""

    def run(self) -> int:
        """Decode each file."""
        self.check()
        jobs, problems = plan(self.code, (".npy",), self.out, f".{self.format}")

        import torch

        autoencoder = self.open()
        seed = self.chosen_seed()

        def work(job: Job) -> float:
            rows = progress(torch.split(autoencoder.load(job.source), 1), f"Decoding {job.source.name}")
            wave = torch.cat([*autoencoder.stream(rows, seed=seed, temperature=self.temperature)])
            return self.write(job.target, wave, autoencoder.sample_rate)

        return batch.run(self, jobs, problems, work, None)

"""`fastvoc vocode`: mel files become sound files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import UsageError, WaveCommand
from fastvoc.cli.inputs import MELS, Job, plan


@dataclass(frozen=True, kw_only=True)
class Vocode(WaveCommand):
    """Turn mel spectrograms into sound.

    Example: fastvoc vocode mels/ "more/**/*.npy" --out waves --format flac
    """

    mel: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MEL...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of .npy, .npz, .pt or .safetensors, one log-mel of (bands, frames) in each."""
    convention: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the public project's convention that the mels are in, such as parallel-wavegan, where it is not the
    vocoder's own; they are converted if that is exact, and refused if it is not."""

    def run(self) -> int:
        """Vocode each file."""
        self.check()
        jobs, problems = plan(self.mel, MELS, self.out, f".{self.format}")

        from fastvoc.audio import find_convention, why_not, write_audio
        from fastvoc.cli.mel_files import read_mel

        vocoder = self.open()
        convention = vocoder.config.mel
        if self.convention is not None:
            try:
                convention = find_convention(self.convention)
            except ValueError as error:
                raise UsageError(f"--{error}") from None
            if reason := why_not(convention, vocoder.config.mel):
                raise UsageError(f"--convention {self.convention}: cannot be converted exactly: {reason}")

        def work(job: Job) -> float:
            mel = read_mel(job.source)
            if mel.ndim == 3:
                raise ValueError(f"{job.source}: holds {mel.shape[0]} mels; one file holds one mel")
            wave = vocoder(mel, convention=convention)
            write_audio(job.target, wave, vocoder.sample_rate, self.subtype)
            return len(wave) / vocoder.sample_rate

        return batch.run(self, jobs, problems, work, "Vocoding")

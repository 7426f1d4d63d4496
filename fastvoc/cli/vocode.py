"""`fastvoc vocode`: mel files become sound files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import WaveCommand
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

    def run(self) -> int:
        """Vocode each file."""
        self.check()
        jobs, problems = plan(self.mel, MELS, self.out, f".{self.format}")

        from fastvoc.audio import write_audio
        from fastvoc.cli.mel_files import read_mel
        from fastvoc.cli.voice import voice

        vocoder = self.open()

        def work(job: Job) -> float:
            mel = read_mel(job.source)
            if mel.ndim == 3:
                raise ValueError(f"{job.source}: holds {mel.shape[0]} mels; one file holds one mel")
            wave = voice(vocoder, mel)
            write_audio(job.target, wave, vocoder.sample_rate, self.subtype)
            return len(wave) / vocoder.sample_rate

        return batch.run(self, jobs, problems, work, "Vocoding")

"""`fastvoc mel`: sound files become mel files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import FileCommand, UsageError
from fastvoc.cli.inputs import Job, plan
from fastvoc.train.data.lists import SUFFIXES

if TYPE_CHECKING:
    from fastvoc.audio import MelConfig


@dataclass(frozen=True, kw_only=True)
class Mel(FileCommand):
    """Compute log-mel spectrograms, as .npy files of float32, (bands, frames).

    Example: fastvoc mel recordings/ --convention hifigan --out mels
    """

    audio: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of sound at any rate; it is resampled to the convention's."""
    convention: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of a public project's convention, such as hifigan or melgan; a wrong name lists them all."""
    vocoder: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Vocoder whose convention is used; without either option, that of the vocoder that comes with the package."""

    def run(self) -> int:
        """Compute the mel of each file."""
        if self.convention is not None and self.vocoder is not None:
            raise UsageError("--convention and --vocoder: both name a convention; give one of them")
        jobs, problems = plan(self.audio, SUFFIXES, self.out, ".npy")

        from fastvoc.audio import mel_spectrogram, read_audio
        from fastvoc.audio.inputs import too_loud
        from fastvoc.cli.vocoder.mel_files import write_mel

        convention = self._convention()
        print(f"convention: {convention.describe()}")

        def work(job: Job) -> float:
            wave, rate = read_audio(job.source, convention.sample_rate)
            if loud := too_loud(wave):
                warnings.warn(loud, stacklevel=2)
            write_mel(job.target, mel_spectrogram(wave, convention))
            return len(wave) / rate

        return batch.run(self, jobs, problems, work, "Computing mels")

    def _convention(self) -> MelConfig:
        from fastvoc import Vocoder
        from fastvoc.audio import CONVENTIONS
        from fastvoc.audio.mels.convention import as_mel_config
        from fastvoc.config import nearest

        if self.convention is None:
            return as_mel_config(Vocoder.from_pretrained(self.vocoder or "default").config.mel, "mel")
        if self.convention not in CONVENTIONS:
            hint = nearest(self.convention, list(CONVENTIONS))
            raise UsageError(f"--convention {self.convention}: is not a known name; {hint}")
        return CONVENTIONS[self.convention]

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
    """Files, quoted globs or folders of .npy, .npz, .pt, .safetensors or .h5; in each one log-mel, (bands, frames)."""
    convention: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the public project's convention that the mels are in, such as parallel-wavegan, where it is not the
    vocoder's own; they are converted if that is exact, and refused if it is not."""
    transposed: bool = False
    """The files hold (frames, bands), as those of ParallelWaveGAN and ESPnet do."""
    key: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Name of the mel in files that hold several arrays; "mel" and "feats" are found without it."""

    def run(self) -> int:
        """Vocode each file."""
        self.check()
        jobs, problems = plan(self.mel, MELS, self.out, f".{self.format}")

        from fastvoc.audio import find_convention, why_not
        from fastvoc.audio.mels.convention import as_mel_config
        from fastvoc.cli.vocoder.mel_files import read_mel

        vocoder = self.open()
        sampling = self.sampling(vocoder)
        convention = None
        if self.convention is not None:
            try:
                convention = find_convention(self.convention)
            except ValueError as error:
                raise UsageError(f"--{error}") from None
            if reason := why_not(convention, as_mel_config(vocoder.config.mel, "--convention")):
                raise UsageError(f"--convention {self.convention}: cannot be converted exactly: {reason}")

        def work(job: Job) -> float:
            mel = read_mel(job.source, self.key)
            if mel.ndim == 3:
                raise ValueError(f"{job.source}: holds {mel.shape[0]} mels; one file holds one mel")
            if mel.ndim == 2 and self.transposed:
                mel = mel.mT
            bands = vocoder.config.mel.bands
            if mel.ndim == 2 and mel.shape[0] != bands and mel.shape[1] == bands:
                turn = "leave out --transposed" if self.transposed else "--transposed turns it"
                raise ValueError(
                    f"{job.source}: mel has shape {tuple(mel.shape)} and must be ({bands}, frames); it seems to be "
                    f"transposed: {turn}"
                )
            return self.write(job.target, vocoder(mel, convention=convention, **sampling), vocoder.sample_rate)

        return batch.run(self, jobs, problems, work, "Vocoding")

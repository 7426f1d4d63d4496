"""`fastvoc noise`: pictures of what the flows of a vocoder make of recordings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from fastvoc.cli import batch
from fastvoc.cli.command import FileCommand, UsageError, VocoderCommand
from fastvoc.cli.inputs import Job, plan
from fastvoc.train.data.lists import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Noise(VocoderCommand, FileCommand):
    """Draw the noise that a WaveGlow makes of sound files, beside the normal density that it was trained towards.

    Example: fastvoc noise recordings/ --out pictures --vocoder waveglow_256channels_universal_v5.pt
    """

    audio: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO...", help_behavior_hint="(required)")
    ]
    """Files, quoted globs or folders of sound at any rate."""

    def run(self) -> int:
        """Draw each file."""
        jobs, problems = plan(self.audio, SUFFIXES, self.out, ".png")

        import torch

        from fastvoc.audio import read_audio
        from fastvoc.audio.picture import draw_noise
        from fastvoc.models import WaveGlow

        vocoder = self.open()
        network = vocoder.generator
        if not isinstance(network, WaveGlow):
            raise UsageError(
                f"--vocoder {self.vocoder}: holds {vocoder.config.generator.kind!r}, which makes no noise of "
                "recordings; 'waveglow' does"
            )

        def work(job: Job) -> float:
            wave, _ = read_audio(job.source, vocoder.sample_rate)
            mel = vocoder.mel(wave)[None].to(vocoder.device, vocoder.dtype)
            group = network.config.group
            count = min(len(wave), mel.shape[-1] * vocoder.hop) // group * group
            with torch.inference_mode():
                made = network.transform(wave[None, :count].to(mel), mel)
            draw_noise(
                job.target,
                made.z[0],
                network.config.deviation,
                group / vocoder.sample_rate,
                title=job.source.stem,
            )
            return len(wave) / vocoder.sample_rate

        return batch.run(self, jobs, problems, work, "Drawing")

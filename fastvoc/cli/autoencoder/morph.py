"""`fastvoc morph`: two sounds, and sounds that have something of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fastvoc.cli.command import AutoencoderCommand, SoundCommand, UsageError
from fastvoc.cli.terminal import complain, progress

if TYPE_CHECKING:
    from torch import Tensor

    from fastvoc import Autoencoder

MOST = 101
"""Steps: from hundredth to hundredth, as the names of the files count."""


@dataclass(frozen=True, kw_only=True)
class Morph(AutoencoderCommand, SoundCommand):
    """Go from one sound to another in steps, by mixing their codes; all steps are made side by side.

    Example: fastvoc morph sitar.wav guitar.wav --steps 5 --autoencoder wavenet-ckpt/model.ckpt-200000 --out morphs
    """

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """A sound file, or a .npy of its code."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Another; the longer one is cut."""
    steps: int = 5
    """Sounds that are made, with both ends: 5 are 0, 25, 50, 75 and 100 hundredths of B."""

    def run(self) -> int:
        """Encode, mix, decode and write."""
        self.check()
        if not 2 <= self.steps <= MOST:
            raise UsageError(f"--steps {self.steps}: must be between 2 and {MOST}")

        import torch

        autoencoder = self.open()
        codes = [self._code(path, autoencoder) for path in (self.first, self.second)]
        rows = min(map(len, codes))
        fractions = [step / (self.steps - 1) for step in range(self.steps)]
        targets = {
            fraction: self.out / f"{self.first.stem}-{self.second.stem}-{round(100 * fraction):03d}.{self.format}"
            for fraction in fractions
        }
        left = [fraction for fraction in fractions if self.overwrite or not targets[fraction].exists()]
        if len(left) < len(fractions):
            print(f"{len(fractions) - len(left)} skipped, complete already (--overwrite makes them again)")
        if not left:
            return 0
        mixed = torch.stack([autoencoder.interpolate(codes[0][:rows], codes[1][:rows], value) for value in left])
        seeds = [self.chosen_seed()] * len(left)  # what differs between the steps is the code alone
        chunks = progress(torch.split(mixed, 1, dim=1), f"Decoding {len(left)} mixtures")
        waves = torch.cat([*autoencoder.stream(chunks, seed=seeds, temperature=self.temperature)], dim=-1)
        self.out.mkdir(parents=True, exist_ok=True)
        for fraction, wave in zip(left, waves, strict=True):
            self.write(targets[fraction], wave, autoencoder.sample_rate)
        print(f"{len(left)} written to {self.out}")
        return 0

    def _code(self, path: Path, autoencoder: Autoencoder) -> Tensor:
        from fastvoc.audio import read_audio
        from fastvoc.audio.inputs import too_loud

        if path.suffix.lower() == ".npy":
            return autoencoder.load(path)
        wave, _ = read_audio(path, autoencoder.sample_rate)
        if loud := too_loud(wave):
            complain(f"{path}: warning: {loud}")
        try:
            return autoencoder.encode(wave)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

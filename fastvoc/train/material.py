"""What a run learns from, once its settings are known: batches, what it is judged by, and what is saved with weights.

`MATERIALS` says which class does so for which settings of data; others can be added.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.audio import mel_spectrogram, write_audio
from fastvoc.checkpoints import InstrumentConfig, settings_of_run
from fastvoc.models import GANSynth
from fastvoc.noise import normal
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.kinds import DataSettings
from fastvoc.train.data.loader import Loader, make_loader
from fastvoc.train.data.note_batches import note_loader, split_notes
from fastvoc.train.data.notes import AUDIO, NoteDataConfig, NoteFile, read_all, write_examples
from fastvoc.train.data.recordings import evenly
from fastvoc.train.report import pictures
from fastvoc.train.report.validation import generate, measure, validation_clips
from fastvoc.train.tasks.notes import NoteTask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastvoc.train.config import TrainConfig

SAMPLES = 4
"""Validation clips of each set that are shown and played."""

TONES = 5
"""Recordings that a smoke test makes."""

SECONDS = 1.2
"""Of such a recording, at least."""

Pairs = dict[str, tuple[Tensor, Tensor]]


class Material(ABC):
    """What a run learns from.

    Parameters
    ----------
    config : TrainConfig
    """

    criterion: str
    """The number of `judge` that is least for the best generator."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    @abstractmethod
    def sample_rate(self) -> int:
        """Of all waves, in Hz."""

    @abstractmethod
    def settings_of(self, generator: Any = None) -> Any:
        """Return the settings that are saved with the weights of a generator; by default of the configured one."""

    @abstractmethod
    def loader(self, rank: int = 0, world_size: int = 1) -> Loader:
        """Begin an endless supply of batches, of which each process reads its part."""

    @abstractmethod
    def clips(self) -> dict[str, dict[str, Tensor]]:
        """Read the validation sets: set to name to wave, (T,)."""

    @abstractmethod
    def judge(self, task: Any, generator: Any, clips: Mapping[str, Tensor]) -> tuple[dict[str, float], Pairs]:
        """Judge a generator on a validation set.

        Parameters
        ----------
        task : Task
            Whose `plain_generator` made it.
        generator : nn.Module
        clips : mapping of str to Tensor, shape (T,)

        Returns
        -------
        numbers : dict of str to float
        samples : dict of str to (Tensor, Tensor)
            Recording and generated wave of a few clips.
        """

    @abstractmethod
    def draw(self, samples: Mapping[str, tuple[Tensor, Tensor]], *, title: str = "") -> Figure:
        """Draw recordings beside what was generated."""

    @abstractmethod
    def on_tones(self, folder: str) -> DataSettings:
        """Return settings of data like the run's, of what `write_tones` writes."""

    @abstractmethod
    def write_tones(self, folder: Path) -> None:
        """Write a few tones to be trained on in a smoke test."""


class Waves(Material):
    """Segments of recordings, of which a generator is given mels."""

    criterion = "mel_l1"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert isinstance(config.data, DataConfig)
        self.data = config.data

    @property
    def sample_rate(self) -> int:
        """That of the mel convention."""
        return self.config.convention.sample_rate

    def settings_of(self, generator: Any = None) -> Any:
        """Return the settings of a vocoder or an autoencoder."""
        return settings_of_run(self.config.generator, self.config.convention)

    def loader(self, rank: int = 0, world_size: int = 1) -> Loader:
        """Supply segments, with their mels for fine-tuning."""
        config = self.config
        return make_loader(
            self.data,
            sample_rate=self.sample_rate,
            segment=config.segment,
            batch=config.batch // world_size,
            seed=config.seed,
            rank=rank,
            world_size=world_size,
            mel=config.mel,
        )

    def clips(self) -> dict[str, dict[str, Tensor]]:
        """Read the beginnings of whole recordings."""
        return validation_clips(self.data, sample_rate=self.sample_rate)

    def judge(self, task: Any, generator: Any, clips: Mapping[str, Tensor]) -> tuple[dict[str, float], Pairs]:
        """Compare recordings with what becomes of their mels."""
        mel = self.config.convention
        pairs = generate(generator, clips, mel, seconds=task.validation_seconds)
        return measure(pairs, mel) | task.validate(generator, clips), dict(list(pairs.items())[:SAMPLES])

    def draw(self, samples: Mapping[str, tuple[Tensor, Tensor]], *, title: str = "") -> Figure:
        """Draw mels."""
        return pictures.spectrograms(samples, self.config.convention, title=title)

    def on_tones(self, folder: str) -> DataSettings:
        """Return settings without sources of other recordings."""
        return replace(
            self.data,
            recordings=(folder,),
            weights=(),
            root=None,
            validation=(),
            unseen=(),
            held_out=1,
            mels=None if self.data.mels is None else folder,
            workers=0,
        )

    def write_tones(self, folder: Path) -> None:
        """Write tones of five partials, and their mels where the run has mels of another network."""
        mel = self.config.convention
        # whole frames, and room for a segment
        length = math.ceil(max(SECONDS * mel.sample_rate, self.config.segment + mel.fft_size) / mel.hop) * mel.hop
        for number in range(TONES):
            wave = _tone(110 * 2 ** (number / 3), length, mel.sample_rate, number)
            write_audio(folder / f"tone-{number}.wav", wave, mel.sample_rate)
            if self.data.mels is not None:
                frames = mel_spectrogram(wave, mel)[:, : length // mel.hop]
                np.save(folder / f"tone-{number}.npy", frames.numpy())


class Notes(Material):
    """Whole notes and their pitches."""

    criterion = "profile"

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert isinstance(config.data, NoteDataConfig)
        self.data = config.data
        generator: Any = config.generator
        self.lowest: int = generator.lowest_pitch
        self.pitches = range(self.lowest, self.lowest + generator.pitches)
        self._parts: tuple[list[NoteFile], list[NoteFile]] | None = None

    @property
    def sample_rate(self) -> int:
        """That of the pictures."""
        return self.data.spectrum.sample_rate

    def settings_of(self, generator: Any = None) -> InstrumentConfig:
        """Return the settings of an instrument, as far as it has grown."""
        settings = self.data.settings(self.config)
        return settings if generator is None else replace(settings, generator=generator.config)

    def loader(self, rank: int = 0, world_size: int = 1) -> Loader:
        """Supply notes and their pitches, counted from the lowest one."""
        notes, judged = self._split()
        return note_loader(
            notes,
            judged,
            self.data,
            lowest=self.lowest,
            batch=self.config.batch // world_size,
            seed=self.config.seed,
            rank=rank,
            world_size=world_size,
        )

    def clips(self) -> dict[str, dict[str, Tensor]]:
        """Read notes that are held out."""
        judged = self._split()[1]
        chosen = [judged[number] for number in evenly(self.data.validation_clips, len(judged))]
        spectrum, peak = self.data.spectrum, self.data.peak
        read = read_all(chosen, spectrum.sample_rate, spectrum.samples, peak=peak)
        waves: dict[str, Tensor] = {}
        for number, (note, wave) in enumerate(read):  # notes of other folders may have the same name
            waves[note.name if note.name not in waves else f"{number}-{note.name}"] = wave
        return {"seen": waves} if waves else {}

    def judge(self, task: Any, generator: Any, clips: Mapping[str, Tensor]) -> tuple[dict[str, float], Pairs]:
        """Compare notes that are held out with notes that are made at their pitches.

        There is no note to be met: the numbers are ``profile``, how far the mean levels of made notes are from those
        of the others, over frequency, in the units of the pictures; and what the discriminator says of both kinds,
        ``real_pitch_accuracy`` and ``fake_pitch_accuracy``, the shares of notes whose pitches it names.
        """
        assert isinstance(task, NoteTask) and isinstance(generator, GANSynth)
        pitch = torch.tensor([int(name.split("-")[-2]) - self.lowest for name in clips], device=task.device)
        with torch.no_grad():
            real = task.pictures(torch.stack([*clips.values()]).to(task.device))
            seed = torch.zeros(1, dtype=torch.int64, device=task.device)
            latent = normal(seed, 0, channels=generator.config.latent, rows=len(pitch))[0].T
            made = torch.cat([generator(*pair) for pair in zip(latent[:, None], pitch[:, None], strict=True)])
            named = [
                task.discriminator(some, generator.config.grown)[1].argmax(dim=1) == pitch for some in (real, made)
            ]
            waves = task.waves(made).cpu()
        profiles = [some[:, 0].mean(dim=1) for some in (real, made)]
        numbers = {
            "profile": float((profiles[0].mean(dim=0) - profiles[1].mean(dim=0)).abs().mean()),
            "real_pitch_accuracy": float(named[0].float().mean()),
            "fake_pitch_accuracy": float(named[1].float().mean()),
        }
        pairs = {name: (clip, wave) for (name, clip), wave in zip(clips.items(), waves, strict=True)}
        return numbers | task.validate(generator, clips), dict(list(pairs.items())[:SAMPLES])

    def draw(self, samples: Mapping[str, tuple[Tensor, Tensor]], *, title: str = "") -> Figure:
        """Draw rainbowgrams."""
        return pictures.rainbowgrams(samples, self.sample_rate, title=title)

    def on_tones(self, folder: str) -> DataSettings:
        """Return settings of one folder of notes, of which one is judged by."""
        return replace(self.data, recordings=(folder,), validation=(), held_out=1, workers=0)

    def write_tones(self, folder: Path) -> None:
        """Write notes of a family and a source that the run takes, as NSynth lays them out."""
        spectrum, (family, source) = self.data.spectrum, (self.data.families[0], self.data.sources[0])
        notes = []
        (folder / AUDIO).mkdir(exist_ok=True)
        for number in range(TONES):
            pitch = self.pitches[number * (len(self.pitches) - 1) // (TONES - 1)]
            name = f"{family}_{source}_{number:03d}"
            path = folder / AUDIO / f"{name}-{pitch:03d}-100.wav"
            hertz = min(440 * 2 ** ((pitch - 69) / 12), spectrum.sample_rate / 12)
            write_audio(path, _tone(hertz, spectrum.samples, spectrum.sample_rate, number), spectrum.sample_rate)
            notes.append(NoteFile(path, pitch, 100, name, family, source))
        write_examples(folder, notes, sample_rate=spectrum.sample_rate)

    def _split(self) -> tuple[list[NoteFile], list[NoteFile]]:
        if self._parts is None:
            self._parts = split_notes(self.data, self.pitches)
        return self._parts


MATERIALS: dict[type, type[Material]] = {DataConfig: Waves, NoteDataConfig: Notes}
"""Settings of data to the class that knows what to do with them."""


def material_of(config: TrainConfig) -> Material:
    """Return what a run learns from."""
    return MATERIALS[type(config.data)](config)


def _tone(hertz: float, length: int, sample_rate: int, phase: int) -> Tensor:
    """Return five partials, (length,), that swell three times in a second."""
    time = torch.arange(length) / sample_rate
    partials = [torch.sin(2 * math.pi * k * hertz * time + phase) / k for k in range(1, 6)]
    return 0.2 * torch.stack(partials).sum(dim=0) * (1 + torch.sin(2 * math.pi * 3 * time)) / 2

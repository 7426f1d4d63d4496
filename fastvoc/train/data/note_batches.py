"""Batches of notes: those of recordings, but that a note is whole, and has a pitch and an instrument."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastvoc.train.data.batches import Batches
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.lists import Recording
from fastvoc.train.data.loader import Loader
from fastvoc.train.data.notes import NoteDataConfig, NoteFile, read_notes, seed_of_instrument, whole_note
from fastvoc.train.data.recordings import Recordings, Stretches, evenly


class NoteBatches(Batches):
    """Batches of one rank by their number; see `Batches`, whose parameters have the same meaning.

    Parameters
    ----------
    notes : sequence of NoteFile
    config : NoteDataConfig
    lowest : int
        Pitch that is counted as 0.
    seed, rows, whole_batch
        As in `Batches`.
    """

    def __init__(
        self,
        notes: Sequence[NoteFile],
        config: NoteDataConfig,
        *,
        lowest: int,
        seed: int,
        rows: range,
        whole_batch: int,
    ) -> None:
        facts = [(note.pitch - lowest, seed_of_instrument(note.instrument)) for note in notes]
        self._facts = torch.tensor(facts, dtype=torch.int64)
        super().__init__(
            as_recordings(notes),
            DataConfig(
                recordings=config.recordings,
                peak=config.peak,
                short="pad",
                workers=config.workers,
                cache=config.cache,
            ),
            sample_rate=config.spectrum.sample_rate,
            segment=config.spectrum.samples,
            seed=seed,
            rows=rows,
            whole_batch=whole_batch,
        )

    def _read(self, index: int, speed: float, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        wave, _ = super()._read(index, speed, random)
        return wave, self._facts[index]

    def _cut(self, wave: Tensor, mel: Tensor | None, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        return whole_note(wave, self._segment), mel


def as_recordings(notes: Sequence[NoteFile]) -> Recordings:
    """Return the sound files of notes."""
    return Recordings(Recording(str(note.path.resolve())) for note in notes)


def split_notes(config: NoteDataConfig, pitches: range) -> tuple[list[NoteFile], list[NoteFile]]:
    """Find the notes of a run, and those that it is only judged by.

    Raises
    ------
    FileNotFoundError, ValueError
        As `fastvoc.train.data.notes.read_notes`; or if nothing is left to train on.
    """

    def found(folders: Sequence[str]) -> list[NoteFile]:
        parts = [
            read_notes(folder, pitches=pitches, families=config.families, sources=config.sources) for folder in folders
        ]
        return [*itertools.chain(*parts)]

    notes, judged = found(config.recordings), found(config.validation)
    if not judged:
        chosen = set(evenly(config.held_out, len(notes)))
        judged = [note for number, note in enumerate(notes) if number in chosen]
    total, aside = len(notes), Stretches(as_recordings(judged))
    # whatever folders and links lead to them
    notes = [note for note, sound in zip(notes, as_recordings(notes), strict=True) if sound not in aside]
    if not notes:
        raise ValueError(
            f"data.recordings: all {total} notes are set aside for validation (by held_out or validation); needs at "
            "least one more to train on, or a smaller held_out"
        )
    return notes, judged


def note_loader(
    notes: Sequence[NoteFile],
    aside: Sequence[NoteFile],
    config: NoteDataConfig,
    *,
    lowest: int,
    batch: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Begin an endless supply of notes: waves, (B, samples), and of each its pitch and instrument, (B, 2), int64.

    A pitch is counted from the lowest one; an instrument is the seed of its point of timbre.

    Parameters
    ----------
    notes, aside : sequence of NoteFile
        To train on, and to validate on.
    config : NoteDataConfig
    lowest : int
        Pitch that is counted as 0.
    batch, seed, rank, world_size
        As in `fastvoc.train.data.loader.make_loader`.
    """
    rows = range(rank * batch, (rank + 1) * batch)
    batches = NoteBatches(notes, config, lowest=lowest, seed=seed, rows=rows, whole_batch=batch * world_size)
    loader = Loader(batches, workers=config.workers, aside=as_recordings(aside))
    unusable = batches.try_out()
    if rank == 0:  # every rank has tried the same
        loader.skip(unusable)
    else:
        loader.skipped.update(unusable)
    return loader

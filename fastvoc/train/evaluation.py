"""How good an instrument is, beside notes that it has not heard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastvoc.audio.instantaneous_frequency import normalise, note_spectrum
from fastvoc.audio.partials import hertz_of_pitch, strongest_pitch
from fastvoc.faces.instrument import Instrument
from fastvoc.train.data.notes import read_all, read_notes
from fastvoc.train.data.recordings import evenly
from fastvoc.train.report.note_scores import NoteScores, score_notes, train_classifier
from fastvoc.train.tasks.task import own_defaults

_logger = logging.getLogger(__name__)


@own_defaults()
def evaluate_instrument(
    instrument: Instrument,
    data: str | Path,
    held_out: str | Path,
    *,
    peak: float | None = None,
    seed: int = 0,
    most: int = 1000,
) -> dict[str, NoteScores]:
    """Judge an instrument by GANSynth's measures (see `fastvoc.train.report.note_scores`).

    All pictures are linear ones of the instrument's transform, of waves: also those of made notes. Which
    pitch's partials are strongest is asked of the waves themselves, among the pitches of the instrument and an octave
    below and above them.

    Parameters
    ----------
    instrument : Instrument
    data : str or Path
        Folder in NSynth's layout, of whose notes, those that the instrument can play, the classifier learns pitches.
    held_out : str or Path
        Another one, of notes that neither has heard.
    peak : float, optional
        Largest magnitude that real notes are scaled to; made ones are scaled to it too.
    seed : int
        Of the classifier; note `n` of the instrument has the timbre of seed ``seed + n``.
    most : int
        Notes of a folder; of more, that many are taken evenly over their order, which a warning says. All their
        pictures are in memory: 5 GB for 1000 of the published size in both folders.

    Returns
    -------
    dict of str to NoteScores
        ``"learned from"``, the notes of `data` themselves; ``"held out"``, what other real notes come
        to; and ``"made"``, notes of the instrument of the same pitches.

    Raises
    ------
    FileNotFoundError, ValueError
        As `fastvoc.train.data.notes.read_notes`; or if a folder has only one note, `most` is less than two, `peak` is
        not between 0 and 1, or the instrument makes values that are not finite.
    """
    if peak is not None and not 0 < peak <= 1:
        raise ValueError(f"evaluate_instrument: peak is {peak}; it must be above 0, and 1 at most")
    if most < 2:
        raise ValueError(f"evaluate_instrument: most is {most}; what is measured needs two notes at least")
    pitches = range(instrument.lowest, instrument.highest + 1)
    spectrum = instrument.config.spectrum

    candidates = [
        pitch
        for pitch in range(max(0, pitches.start - 12), min(128, pitches.stop + 12))
        if hertz_of_pitch(pitch) < spectrum.sample_rate / 2
    ]

    def seen(waves: Sequence[Tensor], pitch: Tensor) -> _Notes:
        """Look at notes of pitches that are counted from 0."""
        levels = [normalise(note_spectrum(wave, spectrum))[None, ..., 0] for wave in waves]
        strongest = torch.stack([strongest_pitch(wave, spectrum.sample_rate, candidates) for wave in waves])
        share = float((strongest == pitch + instrument.lowest).float().mean())
        return _Notes(torch.stack(levels), pitch, share)

    def real_notes(folder: str | Path) -> _Notes:
        notes = read_notes(folder, pitches=pitches)
        if len(notes) > most:
            _logger.warning("%s: %d of its %d notes are taken", folder, most, len(notes))
            notes = [notes[number] for number in evenly(most, len(notes))]
        read = read_all(notes, spectrum.sample_rate, spectrum.samples, peak=peak)
        if len(read) < 2:
            raise ValueError(
                f"{folder}: has one note that the instrument can play; what is measured needs two at least"
            )
        numbers = torch.tensor([note.pitch for note, _ in read]) - instrument.lowest
        return seen([wave for _, wave in read], numbers)

    learned, apart = real_notes(data), real_notes(held_out)
    waves = []
    for place, number in enumerate(apart.pitch.tolist()):
        wave = instrument(instrument.lowest + number, seed=seed + place).float().cpu()
        if not bool(wave.isfinite().all()):
            raise ValueError(
                f"evaluate_instrument: pitch {instrument.lowest + number} of seed {seed + place} is not finite; the "
                "instrument's weights are broken, or too large for its dtype"
            )
        waves.append(wave if peak is None else wave * (peak / wave.abs().max().clamp(min=1e-9)))
    made = seen(waves, apart.pitch)
    classifier = train_classifier(learned.pictures, learned.pitch, len(pitches), seed=seed)
    return {
        name: score_notes(classifier, learned.pictures, notes.pictures, notes.pitch, strongest=notes.strongest)
        for name, notes in (("learned from", learned), ("held out", apart), ("made", made))
    }


class _Notes(NamedTuple):
    """What is known of a set of notes."""

    pictures: Tensor
    """By their levels alone: (N, 1, frames, bins)."""
    pitch: Tensor
    """That each should have, from 0: (N,)."""
    strongest: float
    """Share of those whose partials say so."""

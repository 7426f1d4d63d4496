"""How good an instrument is, beside notes that it has not heard."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from fastvoc.audio.instantaneous_frequency import normalise, note_spectrum
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

    All pictures are linear ones of the instrument's transform, of waves: also those of made notes.

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

    def picture(wave: Tensor) -> Tensor:
        """Of one note, by its levels alone: (1, frames, bins)."""
        seen = normalise(note_spectrum(wave, spectrum))
        return seen.permute(2, 0, 1)[:1]

    def real_notes(folder: str | Path) -> tuple[Tensor, Tensor]:
        """Pictures, (N, 1, frames, bins), and pitches from 0, (N,)."""
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
        return torch.stack([picture(wave) for _, wave in read]), numbers

    (real, learned), (apart, others) = real_notes(data), real_notes(held_out)
    made = []
    for place, number in enumerate(others.tolist()):
        wave = instrument(instrument.lowest + number, seed=seed + place).float().cpu()
        if not bool(wave.isfinite().all()):
            raise ValueError(
                f"evaluate_instrument: pitch {instrument.lowest + number} of seed {seed + place} is not finite; the "
                "instrument's weights are broken, or too large for its dtype"
            )
        made.append(picture(wave if peak is None else wave * (peak / wave.abs().max().clamp(min=1e-9))))
    classifier = train_classifier(real, learned, len(pitches), seed=seed)
    return {
        "learned from": score_notes(classifier, real, real, learned),
        "held out": score_notes(classifier, real, apart, others),
        "made": score_notes(classifier, real, torch.stack(made), others),
    }

"""Notes on disk as NSynth lays them out: a folder of sound files, and a file that says what each of them is.

Engel et al. 2017, arXiv:1704.01279, § 3. A part of the data set is a folder::

    nsynth-train/examples.json          name of a note to its pitch, velocity, instrument, family and more
                /audio/<name>.wav       the note
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.audio.instantaneous_frequency import HIGH, NoteSpectrum, Second
from fastvoc.checkpoints import InstrumentConfig
from fastvoc.config import config, nearest
from fastvoc.models import GANSynthConfig
from fastvoc.train.data.config import Sources
from fastvoc.train.data.kinds import DATA
from fastvoc.train.data.lists import Recording
from fastvoc.train.data.reading import Unusable, read_recording
from fastvoc.writing import complete_file

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig

_logger = logging.getLogger(__name__)

FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
    *("organ", "reed", "string", "synth_lead", "vocal"),
)
"""Families of instruments; their numbers in examples.json are their places here."""

SOURCES = ("acoustic", "electronic", "synthetic")
"""How sounds were made; their numbers are their places, too."""

EXAMPLES, AUDIO = "examples.json", "audio"

_LARGEST = 1 << 30
"""Bytes of an examples.json; NSynth's own has less than 200 MB."""


def _names(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


@DATA.add
@config
class NoteDataConfig:
    """Notes in NSynth's layout, and what is shown of them to the networks."""

    kind: Literal["notes"] = "notes"

    recordings: Sources
    """To train on: folders with an examples.json, of whose notes those are taken whose pitches the generator plays."""

    families: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)] = FAMILIES
    """Of the instruments whose notes are taken."""

    sources: Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)] = SOURCES
    """Of the instruments whose notes are taken; "acoustic" are those of GANSynth's paper."""

    validation: Sources = ()
    """To validate on: folders like those of `recordings`."""

    held_out: int = Field(4, ge=0)
    """Notes taken out of `recordings`, evenly over their order, to validate on; only where `validation` is empty."""

    validation_clips: PositiveInt = 8
    """Most notes that are validated on; of more, that many are taken evenly over their order."""

    peak: float | None = Field(None, gt=0, le=1)
    """Largest magnitude that each note is scaled to; None keeps its level."""

    spectrum: NoteSpectrum = HIGH
    """What pictures of the notes are of."""

    bands: Literal["mel", "linear"] = "mel"
    """Of the pictures."""

    second: Second = "frequency"
    """What their second layer holds: instantaneous frequency, or phase."""

    workers: int = Field(2, ge=0, le=256)
    """Processes that read ahead; 0 reads in the training process itself. Has no influence on the samples."""

    cache: float = Field(1.0, ge=0)
    """Decoded notes that are kept in memory, in GB, all workers of a process together; 0 keeps none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.recordings:
            raise ValueError("recordings is empty; name a folder of notes")
        _refuse_unknown(self.families, FAMILIES, "family")
        _refuse_unknown(self.sources, SOURCES, "source")
        return self

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if a run of notes trains something else than an instrument."""
        if not isinstance(run.generator, GANSynthConfig):
            raise ValueError(f"generator {run.generator.kind} does not play notes; data of kind notes trains gansynth")
        if run.mel is not None or run.loss_mel is not None:
            raise ValueError("what learns from notes is fed pitches; leave out mel and loss_mel")
        self.settings(run)

    def settings(self, run: TrainConfig) -> InstrumentConfig:
        """Return the settings that a run saves with its weights, or raise one sentence if its pictures do not fit."""
        generator: Any = run.generator
        return InstrumentConfig(
            generator=generator, spectrum=self.spectrum, mel=self.bands == "mel", second=self.second
        )


@dataclass(frozen=True)
class NoteFile:
    """A note on disk.

    Attributes
    ----------
    path : Path
        Of its sound.
    pitch, velocity : int
        MIDI numbers.
    instrument : str
        Such as ``"flute_acoustic_002"``.
    family : str
        One of `FAMILIES`.
    source : str
        One of `SOURCES`.
    """

    path: Path
    pitch: int
    velocity: int
    instrument: str
    family: str
    source: str

    @property
    def name(self) -> str:
        """Of the note, which says all about it, such as ``"flute_acoustic_002-060-100"``."""
        return f"{self.instrument}-{self.pitch:03d}-{self.velocity:03d}"


def seed_of_instrument(name: str) -> int:
    """Return the seed of the point of timbre that belongs to an instrument of a data set, by its name.

    `fastvoc.Instrument.timbre` draws the point of it, around which task ``notes`` with `regression` learns the
    instrument.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def read_notes(
    folder: str | Path,
    *,
    pitches: Collection[int] = range(128),
    families: Collection[str] = FAMILIES,
    sources: Collection[str] = SOURCES,
) -> list[NoteFile]:
    """Find the notes of a folder in NSynth's layout.

    Parameters
    ----------
    folder : str or Path
        With examples.json and audio/ in it.
    pitches : collection of int
        MIDI numbers of the notes that are wanted, such as ``range(24, 85)``.
    families, sources : collection of str
        Of the instruments that are wanted.

    Returns
    -------
    list of NoteFile
        By their names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a note that it lists has no sound file.
    ValueError
        If examples.json cannot be read or lacks what a note needs, a family or source is not known, or no note is
        left.
    """
    _refuse_unknown(families, FAMILIES, "family")
    _refuse_unknown(sources, SOURCES, "source")
    folder = Path(folder)
    examples = _examples(folder / EXAMPLES)
    found = [_note(name, entry, folder) for name, entry in sorted(examples.items())]
    notes = [note for note in found if note.pitch in pitches and note.family in families and note.source in sources]
    if not notes:
        among = f"pitches {min(pitches)} to {max(pitches)}, families {', '.join(families)}" if pitches else "no pitches"
        raise ValueError(f"{folder}: none of its {len(found)} notes is wanted ({among}, {', '.join(sources)})")
    missing = [note for note in notes if not note.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0].path}: no such file; {EXAMPLES} lists it, and {len(missing)} in all are missing"
        )
    return notes


def read_note(note: NoteFile, sample_rate: int, samples: int, *, peak: float | None = None) -> Tensor:
    """Read the sound of a note, (samples,), float32: cut behind its end, or followed by silence.

    Raises
    ------
    Unusable
        If it is not a readable sound file, is silent throughout, or holds values that are not finite.
    """
    wave, _ = read_recording(Recording(str(note.path)), sample_rate, peak=peak)
    return whole_note(wave, samples)


def read_all(
    notes: Sequence[NoteFile], sample_rate: int, samples: int, *, peak: float | None = None
) -> list[tuple[NoteFile, Tensor]]:
    """Read the sounds of notes, but for those that cannot be used, such as silent ones, which a warning counts.

    Raises
    ------
    ValueError
        If none can be used.
    """
    found, reasons = [], []
    for note in notes:
        try:
            found.append((note, read_note(note, sample_rate, samples, peak=peak)))
        except Unusable as error:
            reasons.append(str(error))
    if notes and not found:
        raise ValueError(f"none of {len(notes)} notes can be used: {reasons[0]}")
    if reasons:
        _logger.warning("%d of %d notes are left out, such as %s", len(reasons), len(notes), reasons[0])
    return found


def whole_note(wave: Tensor, samples: int) -> Tensor:
    """Cut a note behind its end, or let silence follow it: (T,) → (samples,)."""
    return F.pad(wave[:samples], (0, max(0, samples - len(wave))))


def write_examples(folder: Path, notes: Sequence[NoteFile], *, sample_rate: int) -> None:
    """Write examples.json of notes whose sounds are there already."""
    instruments = {name: number for number, name in enumerate(sorted({note.instrument for note in notes}))}
    examples = {
        note.name: {
            "note": number,
            "note_str": note.name,
            "instrument": instruments[note.instrument],
            "instrument_str": note.instrument,
            "pitch": note.pitch,
            "velocity": note.velocity,
            "sample_rate": sample_rate,
            "instrument_family": FAMILIES.index(note.family),
            "instrument_family_str": note.family,
            "instrument_source": SOURCES.index(note.source),
            "instrument_source_str": note.source,
            "qualities": [0] * 10,
            "qualities_str": [],
        }
        for number, note in enumerate(notes)
    }
    with complete_file(folder / EXAMPLES) as partial:
        partial.write_text(json.dumps(examples, indent=1) + "\n", encoding="utf-8")


def _refuse_unknown(wanted: Collection[str], known: Collection[str], what: str) -> None:
    for name in wanted:
        if name not in known:
            raise ValueError(f"{name!r} is no {what} of instruments; {nearest(name, list(known))}")


def _examples(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; notes are read as NSynth lays them out, {EXAMPLES} with {AUDIO}/ beside it, "
            "such as fastvoc notes render makes them"
        )
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, more than any list of notes")
    try:
        examples = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a readable JSON file: {' '.join(str(error).split())}") from None
    if not isinstance(examples, dict) or not all(isinstance(entry, dict) for entry in examples.values()):
        raise ValueError(f"{path}: is no list of notes; it must be a table of names, each with a table")
    return examples


def _note(name: str, entry: Mapping[str, Any], folder: Path) -> NoteFile:
    where = f"{folder / EXAMPLES}: {name}"
    entry = {"instrument_str": name.rpartition("-")[0], **entry}
    texts = ("instrument_str", "instrument_family_str", "instrument_source_str")
    for key, kind in {"pitch": int, "velocity": int, **dict.fromkeys(texts, str)}.items():
        if type(entry.get(key)) is not kind:
            raise ValueError(f"{where}: {key} is {entry.get(key)!r}; it must be of type {kind.__name__}")
    for key in ("pitch", "velocity"):
        if not 0 <= entry[key] <= 127:
            raise ValueError(f"{where}: {key} is {entry[key]}; a MIDI number is between 0 and 127")
    if Path(name).name != name or name in (".", ".."):
        raise ValueError(f"{where}: is no name of a file in {AUDIO}/")
    return NoteFile(
        folder / AUDIO / f"{name}.wav",
        entry["pitch"],
        entry["velocity"],
        entry["instrument_str"],
        entry["instrument_family_str"],
        entry["instrument_source_str"],
    )

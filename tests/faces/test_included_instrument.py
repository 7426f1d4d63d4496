"""The instrument that comes with the package: small, and its notes have the pitches that they should have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastvoc
from fastvoc import Instrument
from fastvoc.audio import read_audio
from fastvoc.audio.files.melody import Note
from fastvoc.audio.partials import hertz_of_pitch, strongest_pitch
from fastvoc.cli import main
from fastvoc.train.config import load_config
from fastvoc.train.data.notes import seed_of_instrument

ASSETS = Path(fastvoc.__file__).parent / "assets" / "instrument"
PITCHES = list(range(48, 73))


@pytest.fixture(scope="module")
def synth() -> Instrument:
    return Instrument.from_pretrained()


def named(waves: Tensor, pitches: list[int]) -> float:
    """The share of notes whose strongest partials are of their own pitch, among those of four octaves."""
    return float((strongest_pitch(waves, 8000, range(36, 85)) == torch.tensor(pitches)).float().mean())


def test_it_is_small_and_what_the_recipe_trains(synth: Instrument) -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 5e6
    recipe = load_config("gansynth-regression", {"data.recordings": "x"})
    assert recipe.data.settings(recipe) == synth.config  # type: ignore[union-attr]
    assert (synth.lowest, synth.highest, synth.sample_rate, synth.samples) == (48, 72, 8000, 16384)
    opened = fastvoc.open("instrument")
    assert type(opened) is Instrument and torch.equal(opened(60), synth(60))


@pytest.mark.parametrize("seed", range(4))
def test_notes_of_any_timbre_have_their_pitches(synth: Instrument, seed: int) -> None:
    notes = synth(PITCHES, seed=seed)
    assert notes.shape == (25, 16384) and named(notes, PITCHES) >= 0.95
    assert torch.equal(notes[12], synth(60, seed=seed))
    # a semitone beside or an octave away would be noticed
    assert named(notes, [pitch + 1 for pitch in PITCHES]) < 0.1 and named(notes, [p + 12 for p in PITCHES]) < 0.1
    assert float(notes.abs().amax(dim=1).min()) > 0.1 and bool(notes.isfinite().all())


def test_timbres_between_two_have_pitches_too(synth: Instrument) -> None:
    way = synth.interpolate(synth.timbre(3), synth.timbre(5), torch.linspace(0, 1, 25))
    assert named(synth(PITCHES, way), PITCHES) >= 0.95


@pytest.mark.parametrize("name", ["flute_acoustic_073", "string_acoustic_040", "brass_acoustic_056"])
def test_an_instrument_that_it_has_learned_has_a_point(synth: Instrument, name: str) -> None:
    own = synth.timbre(seed_of_instrument(name))
    notes = synth(PITCHES, own)
    assert named(notes, PITCHES) >= 0.95
    # most of what sounds lies at the partials
    shares = []
    for pitch, note in zip(PITCHES, notes, strict=True):
        power = torch.fft.rfft(note[1600:14400] * torch.hann_window(12800)).abs().square()
        place = torch.arange(len(power)) * 8000 / 12800 / hertz_of_pitch(pitch)
        near = ((place - place.round()).abs() * hertz_of_pitch(pitch) < 15) & (place > 0.5)
        shares.append(float(power[near].sum() / power.sum()))
    assert sorted(shares)[12] > 0.9


def test_melodies_and_files_need_no_name(synth: Instrument, tmp_path: Path) -> None:
    wave = synth.melody([Note(60, 0.0, 0.8), Note(67, 1.0, 1.8)], synth.timbre([1, 2]))
    assert named(torch.stack([wave[800:6400], wave[8800:14400]]), [60, 67]) == 1
    assert main(["note", "--pitch", "60,64", "--seed", "3", "--device", "cpu", "--out", str(tmp_path)]) == 0
    for pitch in (60, 64):
        written, rate = read_audio(tmp_path / f"seed-3-pitch-0{pitch}.wav")
        assert rate == 8000 and named(written[None], [pitch]) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--pitch", "200"], "--pitch 200: 200 is beyond the instrument, which plays 48..72"),
        (["--pitch", "40..50"], "--pitch 40..50: 40 is beyond the instrument, which plays 48..72"),
        (["--pitch", "C4"], "--pitch C4: expected MIDI numbers, such as 60, 24..84 or 60,64,67"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
        (["--instrument", "default"], "--instrument default: holds 'griffin-lim-net', which is for Vocoder"),
        (["--instrument", "nowhere"], "nowhere"),
    ],
)
def test_what_it_does_not_play_is_a_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["note", *options, "--device", "cpu", "--out", str(tmp_path / "out")]) != 0
    said = capsys.readouterr().err
    assert sentence in said.replace("\n", " ") and "Traceback" not in said
    assert not (tmp_path / "out").exists()

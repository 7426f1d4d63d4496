"""Notes on disk: what is rendered, how NSynth's layout is read, and what is said of instruments beside them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastvoc
from fastvoc.audio import read_audio, write_audio
from fastvoc.audio.files.melody import read_midi
from fastvoc.audio.instantaneous_frequency import NoteSpectrum
from fastvoc.audio.pitch import pitch
from fastvoc.checkpoints import Checkpoint, InstrumentConfig
from fastvoc.cli import main
from fastvoc.models import GANSynthConfig
from fastvoc.train.data import rendering
from fastvoc.train.data.notes import NoteDataConfig, NoteFile, read_all, read_note, read_notes, write_examples
from fastvoc.train.data.rendering import PROGRAMS, find_player, find_soundfont, is_for_tests, midi_file, render_notes
from fastvoc.train.evaluation import evaluate_instrument
from fastvoc.train.report.note_scores import (
    different_bins,
    frechet_distance,
    inception_score,
    mean_entropy,
    train_classifier,
)

PLAYABLE = shutil.which("fluidsynth") is not None and any(path.is_file() for path in rendering.SOUNDFONTS)


def hertz(number: int) -> float:
    return float(440 * 2 ** ((number - 69) / 12))


def played(player: str, font: Path, midi: bytes) -> Tensor:
    """What FluidSynth would make of one of our files: a decaying tone every five seconds."""
    track = midi[midi.index(b"MTrk") :]
    notes = [track[place + 1] for place in range(len(track) - 2) if track[place] == 0x90]
    time = torch.arange(80000) / 16000
    return torch.cat([0.5 * torch.sin(2 * math.pi * hertz(note) * time) * torch.exp(-time) for note in notes])


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three notes of each of five instruments, by a player of our own."""
    font = tmp_path / "a.sf2"
    font.write_bytes(b"RIFF")
    monkeypatch.setattr(rendering, "find_player", lambda: "player")
    monkeypatch.setattr(rendering, "play", played)
    made = render_notes(
        tmp_path / "notes", pitches=(60, 48, 61), velocities=(100,), programs=(0, 11, 24, 40, 73), soundfont=font
    )
    assert made == {"nsynth-train": 12, "nsynth-test": 3}
    return tmp_path / "notes"


def test_a_data_set_is_laid_out_as_nsynth_is(
    rendered: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    examples = json.loads((rendered / "nsynth-train" / "examples.json").read_text())
    assert len(examples) == 12
    entry = examples["mallet_acoustic_011-060-100"]
    assert (entry["pitch"], entry["velocity"], entry["sample_rate"]) == (60, 100, 16000)
    assert (entry["instrument_family"], entry["instrument_family_str"], entry["instrument_source"]) == (5, "mallet", 0)
    # whole instruments are set apart: no instrument is in both parts
    apart = json.loads((rendered / "nsynth-test" / "examples.json").read_text())
    assert {entry["instrument_str"] for entry in apart.values()} == {"guitar_acoustic_024"}
    wave, rate = read_audio(rendered / "nsynth-train" / "audio" / "string_acoustic_040-048-100.wav")
    assert rate == 16000 and wave.shape == (64000,)
    expected = 0.5 * torch.sin(2 * math.pi * hertz(48) * torch.arange(64000) / 16000)
    torch.testing.assert_close(wave, expected * torch.exp(-torch.arange(64000) / 16000), rtol=0, atol=2 / 32768)
    # what is there is not played again, unless that is asked for
    monkeypatch.setattr(rendering, "play", lambda *_: pytest.fail("played again"))
    again = {"pitches": (60,), "velocities": (100,), "programs": (0, 11, 24, 40, 73)}
    assert render_notes(rendered, **again, soundfont=rendered.parent / "a.sf2") == {"nsynth-train": 4, "nsynth-test": 1}
    assert "5 of 5 instruments are not played again" in caplog.text


def test_a_fifth_of_all_instruments_is_for_tests() -> None:
    apart = [program for program in PROGRAMS if is_for_tests(program, PROGRAMS)]
    assert len(apart) == 10 and len(PROGRAMS) == 51
    assert len({PROGRAMS[program] for program in apart}) >= 6  # of many families


def test_the_midi_file_says_what_is_to_be_played(tmp_path: Path) -> None:
    path = tmp_path / "notes.mid"
    path.write_bytes(midi_file(40, [(24, 25), (60, 127), (84, 100)]))
    notes = read_midi(path)
    assert [(note.pitch, note.velocity) for note in notes] == [(24, 25), (60, 127), (84, 100)]
    assert [note.start for note in notes] == pytest.approx([0, 5, 10])
    assert [note.end - note.start for note in notes] == pytest.approx([3, 3, 3])


@pytest.mark.skipif(not PLAYABLE, reason="needs FluidSynth and FluidR3")
def test_what_fluidsynth_plays_has_the_pitch_and_begins_at_once(tmp_path: Path) -> None:
    made = render_notes(tmp_path, pitches=(57, 60), velocities=(100,), programs=(40, 73))
    assert made == {"nsynth-train": 4}
    for note in read_notes(tmp_path / "nsynth-train"):
        wave, rate = read_audio(note.path)
        found = pitch(wave[4000:40000], rate)
        assert float(np.median(found.hertz[found.periodicity > 0.8])) == pytest.approx(hertz(note.pitch), rel=0.01)
        assert int((wave.abs() > 1e-3).nonzero()[0]) < 800 and 0.1 < float(wave.abs().max()) < 1


def test_what_is_missing_for_rendering_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt install fluidsynth fluid-soundfont-gm"):
        find_player()
    assert main(["notes", "render", str(tmp_path / "notes")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "notes").exists()
    monkeypatch.setattr(rendering, "SOUNDFONTS", (tmp_path / "FluidR3_GM.sf2",))
    with pytest.raises(FileNotFoundError, match=r"FluidR3_GM\.sf2: no such file; install FluidR3"):
        find_soundfont(None)
    with pytest.raises(FileNotFoundError, match="expected a soundfont"):
        find_soundfont(tmp_path / "other.sf2")
    for values, sentence in (
        ({"pitches": (128,)}, "pitch 128; a MIDI number is between 0 and 127"),
        ({"velocities": (0,)}, "velocity 0; a MIDI number is between 1 and 127"),
        ({"programs": (4,)}, "program 4 is none of an acoustic instrument"),
        ({"pitches": ()}, "there are no notes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            render_notes(tmp_path, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said", ["Failed to load the SoundFont", "Instrument not found [prog=40], substituted [prog=0]"]
)
def test_no_other_instrument_is_played_instead(tmp_path: Path, said: str) -> None:
    """FluidSynth itself takes both for a success."""
    player = tmp_path / "player"
    # writes the sound that comes after -F, and has no error
    player.write_text(f'#!/bin/sh\necho "{said}" >&2\nwhile [ "$1" != -F ]; do shift; done\ncp {tmp_path}/a.wav "$2"\n')
    player.chmod(0o755)
    write_audio(tmp_path / "a.wav", torch.full((100,), 0.5), 16000)
    with pytest.raises(ValueError, match=r"has failed to play a\.sf2: (Failed|Instrument)"):
        rendering.play(str(player), Path("a.sf2"), midi_file(40, [(60, 100)]))


@pytest.mark.skipif(not PLAYABLE, reason="needs FluidSynth and FluidR3")
def test_a_file_that_is_no_soundfont_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.sf2").write_bytes(b"RIFF" + bytes(range(256)))
    command = ["notes", "render", str(tmp_path / "notes"), "--soundfont", str(tmp_path / "bad.sf2"), "--program", "0"]
    assert main([*command, "--pitch", "60", "--velocity", "100"]) == 1
    assert "has failed to play" in capsys.readouterr().err and not (tmp_path / "notes").exists()


def test_no_instrument_stays_in_the_part_where_it_was(rendered: Path) -> None:
    again = {"pitches": (60,), "velocities": (100,), "soundfont": rendered.parent / "a.sf2"}
    assert render_notes(rendered, programs=(24,), **again) == {"nsynth-train": 1}
    assert [note.instrument for note in read_notes(rendered / "nsynth-train")] == ["guitar_acoustic_024"]
    with pytest.raises(FileNotFoundError, match=r"nsynth-test/examples\.json: no such file"):
        read_notes(rendered / "nsynth-test")


def test_a_player_that_fails_is_named_with_what_it_says(tmp_path: Path) -> None:
    player = tmp_path / "player"
    player.write_text("#!/bin/sh\necho no such font >&2\nexit 3\n")
    player.chmod(0o755)
    with pytest.raises(ValueError, match=r"player: has failed to play a\.sf2: no such font"):
        rendering.play(str(player), Path("a.sf2"), midi_file(0, [(60, 100)]))


def test_notes_are_chosen_by_pitch_family_and_source(rendered: Path) -> None:
    folder = rendered / "nsynth-train"
    assert len(read_notes(folder)) == 12
    assert {note.pitch for note in read_notes(folder, pitches=range(24, 61))} == {48, 60}
    assert {note.instrument for note in read_notes(folder, families=("flute", "mallet"))} == {
        "flute_acoustic_073",
        "mallet_acoustic_011",
    }
    note = read_notes(folder)[0]
    assert note.name == note.path.stem == "flute_acoustic_073-048-100"
    assert read_note(note, 8000, 1000).shape == (1000,) and not read_note(note, 8000, 40000)[32000:].any()
    assert float(read_note(note, 16000, 64000, peak=0.25).abs().max()) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="none of its 12 notes is wanted"):
        read_notes(folder, sources=("synthetic",))
    with pytest.raises(ValueError, match="'mallets' is no family of instruments; did you mean 'mallet'"):
        read_notes(folder, families=("mallets",))
    note.path.unlink()
    with pytest.raises(FileNotFoundError, match=r"073-048-100\.wav: no such file; examples\.json lists it, and 1 in"):
        read_notes(folder)
    with pytest.raises(FileNotFoundError, match="such as fastvoc notes render makes them"):
        read_notes(rendered)


@pytest.mark.parametrize(
    ("name", "entry", "sentence"),
    [
        ("a", None, "is no list of notes"),
        ("a", {}, "a: pitch is None; it must be of type int"),
        ("a", {"pitch": True}, "pitch is True; it must be of type int"),
        (
            "a",
            {"pitch": 128, "velocity": 1, "instrument_family_str": "reed", "instrument_source_str": "acoustic"},
            "pitch is 128",
        ),
        ("a", {"pitch": 60, "velocity": 1}, "instrument_family_str is None"),
        (
            "../a",
            {"pitch": 6, "velocity": 1, "instrument_family_str": "reed", "instrument_source_str": "acoustic"},
            "is no name of a",
        ),
        (
            "a",
            {"pitch": 60, "velocity": -1, "instrument_family_str": "reed", "instrument_source_str": "acoustic"},
            "velocity is -1; a MIDI number",
        ),
        ("a", {"pitch": 60, "velocity": 1, "instrument_str": ["x"]}, r"instrument_str is \['x'\]"),
        ("a", "[" * 200000, "not a readable JSON file: maximum recursion depth"),
    ],
)
def test_lists_that_are_none_are_a_sentence(tmp_path: Path, name: str, entry: Any, sentence: str) -> None:
    text = entry if isinstance(entry, str) else json.dumps({name: entry})
    (tmp_path / "examples.json").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_notes(tmp_path)


def test_notes_that_are_silent_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tones(tmp_path / "data", (1.0,))
    notes = read_notes(folder)
    write_audio(notes[3].path, torch.zeros(1000), 4000)
    read = read_all(notes, 4000, 1000)
    assert [note for note, _ in read] == notes[:3] + notes[4:]
    assert "1 of 12 notes are left out, such as" in caplog.text and "is silent" in caplog.text
    with pytest.raises(ValueError, match=r"none of 1 notes can be used: .* is silent"):
        read_all(notes[3:4], 4000, 1000)


def test_data_of_notes_is_a_value() -> None:
    data = NoteDataConfig(recordings="notes", families="reed")
    assert data.recordings == ("notes",) and data.families == ("reed",)
    with pytest.raises(ValueError, match="recordings is empty"):
        NoteDataConfig(recordings=())


def test_cells_whose_shares_differ_are_counted() -> None:
    """Two cells of equal shares; of the others, 0.5 and 0.9 of a hundred in the first."""
    real = torch.cat([torch.zeros(100, 2), torch.ones(100, 2)])
    assert different_bins(real, real, bins=2) == 0
    assert different_bins(real, torch.cat([torch.zeros(55, 2), torch.ones(45, 2)]), bins=2) == 0
    assert different_bins(real, torch.cat([torch.zeros(90, 2), torch.ones(10, 2)]), bins=2) == 2
    # three far-off groups, one of which is missed
    groups = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + 10 * torch.eye(3, 4).repeat(30, 1)
    assert different_bins(groups, groups[torch.arange(90) % 3 != 0], bins=3) == 3
    with pytest.raises(ValueError, match="bins is 91; it must be from 1 to the number of real notes, 90"):
        different_bins(groups, groups, bins=91)


def test_the_distance_of_two_normal_distributions() -> None:
    """Diagonal covariances: the sum of (m₁ - m₂)² + (s₁ - s₂)² over axes."""
    ring = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert frechet_distance(ring, ring) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(ring, ring + torch.tensor([3.0, 4.0])) == pytest.approx(25)
    variance = 2 / 3  # of each axis, without a bias
    wide = frechet_distance(ring, ring * torch.tensor([2.0, 3.0]) + 1)
    assert wide == pytest.approx(2 + variance * (1 + 4))
    with pytest.raises(ValueError, match="a covariance needs two notes"):
        frechet_distance(ring[:1], ring)
    # of fewer notes than axes, whose covariances have no inverse, beside the root of the product itself
    some = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    other = 1.5 * torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.3
    shared = torch.linalg.eigvals(torch.cov(some.T) @ torch.cov(other.T)).real.clamp(min=0).sqrt().sum()
    expected = (some.mean(0) - other.mean(0)).square().sum() + some.var(0).sum() + other.var(0).sum() - 2 * shared
    assert frechet_distance(some, other) == pytest.approx(float(expected), abs=1e-6)


def test_broken_notes_have_no_scores() -> None:
    notes, broken = torch.rand(20, 4), torch.rand(20, 4)
    broken[3, 1] = math.nan
    for compare in (frechet_distance, lambda one, other: different_bins(one, other, bins=4)):
        for pair in ((notes, broken), (broken, notes)):
            with pytest.raises(ValueError, match="1 of 20 notes hold values that are not finite"):
                compare(*pair)
    with pytest.raises(ValueError, match="there are no notes"):
        different_bins(notes, notes[:0], bins=4)
    with pytest.raises(ValueError, match="there are no notes"):
        inception_score(notes[:0])


def test_scores_of_what_a_classifier_says() -> None:
    sure, blind = 100 * torch.eye(4), torch.zeros(6, 4)
    assert inception_score(sure) == pytest.approx(4) and mean_entropy(sure) == pytest.approx(0, abs=1e-12)
    assert inception_score(blind) == pytest.approx(1) and mean_entropy(blind) == pytest.approx(math.log(4))
    assert inception_score(sure[:1].repeat(5, 1)) == pytest.approx(1)
    # of classes that no note is of, however sure that is
    assert inception_score(1e4 * torch.eye(4)[:3]) == pytest.approx(3)
    assert math.copysign(1, mean_entropy(1e4 * torch.eye(4))) == 1
    half = torch.tensor([[0.0, 0.0, -100, -100], [-100, -100, 0, 0]])
    assert inception_score(half) == pytest.approx(2) and mean_entropy(half) == pytest.approx(math.log(2))


def test_a_classifier_learns_where_partials_lie_and_leaves_no_trace() -> None:
    pictures = torch.zeros(8, 1, 4, 32)
    number = torch.arange(4).repeat(2)
    for row in range(8):
        pictures[row, 0, :, 4 + 6 * (row % 4)] = 1
    before = torch.get_rng_state()
    classifier = train_classifier(pictures, number, 4, steps=60, batch=8)
    assert torch.equal(before, torch.get_rng_state())
    features, logits = classifier(pictures)
    assert features.shape == (8, 64) and torch.equal(logits.argmax(dim=1), number)
    assert torch.equal(train_classifier(pictures, number, 4, steps=60, batch=8)(pictures)[1], logits)
    torch.set_default_dtype(torch.float64)
    try:  # nor does what surrounds it reach into it
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            again = train_classifier(pictures, number, 4, steps=60, batch=8)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(again(pictures)[1], logits)


SPECTRUM = NoteSpectrum(samples=1000, frames=16, fft_size=256, hop=64, sample_rate=4000)


def tones(folder: Path, decays: tuple[float, ...]) -> Path:
    """Twelve pitches of instruments that decay otherwise."""
    time, notes = torch.arange(1000) / 4000, []
    (folder / "audio").mkdir(parents=True)
    for number, decay in enumerate(decays):
        for note in range(60, 72):
            name = f"mallet_acoustic_{number:03d}"
            path = folder / "audio" / f"{name}-{note:03d}-100.wav"
            partials = [torch.sin(2 * math.pi * k * hertz(note) * time) / k**decay for k in (1, 2, 3)]
            write_audio(path, 0.2 * torch.stack(partials).sum(dim=0) * torch.exp(-decay * time), 4000)
            notes.append(NoteFile(path, note, 100, name, "mallet", "acoustic"))
    write_examples(folder, notes, sample_rate=4000)
    return folder


def test_an_instrument_is_judged_beside_real_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, apart = tones(tmp_path / "data", (0.5, 1.0, 2.0)), tones(tmp_path / "apart", (1.5,))
    config = InstrumentConfig(
        generator=GANSynthConfig(latent=8, lowest_pitch=60, pitches=12, first=(2, 16), channels=(8, 8, 4, 4)),
        spectrum=SPECTRUM,
        mel=False,
    )
    torch.manual_seed(0)
    instrument = fastvoc.Instrument(Checkpoint(config, config.generator.build().state_dict(), "test"))
    found = evaluate_instrument(instrument, data, apart, peak=0.5)
    assert found["learned from"].accuracy == 1 and found["learned from"].different_bins == 0
    assert found["learned from"].frechet == pytest.approx(0, abs=1e-6) and found["learned from"].inception > 11
    assert found["held out"].accuracy > 0.9 and found["held out"].entropy < 1
    assert found["learned from"].strongest == 1 and found["held out"].strongest == 1
    # first weights play no pitch
    assert found["made"].strongest < 0.4
    assert found["made"].accuracy < 0.4 and found["made"].frechet > 3 * found["held out"].frechet
    assert found["made"].different_bins > found["held out"].different_bins
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert evaluate_instrument(instrument, data, apart, peak=0.5) == found
    few = evaluate_instrument(instrument, data, apart, peak=0.5, most=10)
    assert "data: 10 of its 36 notes are taken" in caplog.text and few["held out"].bins == 2
    assert found["held out"].bins == 7
    tones(tmp_path / "one", (1.0,))
    write_examples(tmp_path / "one", read_notes(tmp_path / "one")[:1], sample_rate=4000)
    with pytest.raises(ValueError, match="one: has one note that the instrument can play; what is measured needs two"):
        evaluate_instrument(instrument, data, tmp_path / "one")
    for peak in (0.0, -1.0, math.nan, 2.0):
        with pytest.raises(ValueError, match="it must be above 0, and 1 at most"):
            evaluate_instrument(instrument, data, apart, peak=peak)
    instrument.save_pretrained(tmp_path / "mine")
    options = ["--instrument", str(tmp_path / "mine"), "--device", "cpu", "--peak", "0.5"]
    assert main(["notes", "evaluate", *options, "--data", str(data), "--held-out", str(apart)]) == 0
    printed = capsys.readouterr().out
    assert "Fréchet distance" in printed and "strongest partials" in printed
    assert f"{100 * found['held out'].accuracy:.1f} %" in printed
    with torch.no_grad():
        instrument.generator.blocks[3].to_picture.bias.fill_(math.nan)
    with pytest.raises(ValueError, match="pitch 60 of seed 0 is not finite; the instrument's weights are broken"):
        evaluate_instrument(instrument, data, apart)

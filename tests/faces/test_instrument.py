"""Instruments play pitches and timbres, whole melodies of them, and say what they cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import fastvoc
from fastvoc.audio import read_audio
from fastvoc.audio.files.melody import Note, read_midi
from fastvoc.audio.instantaneous_frequency import NoteSpectrum
from fastvoc.checkpoints import Checkpoint, InstrumentConfig
from fastvoc.cli import main
from fastvoc.models import GANSynthConfig, HiFiGANConfig
from fastvoc.noise import last_seeds

CONFIG = InstrumentConfig(
    generator=GANSynthConfig(latent=8, first=(2, 8), channels=(16, 8, 8, 4)),
    spectrum=NoteSpectrum(samples=500, frames=16, fft_size=128, hop=32, sample_rate=1000),
    mel=False,
)


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the other, whose samples are of any size: first weights make loud notes."""
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.fixture
def instrument() -> fastvoc.Instrument:
    torch.manual_seed(0)
    return fastvoc.Instrument(Checkpoint(CONFIG, CONFIG.generator.build().state_dict(), "test"))


def test_pitches_and_timbres_become_waves(instrument: fastvoc.Instrument) -> None:
    wave = instrument(pitch=60, seed=3)
    assert wave.shape == (500,) and wave.dtype == torch.float32 and float(wave.std()) > 0
    assert torch.equal(wave, instrument(60, instrument.timbre(3)))
    assert not torch.equal(wave, instrument(61, seed=3)) and not torch.equal(wave, instrument(60, seed=4))
    scale = instrument(range(24, 85), seed=3)
    assert scale.shape == (61, 500)
    # one timbre over a scale; other sizes of batches are rounded otherwise, which magnitudes multiply by 15 and more
    assert distance(scale[36], wave) < 1e-4
    pair = instrument(torch.tensor([60, 60]), seed=[3, 4])
    assert distance(pair, torch.stack([wave, instrument(60, seed=4)])) < 1e-4
    assert instrument(60, instrument.timbre(3).numpy()).equal(wave)
    fresh = instrument(60, seed=None)
    assert torch.equal(fresh, instrument(60, seed=last_seeds()[0])) and not torch.equal(fresh, wave)


def test_timbres_are_points_on_a_sphere(instrument: fastvoc.Instrument) -> None:
    first, second = instrument.timbre([1, 2])
    assert torch.equal(first, instrument.timbre(1))
    way = instrument.interpolate(first, second, torch.linspace(0, 1, 5))
    torch.testing.assert_close(way[0], first)
    torch.testing.assert_close(way[-1], second)
    unit = torch.stack([first, second]) / torch.stack([first, second]).norm(dim=1, keepdim=True)
    even = instrument.interpolate(unit[0], unit[1], torch.linspace(0, 1, 5))
    steps = (even[1:] * even[:-1]).sum(dim=1).arccos()
    torch.testing.assert_close(even.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(steps, steps[:1].expand(4), rtol=1e-4, atol=0)
    assert instrument.interpolate(first, second).shape == (8,)
    torch.testing.assert_close(instrument.interpolate(first, first, 0.3), first)


def test_a_seed_is_one_timbre_whatever_number_it_is(instrument: fastvoc.Instrument) -> None:
    expected = instrument([60, 62], seed=3)
    for seed in (np.int64(3), torch.tensor(3), np.array(3)):
        assert torch.equal(instrument([60, 62], seed=seed), expected)
        assert torch.equal(instrument.timbre(seed), instrument.timbre(3))
    assert torch.equal(instrument([60, 62], instrument.timbre([3])), expected)
    assert torch.equal(instrument([60, 62], seed=np.array([3, 3])), expected)


def test_points_that_lie_opposite_each_other_have_no_shortest_way(instrument: fastvoc.Instrument) -> None:
    point = instrument.timbre(1)
    for way in (
        lambda: instrument.interpolate(point, -2 * point),
        lambda: instrument.melody([Note(60, 0, 1), Note(60, 1, 2)], torch.stack([point, -point])),
    ):
        with pytest.raises(ValueError, match="two points lie opposite each other"):
            way()
    # and what is not quite opposite keeps its length
    near = -point + 1e-3 * instrument.timbre(2)
    near *= point.norm() / near.norm()
    way = instrument.interpolate(point, near, torch.linspace(0, 1, 9)).norm(dim=1)
    torch.testing.assert_close(way, point.norm().expand(9), rtol=1e-3, atol=0)
    torch.testing.assert_close(instrument.interpolate(point, torch.zeros(8), 0.25), 0.75 * point)


def test_melodies_end_where_their_notes_have_faded(instrument: fastvoc.Instrument) -> None:
    """A note is held for three seconds at most, however long the key is; 0.3 s later it is silent."""
    held = instrument.melody([Note(60, 0, 80000), Note(60, 1, 1.5)], instrument.timbre(1))
    assert held.shape == (3301,)
    notes = (Note(pitch, 0, 1) for pitch in (60, 64))
    assert instrument.melody(notes, instrument.timbre(1)).shape == (1301,)  # type: ignore[arg-type]


def test_float16_plays_what_is_nearly_silent_inside(instrument: fastvoc.Instrument) -> None:
    """Pixel norm makes small features large, though float16 has no squares of them."""
    for block in instrument.generator.blocks:
        for layer in (block.conv0, block.conv1):
            layer.weight.mul_(1e-3)
    expected = instrument(60, seed=1)
    assert distance(instrument.half()(60, seed=1), expected) < 0.05
    loud = 300 * instrument.timbre(1)
    assert distance(instrument(60, loud), instrument.float()(60, loud)) < 0.05


def test_melodies_add_their_notes(instrument: fastvoc.Instrument) -> None:
    point = instrument.timbre(1)
    notes = [Note(60, 0.0, 0.1, 127), Note(64, 1.0, 1.1, 64)]
    wave = instrument.melody(notes, point)
    assert float(wave.abs().max()) == pytest.approx(0.5) and wave.shape == (1402,)
    assert not wave[500:1000].any() and wave[1000:].any() and float(wave[0]) == 0
    alone = instrument.melody(notes[:1], point)
    ratio = wave[100] / alone[100]
    torch.testing.assert_close(wave[:401], alone * ratio, rtol=0, atol=1e-4)
    assert float(wave[1400:].abs().max()) < 1e-12  # 0.3 s behind its end a note is silent
    swapped = instrument.melody(notes[::-1], point)
    torch.testing.assert_close(swapped, wave, rtol=0, atol=1e-4)
    moving = instrument.melody(notes, instrument.timbre([1, 2]))
    torch.testing.assert_close(moving[100] / moving[50], wave[100] / wave[50], rtol=1e-3, atol=0)
    assert not torch.allclose(moving[1000:], wave[1000:], atol=1e-3)
    together = instrument.melody([Note(60, 0, 0.4), Note(64, 0, 0.4)], point)
    one, two = (instrument(pitch, point) for pitch in (60, 64))
    inner = slice(20, 400)
    mixed = (one + two)[inner]
    torch.testing.assert_close(together[inner] / together[30], mixed / (one + two)[30], rtol=0, atol=1e-3)


def test_what_surrounds_a_call_does_not_reach_into_it(instrument: fastvoc.Instrument) -> None:
    expected = instrument(60, seed=1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            made = instrument(60, seed=1)
            melody = instrument.melody([Note(60, 0, 1)], instrument.timbre(1))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made, expected) and melody.dtype == torch.float32 and not expected.requires_grad


@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-4), ("bfloat16", 0.5), ("float16", 0.05)])
def test_in_other_precisions(instrument: fastvoc.Instrument, dtype: str, error: float) -> None:
    expected = instrument([50, 70], seed=1)
    made = instrument.to(dtype=dtype)([50, 70], seed=1)
    assert made.dtype == getattr(torch, dtype)
    # of a phase that is summed over 16 frames; the unit roundoffs are 2^-24, 2^-8 and 2^-11
    assert distance(made, expected) < error


def test_an_instrument_is_saved_and_opened_as_what_it_is(instrument: fastvoc.Instrument, tmp_path: Path) -> None:
    instrument.save_pretrained(tmp_path / "mine")
    again = fastvoc.open(tmp_path / "mine")
    assert type(again) is fastvoc.Instrument and again.config == CONFIG
    assert torch.equal(again([30, 60]), instrument([30, 60]))
    assert type(fastvoc.Instrument.from_pretrained(tmp_path / "mine")) is fastvoc.Instrument
    with pytest.raises(ValueError, match=r"which is for Instrument; fastvoc\.open opens it"):
        fastvoc.Vocoder.from_pretrained(tmp_path / "mine")
    assert repr(again) == "Instrument(gansynth, 1000 Hz, pitches 24 to 84, torch.float32 on cpu)"


def test_what_no_instrument_plays_is_a_sentence(instrument: fastvoc.Instrument) -> None:
    for pitch in (23, 85, -1, 10**30):
        with pytest.raises(ValueError, match="is beyond this instrument, which plays 24 to 84"):
            instrument(pitch)
    for wrong in (60.0, "60", True, None, [60, 61.5]):
        with pytest.raises(TypeError, match="it must be an int, a MIDI number"):
            instrument(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no pitches"):
        instrument([])
    with pytest.raises(ValueError, match=r"z has shape \(7,\); it must be \(8,\) or \(points, 8\)"):
        instrument(60, torch.zeros(7))
    with pytest.raises(ValueError, match="z holds 2 points; it must be one, or one for each of 3 pitches"):
        instrument([60, 61, 62], torch.ones(2, 8))
    with pytest.raises(ValueError, match="not finite"):
        instrument(60, torch.full((8,), np.nan))
    with pytest.raises(TypeError, match="must be floating point"):
        instrument(60, torch.ones(8, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        instrument.interpolate(instrument.timbre(1), instrument.timbre(2), 1.5)
    with pytest.raises(ValueError, match="each must be"):
        instrument.interpolate(instrument.timbre([1, 2]), instrument.timbre(2))
    with pytest.raises(TypeError, match="fraction is 'half'; it must be a number"):
        instrument.interpolate(instrument.timbre(1), instrument.timbre(2), "half")  # type: ignore[arg-type]
    for large in (torch.full((8,), 1e300, dtype=torch.float64), torch.full((8,), 1e30)):
        with pytest.raises(ValueError, match="not finite, or too large to be squared in float32"):
            instrument(60, large)
    for wrong in (1.5, "3"):
        with pytest.raises(TypeError, match=r"Instrument\.timbre: seed .* must be an int"):
            instrument.timbre(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'x' is a str; it must be a Note"):
        instrument.melody(["x"], instrument.timbre(1))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="start is '0', a str; it must be a number"):
        Note(60, "0", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are no notes"):
        instrument.melody([], instrument.timbre(1))
    with pytest.raises(ValueError, match="longer than a day"):
        instrument.melody([Note(60, 1e9, 1e9)], instrument.timbre(1))
    with pytest.raises(ValueError, match="velocity is 0"):
        Note(60, 0, 1, 0)
    with pytest.raises(ValueError, match="must start at 0 s or later"):
        Note(60, 2, 1)
    with pytest.raises(TypeError, match=r"must be a fastvoc\.models\.GANSynth"):
        instrument.generator = HiFiGANConfig().build()


def test_another_network_is_played_once_it_is_there(instrument: fastvoc.Instrument) -> None:
    before = instrument(60)
    with torch.no_grad():
        instrument.generator.blocks[0].conv0.weight.mul_(-1)
    assert not torch.equal(instrument(60), before)
    with pytest.raises(ValueError, match="latent 9; in this instrument it must be 8"):
        instrument.generator = GANSynthConfig(latent=9, first=(2, 8), channels=(16, 8, 8, 4)).build()


def test_weights_are_prepared_once_until_they_change(instrument: fastvoc.Instrument) -> None:
    instrument(60)
    kept = instrument._taps()
    assert instrument._taps() is kept
    assert instrument.to(dtype="float64")._taps()[0].dtype == torch.float64
    kept = instrument.to(dtype="float32")._taps()
    changed = instrument.generator.blocks[1].conv0.weight
    with torch.no_grad():
        changed[0, 0, 0, 0] += 1
    wave = instrument(60)
    assert instrument._taps() is not kept
    state = {name: value.clone() for name, value in instrument.generator.state_dict().items()}
    assert torch.equal(wave, fastvoc.Instrument(Checkpoint(CONFIG, state, "changed"))(60))


def saved(instrument: fastvoc.Instrument, folder: Path) -> str:
    instrument.save_pretrained(folder)
    return str(folder)


def test_the_command_line_plays_scales(
    instrument: fastvoc.Instrument, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(instrument, tmp_path / "mine"), tmp_path / "scale"
    options = ["--instrument", path, "--device", "cpu", "--out", str(out)]
    command = ["note", "--pitch", "24..27,60", "--seed", "3", *options]
    assert main(command) == 0
    names = [f"seed-3-pitch-{pitch:03d}.wav" for pitch in (24, 25, 26, 27, 60)]
    assert sorted(file.name for file in out.iterdir()) == names
    wave, rate = read_audio(out / names[-1])
    expected = instrument(60, seed=3)
    expected = expected / expected.abs().max().clamp(min=1)
    assert rate == 1000 and float((wave - expected).abs().max()) < 1e-3
    assert main(command) == 0 and "0 written" in capsys.readouterr().out
    for wrong in ("84..24", "x", "24..", "60,,61", "24..200", "1000"):
        assert main(["note", "--pitch", wrong, *options]) == 2
        assert "--pitch" in capsys.readouterr().err
    vocoder = ["note", "--instrument", "default", "--device", "cpu", "--out", str(out)]
    assert main(vocoder) == 2 and "which is for Vocoder" in capsys.readouterr().err


def test_the_command_line_tells_what_an_instrument_is(
    instrument: fastvoc.Instrument, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", saved(instrument, tmp_path / "mine")]) == 0
    printed = capsys.readouterr().out
    count = sum(value.numel() for value in instrument.generator.parameters())
    for fact in (f"{count:,}", "1000 Hz", f"{instrument.samples} samples", "24 to 84"):
        assert fact in printed


def midi(path: Path, *, drums: bool = False) -> None:
    """Write a file of half-second notes: C and E together, then G, then one that nothing ends, and one too high."""
    channel = 9 if drums else 0
    # at 120 beats a minute and 96 ticks a beat, 96 ticks are half a second
    events = b"".join(
        bytes([ticks, status | channel, pitch, velocity])
        for ticks, status, pitch, velocity in (
            (0, 0x90, 60, 127), (0, 0x90, 64, 64), (96, 0x80, 60, 0), (0, 0x90, 64, 0),
            (0, 0x90, 67, 100), (96, 0x80, 67, 0), (0, 0x90, 72, 90), (0, 0x90, 120, 90), (96, 0x80, 120, 0),
        )
    )  # fmt: skip
    midi_of(path, events)


def midi_of(path: Path, *tracks: bytes, division: int = 96) -> None:
    """Write a file of tracks, without their ends."""
    header = b"MThd" + (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (1, len(tracks), division))
    whole = [track + b"\0\xff\x2f\0" for track in tracks]
    path.write_bytes(header + b"".join(b"MTrk" + len(track).to_bytes(4, "big") + track for track in whole))


HALF = bytes([0, 0x90, 60, 100, 96, 0x80, 60, 0])
"""A note of 96 ticks."""


@pytest.mark.parametrize(
    ("division", "end"),
    [(96, 0.5), (0xE708, 0.48), (0xE360, 1001 / 30000), (0xE250, 0.04)],
    ids=["quarters", "25 frames of 8", "29.97 frames of 96", "30 frames of 80"],
)
def test_midi_files_count_time_in_quarters_or_in_frames(tmp_path: Path, division: int, end: float) -> None:
    pytest.importorskip("mido", reason="needs fastvoc[midi]")
    midi_of(tmp_path / "notes.mid", HALF, division=division)
    (note,) = read_midi(tmp_path / "notes.mid")
    assert (note.start, note.end) == (0, pytest.approx(end, rel=1e-12))


def test_midi_files_change_their_tempo_in_any_track(tmp_path: Path) -> None:
    pytest.importorskip("mido", reason="needs fastvoc[midi]")
    # 60 beats a minute for one of them, then 120
    tempi = bytes([0, 0xFF, 0x51, 3, 0x0F, 0x42, 0x40, 96, 0xFF, 0x51, 3, 0x07, 0xA1, 0x20])
    midi_of(tmp_path / "notes.mid", HALF + HALF, tempi)
    assert [(note.start, note.end) for note in read_midi(tmp_path / "notes.mid")] == [(0, 1), (1, 1.5)]


def test_hostile_midi_files_are_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("mido", reason="needs fastvoc[midi]")
    path = tmp_path / "notes.mid"
    midi_of(path, bytes([0, 0xFF, 0x59, 2, 0x20, 0x05]) + HALF)  # a key of 32 sharps
    with pytest.raises(ValueError, match=r"is damaged, or no MIDI file .*32 sharps"):
        read_midi(path)
    midi_of(path, HALF, division=0)
    with pytest.raises(ValueError, match="is damaged"):
        read_midi(path)
    midi_of(path, bytes([0, 0x90, 60, 100]) + bytes([0, 60, 100]) * (1 << 16))  # one key, struck again and again
    with pytest.raises(ValueError, match="has more than 65536 notes"):
        read_midi(path)
    midi_of(path, bytes(1 << 22))
    with pytest.raises(ValueError, match="more than any melody"):
        read_midi(path)


def test_midi_files_are_read(tmp_path: Path) -> None:
    pytest.importorskip("mido", reason="needs fastvoc[midi]")
    midi(tmp_path / "notes.mid")
    assert read_midi(tmp_path / "notes.mid") == [
        Note(60, 0, 0.5, 127),
        Note(64, 0, 0.5, 64),
        Note(67, 0.5, 1, 100),
        Note(72, 1, 1.5, 90),
        Note(120, 1, 1.5, 90),
    ]
    midi(tmp_path / "drums.mid", drums=True)
    with pytest.raises(ValueError, match="has no notes, but for drums"):
        read_midi(tmp_path / "drums.mid")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_midi(tmp_path / "nothing.mid")
    whole = (tmp_path / "notes.mid").read_bytes()
    random = np.random.RandomState(0)
    for attempt in range(300):
        damaged = bytearray(whole[: random.randint(len(whole) + 1)] if attempt % 2 else whole)
        for _ in range(3 if damaged else 0):
            damaged[random.randint(len(damaged))] = random.randint(256)
        (tmp_path / "damaged.mid").write_bytes(damaged)
        try:
            read_midi(tmp_path / "damaged.mid")
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'damaged.mid'}:") and "\n" not in str(error)


def test_the_command_line_plays_melodies(
    instrument: fastvoc.Instrument, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mido", reason="needs fastvoc[midi]")
    path, out = saved(instrument, tmp_path / "mine"), tmp_path / "played"
    midi(tmp_path / "notes.mid")
    midi(tmp_path / "drums.mid", drums=True)
    options = ["--instrument", path, "--device", "cpu", "--out", str(out)]
    assert main(["melody", str(tmp_path / "notes.mid"), "--seed", "3", "5", *options]) == 0
    assert "1 of 5 notes are left out, beyond 24..84" in capsys.readouterr().err
    wave, rate = read_audio(out / "notes.wav")
    assert rate == 1000 and len(wave) == 1801 and float(wave.abs().max()) == pytest.approx(0.5, abs=1e-4)
    assert main(["melody", str(tmp_path / "drums.mid"), *options]) == 1
    assert "has no notes, but for drums" in capsys.readouterr().err
    assert main(["melody", str(tmp_path / "notes.mid"), "--seed", "-1", *options]) == 2

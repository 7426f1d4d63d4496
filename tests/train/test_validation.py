"""Validation measures what it says, on whole clips, and leaves no trace in the training around it."""

from __future__ import annotations

import logging
import math
import os
import random
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from fastvoc.audio import CONVENTIONS, mel_l1, mel_spectrogram, mel_to_wave, multi_resolution_stft, read_audio
from fastvoc.audio.pitch import Pitch, pitch, voicing_error
from fastvoc.models import hifigan
from fastvoc.train.data.config import DataConfig
from fastvoc.train.report import validation
from fastvoc.train.report.validation import generate, measure, validate, validation_clips

MEL = CONVENTIONS["hifigan"]


@pytest.fixture(scope="module")
def clips() -> dict[str, Tensor]:
    wave, rate = read_audio(str(files("fastvoc") / "assets" / "demo.wav"))
    assert rate == MEL.sample_rate
    return {"first": wave[:33_000], "second": wave[33_000:66_000]}


class Echo(nn.Module):
    """Makes the wave whose mel it is given, changed, from a memory of all of them."""

    def __init__(self, clips: dict[str, Tensor], change=lambda wave: wave, config=MEL) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.waves = [wave[: len(wave) // config.hop * config.hop] for wave in clips.values()]
        self.config, self.change = config, change

    def forward(self, mel: Tensor) -> Tensor:
        mels = [mel_spectrogram(wave, self.config) for wave in self.waves]
        (wave,) = (wave for wave, own in zip(self.waves, mels, strict=True) if torch.equal(own, mel[0]))
        missing = mel.shape[-1] * self.config.hop - len(wave)
        return nn.functional.pad(self.change(wave), (0, missing))[None, None]


@pytest.mark.parametrize("config", [MEL, CONVENTIONS["tacotron2"]], ids=["same", "centre"])
def test_a_perfect_generator_has_perfect_figures(clips, config):
    numbers = validate(Echo(clips, config=config), clips, config)
    assert numbers.pop("pesq") > 4.6
    assert numbers == {"mel_l1": 0.0, "mr_stft": 0.0, "periodicity": 0.0, "voiced_f1": 1.0}


def test_figures_are_means_over_clips_of_what_they_are_called(clips):
    samples = generate(Echo(clips, change=lambda wave: 0.5 * wave), clips, MEL)
    numbers = measure(samples, MEL)
    mels = [float(mel_l1(made, recorded, MEL)) for recorded, made in samples.values()]
    assert numbers["mel_l1"] == pytest.approx(np.mean(mels))
    assert 0.5 * math.log(2) < numbers["mel_l1"] <= math.log(2)  # half as loud, but for what is under the floor
    stft = [sum(map(float, multi_resolution_stft(made, recorded))) for recorded, made in samples.values()]
    assert numbers["mr_stft"] == pytest.approx(np.mean(stft))


def test_a_worse_voice_has_worse_figures_throughout(clips):
    def noisy(level: float):
        noise = torch.randn(33_000, generator=torch.Generator().manual_seed(0))
        return lambda wave: wave + level * wave.std() * noise[: len(wave)]

    better, worse = (validate(Echo(clips, change=noisy(level)), clips, MEL) for level in (0.03, 0.3))
    assert all(worse[name] > better[name] for name in ("mel_l1", "mr_stft", "periodicity"))
    assert all(worse[name] < better[name] for name in ("pesq", "voiced_f1"))


def test_a_silent_generator_has_the_lowest_pesq_and_one_without_numbers_none(clips):
    silent = validate(Echo(clips, change=torch.zeros_like), clips, MEL)
    assert (silent["pesq"], silent["voiced_f1"]) == (1.0, 0.0)
    failed = validate(Echo(clips, change=lambda wave: wave * math.nan), clips, MEL)
    assert failed.keys() == silent.keys()
    assert all(math.isnan(value) for value in failed.values())


def test_without_pesq_the_other_figures_remain(clips, monkeypatch):
    monkeypatch.setattr(validation, "find_spec", lambda name: None)
    some = {"first": clips["first"]}
    assert set(validate(Echo(some), some, MEL)) == {"mel_l1", "mr_stft", "periodicity", "voiced_f1"}


class Noisy(nn.Module):
    """Draws random numbers and has modules in different modes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(MEL.bands, MEL.hop, 1)
        self.norm = nn.BatchNorm1d(MEL.hop)
        self.dropout = nn.Dropout(0.5)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.dropout(self.norm(self.convolution(mel)))
        return (x + 0.1 * torch.randn_like(x)).mT.reshape(len(mel), 1, -1)


def train(*, validated: bool, clips: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    generator = Noisy()
    generator.norm.eval()
    optimiser = torch.optim.Adam(generator.parameters(), 1e-3)
    mel = mel_spectrogram(clips["first"], MEL)[None]
    for _ in range(3):
        optimiser.zero_grad()
        generator(mel).square().mean().backward()
        if validated:
            generate(generator, clips, MEL)
        optimiser.step()
    modes = {f"{name} mode": torch.tensor(module.training) for name, module in generator.named_modules()}
    return {**generator.state_dict(), **modes, "random": torch.rand(3)}


def test_validation_does_not_change_training(clips):
    plain = train(validated=False, clips=clips)
    validated = train(validated=True, clips=clips)
    assert plain.keys() == validated.keys()
    assert all(torch.equal(value, validated[name]) for name, value in plain.items())
    assert not plain["norm mode"] and plain["dropout mode"]


def test_measuring_draws_no_random_numbers_either(clips):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    some = {"first": clips["first"]}
    validate(Echo(some), some, MEL)
    drawn = random.random(), np.random.random(), float(torch.rand(()))  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    assert drawn == (random.random(), np.random.random(), float(torch.rand(())))  # noqa: NPY002


def test_a_generator_that_draws_noise_is_judged_alike_every_time(clips):
    generator = Noisy()
    first = generate(generator, clips, MEL)["first"][1]
    torch.rand(())  # training draws numbers in between
    assert torch.equal(generate(generator, clips, MEL)["first"][1], first)


def test_modes_and_random_numbers_are_restored_after_a_failure(clips):
    generator = Noisy()
    generator.norm.eval()
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        generate(generator, clips, replace(MEL, bands=79))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in generator.children()] == [True, False, True]


def test_a_real_generator_is_heard_on_whole_clips(clips):
    torch.manual_seed(0)
    generator = hifigan.V3.build()
    recorded, made = generate(generator, {"first": clips["first"][:10_000]}, MEL)["first"]
    assert recorded.shape == made.shape == (10_000 // 256 * 256,)
    assert made.dtype == torch.float32
    assert not made.requires_grad


def test_the_pitch_of_a_tone_is_its_own_and_noise_has_none():
    time = torch.arange(22050) / 22050
    tone = sum(torch.sin(2 * math.pi * 150 * harmonic * time) / harmonic for harmonic in range(1, 9))
    found = pitch(0.3 * tone, 22050)
    assert len(found.voiced) == len(found.periodicity) == 101
    inner = slice(3, -3)  # the ends are followed by silence
    assert found.voiced[inner].all()
    assert abs(12 * np.log2(found.hertz[inner] / 150)).max() <= 0.125 + 1e-6  # the grid is a quarter semitone
    noise = pitch(0.3 * torch.randn(22050, generator=torch.Generator().manual_seed(0)), 22050)
    assert not noise.voiced.any()
    assert noise.periodicity.max() < 0.1 < found.periodicity[inner].min()
    assert not pitch(torch.zeros(22050), 22050).voiced.any()


def voicing(*frames: tuple[float, bool]) -> Pitch:
    periodicity, voiced = zip(*frames, strict=True)
    return Pitch(np.full(len(frames), 100.0), np.array(periodicity), np.array(voiced))


def test_voicing_errors_pool_the_frames_of_all_clips():
    first = voicing((0.9, True), (0.8, True), (0.1, False)), voicing((0.7, True), (0.8, False), (0.1, False))
    second = (voicing((0.2, False)), voicing((0.6, True)))
    error = voicing_error([first, second])
    assert error.periodicity == pytest.approx(math.sqrt((0.2**2 + 0.4**2) / 4))
    assert error.voiced_f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))  # one hit, one false alarm, one miss
    assert voicing_error([(voicing((0.0, False)), voicing((0.0, False)))]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 and 1 frames"):
        voicing_error([(first[0], second[0])])
    with pytest.raises(ValueError, match="no pairs"):
        voicing_error([])


def test_griffin_lim_loses_more_periodicity_than_spectrum(clips):
    """The measure hears what it is there for: magnitudes nearly right, phases not."""
    samples = {}
    for name, clip in clips.items():
        wave = clip[: len(clip) // MEL.hop * MEL.hop]
        samples[name] = (wave, mel_to_wave(mel_spectrogram(wave, MEL), MEL))
    numbers = measure(samples, MEL)
    assert numbers["mel_l1"] < 0.15
    assert numbers["periodicity"] > 0.05


def write(path: Path, samples: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * np.sin(np.arange(8000) / 9) if samples is None else samples, 8000)


def test_validation_sets_are_read_whole_and_the_bad_ones_named(tmp_path, caplog):
    for name in ("a/1", "a/2", "b/1", "b/3", "c/1"):
        write(tmp_path / f"{name}.wav")
    (tmp_path / "b" / "2.wav").write_bytes(b"broken")
    write(tmp_path / "b" / "4.wav", np.full(100, 0.5))
    config = DataConfig(
        recordings=str(tmp_path / "a"), held_out=1, unseen=(str(tmp_path / "b"), str(tmp_path / "c")), peak=0.9
    )
    with caplog.at_level(logging.WARNING):
        sets = validation_clips(config, sample_rate=16000)
    assert {name: list(clips) for name, clips in sets.items()} == {"seen": ["2"], "unseen": ["1", "3", "1-4"]}
    assert all(len(wave) == 16000 for clips in sets.values() for wave in clips.values())
    assert float(sets["seen"]["2"].abs().max()) == pytest.approx(0.9)
    assert "2.wav: not a readable" in caplog.text
    assert "4.wav: is too short; it lasts 0.01 s of 0.25" in caplog.text
    few = validation_clips(replace(config, validation_clips=1), sample_rate=8000)
    assert list(few["unseen"]) == ["3"]


def test_a_validation_set_without_a_usable_recording_is_an_error(tmp_path):
    write(tmp_path / "a" / "1.wav")
    (tmp_path / "b.wav").write_bytes(b"broken")
    config = DataConfig(recordings=str(tmp_path / "a"), validation=str(tmp_path / "b.wav"))
    with pytest.raises(
        ValueError, match=r"no recording of the seen validation set can be used: .*b.wav: not a readable"
    ):
        validation_clips(config, sample_rate=8000)


def test_what_is_held_out_in_place_of_what_cannot_be_judged_is_said(tmp_path, caplog):
    for number in range(42):
        write(tmp_path / f"{number:02d}.wav", *(() if number in (7, 30) else (np.full(1500, 0.5),)))
    config = DataConfig(recordings=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        sets = validation_clips(config, sample_rate=16000)
    assert {name: list(clips) for name, clips in sets.items()} == {"seen": ["07"]}
    assert "held out 1 recordings (data.held_out is 4); 40 in their places cannot be judged by, such as" in caplog.text
    assert "is too short; it lasts 0.19 s of 0.25" in caplog.text
    for number in (7, 30):
        (tmp_path / f"{number:02d}.wav").unlink()
    with pytest.raises(
        ValueError, match=r"0.19 s of 0.25; name others in data.validation, or do without \(data.held_out=0"
    ):
        validation_clips(config, sample_rate=16000)


def test_a_clip_is_called_by_characters_that_can_be_written(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "a.wav").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.wav"))
    write(tmp_path / "z.wav")
    config = DataConfig(recordings=str(tmp_path), held_out=1)
    sets = validation_clips(config, sample_rate=8000)
    assert [*sets["seen"]] == ["\\xe9"]


def test_without_validation_recordings_there_are_no_sets(tmp_path):
    write(tmp_path / "1.wav")
    assert validation_clips(DataConfig(recordings=str(tmp_path), held_out=0), sample_rate=8000) == {}

"""GANSynth's pictures of notes: their shapes, what a tone looks like in them, and the way back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import rgb_to_hsv
from matplotlib.image import imread
from torch import Tensor

from fastvoc.audio import write_audio
from fastvoc.audio.instantaneous_frequency import (
    HIGH,
    LOW,
    NoteSpectrum,
    _filters,
    denormalise,
    mel_band,
    normalise,
    note_spectrum,
    note_wave,
)
from fastvoc.audio.picture import draw_rainbowgram
from fastvoc.cli import main

SMALL = NoteSpectrum(samples=4000, frames=32, fft_size=512, hop=128)


def tone(pitch: float, samples: int = 64000) -> Tensor:
    time = torch.arange(samples, dtype=torch.float64) / 16000
    partials = [torch.sin(2 * math.pi * k * pitch * time + k) / k for k in range(1, 9)]
    return 0.3 * torch.stack(partials).sum(dim=0) * torch.exp(-time)


def signal_to_noise(wave: Tensor, made: Tensor, edge: int) -> float:
    wave, made = wave[edge:-edge], made[edge:-edge]
    return float(10 * torch.log10(wave.square().sum() / (wave - made).square().sum()))


@pytest.mark.parametrize(("config", "shape", "front"), [(HIGH, (128, 1024), 3072), (LOW, (256, 512), 2304)])
@pytest.mark.parametrize("second", ["frequency", "phase"])
def test_a_tone_comes_back(config: NoteSpectrum, shape: tuple[int, int], front: int, second: str) -> None:
    wave = tone(261.63)
    picture = note_spectrum(wave, config, second=second)  # type: ignore[arg-type]
    assert picture.shape == (*shape, 2) and config.front == front
    made = note_wave(picture, config, second=second)  # type: ignore[arg-type]
    assert made.shape == wave.shape
    # the floor of the magnitudes is all that is lost; the last frames overlap with fewer others
    assert signal_to_noise(wave, made, 2 * config.fft_size) > 90
    single = note_wave(note_spectrum(wave.float(), config), config)
    assert signal_to_noise(wave, single.double(), 2 * config.fft_size) > 60


@pytest.mark.parametrize("config", [HIGH, LOW])
def test_all_but_the_bin_at_0_hertz_comes_back(config: NoteSpectrum) -> None:
    """Of noise, which is in that bin too, what its frames hold there is what is missing."""
    wave = 0.1 * torch.randn(64000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = note_wave(note_spectrum(wave, config), config)
    window = torch.hann_window(config.fft_size, dtype=torch.float64)
    frames = torch.nn.functional.pad(wave, (config.front, 0)).unfold(0, config.fft_size, config.hop)
    missing = torch.zeros(config.front + 64000, dtype=torch.float64)
    for number, mean in enumerate((frames * window).mean(dim=1).tolist()):
        missing[number * config.hop :][: config.fft_size] += mean * window / 1.5
    assert 30 < signal_to_noise(wave, made, config.fft_size) < 40
    assert signal_to_noise(wave, made + missing[config.front :], config.fft_size) > 120


def test_the_picture_is_that_of_the_definition() -> None:
    """By NumPy's transform and unwrapping, frame by frame."""
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padded = np.concatenate([np.zeros(SMALL.front), wave.numpy()])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    spectrum = np.stack([np.fft.rfft(window * padded[128 * n : 128 * n + 512])[1:] for n in range(32)])
    turned = np.diff(np.unwrap(np.angle(spectrum), axis=0), axis=0) / np.pi
    picture = note_spectrum(wave, SMALL).numpy()
    np.testing.assert_allclose(picture[..., 0], np.log(np.abs(spectrum) + 1e-6), rtol=0, atol=1e-12)
    np.testing.assert_allclose(picture[0, :, 1], np.angle(spectrum[0]) / np.pi, rtol=0, atol=1e-11)
    np.testing.assert_allclose(picture[1:, :, 1], turned, rtol=0, atol=1e-9)
    assert np.abs(picture[..., 1]).max() <= 1
    batch = note_spectrum(torch.stack([wave, 2 * wave]), SMALL)
    assert torch.equal(batch[0], note_spectrum(wave, SMALL))
    assert torch.equal(note_wave(batch, SMALL)[0], note_wave(batch[0], SMALL))


def test_a_pure_tone_has_one_frequency_and_many_phases() -> None:
    time = torch.arange(64000, dtype=torch.float64) / 16000
    wave = torch.sin(2 * math.pi * 440 * time)
    frequency, phase = (note_spectrum(wave, second=second)[8:-1, :, 1] for second in ("frequency", "phase"))
    peak = int(note_spectrum(wave)[40, :, 0].argmax())
    assert peak == round(440 * 2048 / 16000) - 1  # bin 0 is left out
    # 440 Hz turns 14.08 times in 512 samples: by 0.16 half turns beyond the whole ones
    torch.testing.assert_close(frequency[:, peak], torch.full((119,), 0.16, dtype=torch.float64), rtol=0, atol=1e-6)
    assert float(phase[:, peak].std()) > 0.5


def test_mel_bands_are_the_originals() -> None:
    filters = _filters(HIGH)
    assert filters.shape == (1024, 1024)
    assert int((filters > 0).sum()) == 2042 and np.linalg.matrix_rank(filters.numpy()) == 811
    assert not filters[0].any() and float(filters.max()) <= 1
    wave = tone(261.63)
    picture = note_spectrum(wave, mel=True)
    assert picture.shape == (128, 1024, 2)
    power = (2 * note_spectrum(wave)[..., 0]).exp()
    torch.testing.assert_close(picture[..., 0], (power @ filters + 1e-6).log(), rtol=0, atol=1e-9)
    # waves through mel bands are heard as theirs, but are not: the phases of neighbours mix
    assert 3 < signal_to_noise(wave, note_wave(picture, mel=True), 4096) < 30


@pytest.mark.parametrize("hertz", [70, 125, 250, 1000, 4000, 7900])
def test_a_tone_is_loudest_in_its_band(hertz: float) -> None:
    time = torch.arange(64000, dtype=torch.float64) / 16000
    picture = note_spectrum(torch.sin(2 * math.pi * hertz * time), mel=True)
    loudest = int(picture[40, :, 0].argmax())
    # of equal bands any may be it, and a tone between two bins of the transform is in both
    reached = _filters(HIGH)[:, loudest].nonzero().flatten() + 1
    assert int(reached.min()) - 1 <= hertz * 2048 / 16000 <= int(reached.max()) + 1
    assert abs(loudest - mel_band(hertz)) <= 8


def test_networks_see_numbers_around_zero() -> None:
    picture = note_spectrum(tone(100))
    scaled = normalise(picture)
    assert float(scaled.abs().max()) <= 1
    assert scaled[30, 30].tolist() == pytest.approx(
        [0.0661371661726 * float(picture[30, 30, 0]) + 0.113718730221, 0.8 * float(picture[30, 30, 1])]
    )
    torch.testing.assert_close(denormalise(scaled), picture, rtol=0, atol=1e-9)


def test_gradients_reach_the_wave_from_its_magnitudes() -> None:
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    note_spectrum(wave, SMALL)[..., 0].sum().backward()
    assert wave.grad is not None and bool(wave.grad.isfinite().all()) and bool(wave.grad.any())


def test_what_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"wave has shape \(100,\); it must be \(\.\.\., 64000\)"):
        note_spectrum(torch.zeros(100))
    with pytest.raises(TypeError, match="convert it to float32 or float64"):
        note_spectrum(torch.zeros(64000).half())
    with pytest.raises(ValueError, match=r"picture has shape \(128, 1024\); it must be \(\.\.\., 128, 1024, 2\)"):
        note_wave(torch.zeros(128, 1024))
    for empty in (
        lambda: note_spectrum(torch.zeros(0, 4000), SMALL),
        lambda: note_wave(torch.zeros(0, 32, 256, 2), SMALL),
    ):
        with pytest.raises(ValueError, match=r"has shape \(0, .* one at least"):
            empty()
    with pytest.raises(ValueError, match="frames are too few for 64000 samples"):
        replace(HIGH, frames=64)
    with pytest.raises(ValueError, match="must be even and a multiple of hop 600, four times at least"):
        replace(HIGH, hop=600)


def test_a_steady_partial_is_a_line_of_one_colour_and_noise_is_not(tmp_path: Path) -> None:
    pure = torch.sin(2 * math.pi * 1000 * torch.arange(32000) / 16000)
    noise = torch.randn(32000, generator=torch.Generator().manual_seed(2)) / 5
    hues = {}
    for name, wave in (("pure", pure), ("noise", noise)):
        draw_rainbowgram(tmp_path / f"{name}.png", wave, 16000, title=name)
        image = imread(tmp_path / f"{name}.png")[60:-70, 100:-20, :3]
        bright = rgb_to_hsv(image[image.max(axis=-1) > 0.6])
        hues[name] = bright[bright[:, 1] > 0.9, 0]
    assert len(hues["pure"]) > 500 and len(hues["noise"]) > 10 * len(hues["pure"])
    spread = {name: abs(np.exp(2j * np.pi * values).mean()) for name, values in hues.items()}
    assert spread["pure"] > 0.9 and spread["noise"] < 0.5
    with pytest.raises(ValueError, match=r"wave has shape \(2, 9\); it must be \(samples,\)"):
        draw_rainbowgram(tmp_path / "no.png", torch.zeros(2, 9), 16000)
    with pytest.raises(ValueError, match="wave has 16777217 samples; draw parts of 16777216 at most"):
        draw_rainbowgram(tmp_path / "no.png", torch.zeros(1).expand((1 << 24) + 1), 16000)


def test_the_command_draws_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_audio(tmp_path / "notes.wav", 0.5 * tone(220, 8000), 22050)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    names = ("notes.wav", "broken.wav", r"$\frac{$.wav")  # the last is no formula
    write_audio(tmp_path / names[2], 0.5 * tone(220, 8000), 22050)
    files = [str(tmp_path / name) for name in names]
    assert main(["rainbowgram", *files, "--out", str(tmp_path / "out")]) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"notes.png", r"$\frac{$.png"}
    said = capsys.readouterr().err
    assert "broken.wav: not a readable sound file" in said and said.count("\n") == 1

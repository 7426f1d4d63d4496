"""The vocoder of GPT-SoVITS v4, which makes waves of another rate than that of its mels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import foreign
import pytest
import torch
from golden import hashed, numbered_values
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, mel_spectrogram, resample
from fastvoc.checkpoints import Checkpoint, VocoderConfig, open_checkpoint
from fastvoc.checkpoints.formats import FORMATS, gpt_sovits
from fastvoc.export import write_onnx
from fastvoc.models import HiFiGANConfig

MEL = CONVENTIONS["gpt-sovits-v4"]
SMALL = HiFiGANConfig(
    mel_bands=100,
    channels=32,
    rates=(10, 6, 2, 2, 2),
    rate_kernel_sizes=(20, 12, 4, 4, 4),
    kernel_sizes=(3,),
    dilations=((1, 3),),
)


def mean_and_samples(y: Tensor) -> list[float]:
    flat = y.flatten()
    return [float(value) for value in (flat.mean(), *flat[[0, 1, 7, 100, -1]])]


def small() -> Vocoder:
    torch.manual_seed(0)
    config = VocoderConfig(generator=SMALL, mel=MEL, wave_rate=48000)
    return Vocoder(Checkpoint(config, config.generator.build().state_dict(), "a test"))


def test_it_makes_the_originals_wave(tmp_path: Path) -> None:
    path = foreign.gpt_sovits(tmp_path, gpt_sovits.GENERATOR, MEL, values=numbered_values)
    checkpoint = open_checkpoint(path)
    assert checkpoint.source == "HiFi-GAN (GPT-SoVITS v4) generator"
    assert (checkpoint.config.generator, checkpoint.config.mel) == (gpt_sovits.GENERATOR, MEL)
    assert (checkpoint.config.wave_rate, checkpoint.config.sample_rate) == (48000, 48000)
    network = gpt_sovits.GENERATOR.build().double().eval()
    network.load_state_dict(checkpoint.weights)
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_425_409
    with torch.no_grad():
        wave = network(2 * hashed(800, 999).reshape(1, 100, 8))
    assert wave.shape == (1, 1, 3840)
    expected = (-0.0359008372, 0.071498481, 0.0689045356, -0.0105679453, 0.0393685194, -0.155641647)
    assert mean_and_samples(wave) == pytest.approx(expected, abs=1e-8)


def test_its_mel_is_the_originals() -> None:
    mel = mel_spectrogram(0.5 * hashed(8192, 998), MEL)
    assert mel.shape == (100, 25)
    expected = (-1.55774908, -1.61969841, -2.12087199, -1.46067949, -1.26393465, -1.43123179)
    assert mean_and_samples(mel) == pytest.approx(expected, abs=1e-6)


def test_frames_last_equally_long_at_both_rates() -> None:
    vocoder = small()
    assert (vocoder.sample_rate, vocoder.hop) == (48000, 480)
    tone = 0.1 * torch.sin(torch.arange(48000) * 0.05)
    mel = vocoder.mel(tone)
    assert torch.equal(mel, mel_spectrogram(resample(tone, 48000, 32000), MEL))
    assert mel.shape == (100, 100) and vocoder(mel).shape == (48000,)
    of_other_rate = vocoder.mel(tone[:32000], sample_rate=32000)
    assert torch.equal(of_other_rate, mel_spectrogram(tone[:32000], MEL))


def test_streams_say_the_waves_rate_and_make_the_same_wave() -> None:
    vocoder = small()
    mel = 2 * hashed(3000, 999).reshape(100, 30).float() - 3
    streamer = vocoder.streamer()
    pieces = [streamer.push(chunk) for chunk in mel.split(7, dim=-1)]
    wave = torch.cat([*pieces, streamer.flush()], dim=-1)
    assert streamer.sample_rate == 48000
    torch.testing.assert_close(wave.flatten(), vocoder(mel), rtol=0, atol=1e-6)


def test_both_rates_are_saved(tmp_path: Path) -> None:
    vocoder = small()
    vocoder.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["wave_rate"] == 48000
    assert Vocoder.from_pretrained(tmp_path).config == vocoder.config


def test_what_is_exported_says_the_waves_rate(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    write_onnx(small(), tmp_path / "vocoder.onnx")
    told = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "vocoder.onnx")).metadata_props}
    assert (told["sample_rate"], told["hop"]) == ("48000", "480")
    assert json.loads(told["mel"])["sample_rate"] == 32000


def test_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"320 samples of 32000 Hz but the generator makes 480 of 44100 Hz of each"):
        VocoderConfig(generator=SMALL, mel=MEL, wave_rate=44100)
    with pytest.raises(ValueError, match="a frame every 320 samples but the generator makes 480"):
        VocoderConfig(generator=SMALL, mel=MEL)


def test_no_foreign_format_is_told_two_rates(tmp_path: Path) -> None:
    vocoder = small()
    weights = {name: tensor.detach() for name, tensor in vocoder.generator.state_dict().items()}
    with pytest.raises(ValueError, match="hifigan: the original has no setting for waves of 48000 Hz of mels of 32000"):
        FORMATS["hifigan"].write(tmp_path, vocoder.config, weights)  # type: ignore[misc]


def test_settings_beside_it_go_before(tmp_path: Path) -> None:
    path = foreign.gpt_sovits(tmp_path, gpt_sovits.GENERATOR, MEL, values=foreign.single)
    foreign.official(tmp_path, SMALL, replace(MEL, hop=480))
    (tmp_path / "g_00000005").unlink()
    with pytest.raises(ValueError, match="the settings belong to other weights"):
        open_checkpoint(path)

"""Where the settings of a checkpoint are found: beside it, beside what it is a link to, by name."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import foreign
import pytest
import yaml

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import FORMATS, foreign_settings, open_checkpoint
from fastvoc.checkpoints.formats import bigvgan, wavenet_vocoder
from fastvoc.checkpoints.reading.hub import UNWANTED
from fastvoc.cli import main
from fastvoc.models import HiFiGANConfig, MelGANConfig
from fastvoc.models.hifigan import V1, V2, V3
from fastvoc.models.istftnet import C8C8I
from fastvoc.models.melgan import DESCRIPT

TINY = HiFiGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3,), dilations=((1,),))
MEL = MelConfig(sample_rate=16000, fft_size=32, hop=8, window_size=24, bands=80, low=0, high=7000)
MELGAN = MelGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), units=1)

LINKED: dict[str, tuple[Callable[..., Path], Any, MelConfig]] = {
    "official": (foreign.official, TINY, MEL),
    "descript": (foreign.descript, replace(DESCRIPT, channels=16, units=1), CONVENTIONS["melgan"]),
    "ParallelWaveGAN": (foreign.parallel_wavegan, MELGAN, MEL),
    "Coqui": (foreign.coqui, TINY, replace(MEL, gain=20, logarithm="decimal")),
    "transformers": (foreign.speecht5, replace(TINY, standardised=True), MEL),
    "SpeechBrain": (foreign.speechbrain, replace(TINY, padding_mode="reflect"), MEL),
}


@pytest.mark.parametrize("name", LINKED)
def test_settings_and_statistics_are_found_beside_the_target_of_a_link(tmp_path: Path, name: str) -> None:
    writer, config, mel = LINKED[name]
    (tmp_path / "run").mkdir()
    expected = open_checkpoint(writer(tmp_path / "run", config, mel))
    weights = next(
        path for path in (tmp_path / "run").iterdir() if path.suffix not in (".json", ".yml", ".yaml", ".npy")
    )
    (tmp_path / "elsewhere").mkdir()
    links = tmp_path / "latest.pth", tmp_path / "elsewhere" / "newest.pth"
    links[0].symlink_to(weights)
    links[1].symlink_to("../latest.pth")  # a link to a link
    for link in links:
        found = open_checkpoint(link)
        assert found.config == expected.config and found.notes == expected.notes


def test_settings_beside_a_link_go_before_those_beside_its_target(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    foreign.official(tmp_path / "run", TINY, MEL)
    settings = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "latest.pth").symlink_to("run/g_00000005")
    (tmp_path / "config.json").write_text(settings.replace("16000", "17000"))
    assert open_checkpoint(tmp_path / "latest.pth").config.mel.sample_rate == 17000


def test_a_link_to_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "latest.pth").symlink_to("run/g_00000005")
    with pytest.raises(FileNotFoundError, match=r"latest\.pth: is a link to run/g_00000005, where there is nothing"):
        open_checkpoint(tmp_path / "latest.pth")


OTHERWISE: dict[str, tuple[Callable[..., Path], Any, MelConfig, str, Any, str]] = {
    "Coqui pads zeros": (*LINKED["Coqui"], "audio.stft_pad_mode", "constant", "stft_pad_mode is 'constant'"),
    "ESPnet without a mel": (
        foreign.espnet,
        replace(TINY, crop_rule="output-padded"),
        MEL,
        "feats_extract",
        "linear_spectrogram",
        "feats_extract is linear_spectrogram; only fbank is a mel",
    ),
    "SpeechBrain of another hop": (
        *LINKED["SpeechBrain"],
        "hop_length",
        16,
        "a frame every 16 samples but the generator makes 8",
    ),
    "ParallelWaveGAN at two rates": (*LINKED["ParallelWaveGAN"], "sampling_rate_for_feats", 8000, "sampling_rate_for"),
    "ParallelWaveGAN with another window": (*LINKED["ParallelWaveGAN"], "window", "hamming", "window is 'hamming'"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_settings_ask_for_and_we_do_not_do_is_refused(tmp_path: Path, name: str) -> None:
    writer, config, mel, setting, value, sentence = OTHERWISE[name]
    path = writer(tmp_path, config, mel)
    settings = next(file for file in tmp_path.iterdir() if file.suffix in (".json", ".yml", ".yaml"))
    if setting == "hop_length":
        settings.write_text(f"{settings.read_text()}{setting}: {value}\n")
    else:
        values = foreign_settings.read(settings)
        *outer, last = setting.split(".")
        (values[outer[0]] if outer else values)[last] = value
        settings.write_text(yaml.dump(values))
    with pytest.raises(ValueError, match=sentence):
        open_checkpoint(path)


@pytest.mark.parametrize(("setting", "value"), [("frame_splicing", 2), ("mel_norm", None)])
def test_what_nemo_asks_for_and_we_do_not_do_is_refused(tmp_path: Path, setting: str, value: Any) -> None:
    path = foreign.nemo(tmp_path, TINY, MEL)
    with tarfile.open(path) as archive:
        values = yaml.safe_load(archive.extractfile("./model_config.yaml"))
    values["preprocessor"][setting] = value
    (tmp_path / "settings.yaml").write_text(yaml.dump(values))
    with pytest.raises(ValueError, match=f"preprocessor: {setting} is {value}"):
        open_checkpoint(path, config=tmp_path / "settings.yaml")


def test_statistics_on_the_hub_are_fetched() -> None:
    for name in ("stats.h5", "stats.npy", "config.yml"):
        assert not any(fnmatch(name, pattern) for pattern in UNWANTED)
    for name in ("tf_model.h5", "generator.h5", "model.onnx"):
        assert any(fnmatch(name, pattern) for pattern in UNWANTED)


def test_settings_may_have_the_name_of_the_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    foreign.official(tmp_path / "run", TINY, MEL)
    (tmp_path / "run" / "g_00000005").rename(tmp_path / "run" / "generator_v1")
    (tmp_path / "run" / "config.json").rename(tmp_path / "run" / "generator_v1.json")
    (tmp_path / "latest.pth").symlink_to("run/generator_v1")
    assert open_checkpoint(tmp_path / "latest.pth").config.generator == TINY


NAMED: dict[str, tuple[Callable[..., Path], Any]] = {
    "hifigan-v1": (foreign.official, V1),
    "hifigan-v2": (foreign.official, V2),
    "hifigan-v3": (foreign.official, V3),
    "istftnet": (foreign.official_istftnet, C8C8I),
    "melgan": (foreign.descript, DESCRIPT),
}


def test_every_preset_is_tried() -> None:
    elsewhere = {*bigvgan.FORMAT.presets, *wavenet_vocoder.FORMAT.presets}  # test_bigvgan.py, test_wavenet.py
    assert {*NAMED, *elsewhere} == set(FORMATS.presets)


@pytest.mark.parametrize("name", NAMED)
def test_settings_are_named_by_a_preset(tmp_path: Path, name: str) -> None:
    writer, config = NAMED[name]
    convention = CONVENTIONS["melgan" if name == "melgan" else "hifigan"]
    writer(tmp_path, config, convention, values=foreign.single)
    for settings in (*tmp_path.glob("*.json"), *tmp_path.glob("*.yml")):
        settings.unlink()
    weights = next(tmp_path.iterdir()).rename(tmp_path / "hifigan_univ_v1")
    for given in (name, Path(name)):
        found = open_checkpoint(weights, config=given)
        assert (found.config.generator, found.config.mel) == (config, convention)
        assert found.notes == (f"the settings are those of {name}",)
    assert Vocoder.from_pretrained(weights, config=name).config == found.config


def test_a_preset_that_is_none_names_those_that_are(tmp_path: Path) -> None:
    path = foreign.official(tmp_path, TINY, MEL)
    with pytest.raises(FileNotFoundError, match=r"hifigan-v9: no such file; .* or one of .*, hifigan-v1, hifigan-v2"):
        open_checkpoint(path, config="hifigan-v9")
    with pytest.raises(ValueError, match=r"conv_pre\.weight has shape \(4, 80, 7\), but the settings need \(512, 80"):
        open_checkpoint(path, config="hifigan-v1")
    with pytest.raises(ValueError, match=r"melgan: lacks .*; these are not the settings of a HiFi-GAN"):
        open_checkpoint(path, config="melgan")


def test_a_file_goes_before_a_preset_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    foreign.official(tmp_path / "run", TINY, MEL)
    (tmp_path / "run" / "config.json").rename(tmp_path / "hifigan-v1")
    found = open_checkpoint("run/g_00000005", config="hifigan-v1")
    assert found.config.generator == TINY and found.notes == ()


def test_the_command_line_takes_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign.official(tmp_path, V2, CONVENTIONS["hifigan"], values=foreign.single)
    (tmp_path / "config.json").unlink()
    assert main(["info", str(tmp_path / "g_00000005"), "--config", "hifigan-v2"]) == 0
    assert "the settings are those of hifigan-v2" in capsys.readouterr().out

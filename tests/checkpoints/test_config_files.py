"""Settings beside weights: read as editors write them, and never replaced where they are another project's."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest
import torch
import yaml

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig, foreign_settings
from fastvoc.checkpoints.formats import hifigan
from fastvoc.cli import main
from fastvoc.config import read, write_json
from fastvoc.models import HiFiGANConfig
from fastvoc.train.state import check_space

NOTE = '"// no comment, /* nor this */ ,]"'
SETTINGS = {"resblock": "1", "rates": [8, 8], "rate": 2e-4, "note": json.loads(NOTE)}

WRITTEN = {
    "plain": f'{{"resblock": "1", "rates": [8, 8], "note": {NOTE}, "rate": 2e-4}}',
    "tabs": f'{{\n\t"resblock":\t"1",\n\t"rates": [8,\t8],\n\t"note": {NOTE},\n\t"rate": 2e-4\n}}',
    "comments": f'// a\n{{"resblock": "1", // b\n"rates": /* c\n */ [8, 8],\n"note": {NOTE}, "rate": 2e-4}}',
    "comments and tabs": f'//\n{{\n\t"resblock": "1",\t// b\n\t"rates": [8, 8],\n\t"note": {NOTE}, "rate": 2e-4\n}}',
    "last commas": f'{{"resblock": "1", "rates": [8, 8,],\n\t"note": {NOTE}, "rate": 2e-4, // last\n}}',
}

MARKS = {
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16, big-endian": (codecs.BOM_UTF16_BE, "utf-16-be"),
}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_settings_are_read_as_editors_write_them(tmp_path: Path, kind: str, newline: str, mark: str) -> None:
    begin, encoding = MARKS[mark]
    path = tmp_path / "config.json"
    path.write_bytes(begin + WRITTEN[kind].replace("\n", newline).encode(encoding))
    assert foreign_settings.read(path) == SETTINGS


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_own_settings_are_read_with_a_mark_at_their_begin(tmp_path: Path, suffix: str, mark: str) -> None:
    begin, encoding = MARKS[mark]
    write_json(CONVENTIONS["hifigan"], tmp_path / "plain.json")
    content = json.loads((tmp_path / "plain.json").read_text())
    text = json.dumps(content) if suffix == ".json" else yaml.safe_dump(content)
    path = tmp_path / f"convention{suffix}"
    path.write_bytes(begin + text.replace("\n", "\r\n").encode(encoding))
    assert read(type(CONVENTIONS["hifigan"]), path) == CONVENTIONS["hifigan"]


def test_what_is_neither_json_nor_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1, 2}')
    with pytest.raises(ValueError, match=r"config\.json: is neither readable JSON nor YAML"):
        foreign_settings.read(tmp_path / "config.json")


def small(channels: int = 16) -> Vocoder:
    torch.manual_seed(channels)
    generator = HiFiGANConfig(channels=channels, rates=(8, 8, 4), rate_kernel_sizes=(16, 16, 8))
    weights = generator.build().state_dict()
    return Vocoder(Checkpoint(VocoderConfig(generator=generator, mel=CONVENTIONS["hifigan"]), weights, "a test"))


FOREIGN = {
    "an official HiFi-GAN's": json.dumps({"resblock": "1", "upsample_rates": [8, 8, 2, 2], "num_mels": 80}),
    "of transformers": json.dumps({"model_type": "hifigan", "architectures": ["SpeechT5HifiGan"]}),
    "a list": "[]",
    "broken": "{",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_settings_of_another_project_are_never_replaced(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    small().save_pretrained(mine)
    theirs.mkdir()
    (theirs / "config.json").write_text(FOREIGN[kind])
    (theirs / "g_02500000").write_bytes(b"weights")
    sentence = r"theirs/config\.json: is not that of .*; name another folder"
    with pytest.raises(ValueError, match=sentence):
        small().save_pretrained(theirs)
    for format in ("native", "hifigan"):
        assert main(["convert", str(mine), str(theirs), "--overwrite", "--to", format]) == 1
        assert "name another folder" in capsys.readouterr().err
    assert (theirs / "config.json").read_text() == FOREIGN[kind]
    assert sorted(path.name for path in theirs.iterdir()) == ["config.json", "g_02500000"]


def test_run_in_the_folder_of_another_project_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(FOREIGN["of transformers"])
    with pytest.raises(ValueError, match=r"config\.json: is not that of a vocoder of fastvoc"):
        check_space(tmp_path, 0)


def test_own_results_are_replaced(tmp_path: Path) -> None:
    folder, official = tmp_path / "mine", tmp_path / "official"
    for channels in (16, 32):
        small(channels).save_pretrained(folder)
        assert Vocoder.from_pretrained(folder).config.generator.channels == channels
        assert main(["convert", str(folder), str(official), "--to", "hifigan", "--overwrite"]) == 0
        assert Vocoder.from_pretrained(official).config.generator.channels == channels
    with pytest.raises(ValueError, match="not that of a folder that was written before"):
        hifigan.save(folder, small().config, small().generator.state_dict())


@pytest.mark.parametrize("as_link", [False, True])
def test_folder_that_is_called_default_goes_before_the_bundled_vocoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, as_link: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = Vocoder.from_pretrained("default").config
    small().save_pretrained("mine" if as_link else "default")
    if as_link:
        Path("default").symlink_to("mine", target_is_directory=True)
    mine = Vocoder.from_pretrained("mine" if as_link else "./default").config
    assert bundled != mine
    assert Vocoder.from_pretrained("default").config == mine
    assert Vocoder.from_pretrained(Path("default")).config == mine
    assert main(["info", "default"]) == 0
    assert "hifigan" in capsys.readouterr().out
    assert main(["convert", "default", "converted"]) == 0
    assert Vocoder.from_pretrained("converted").config == mine


def test_file_that_is_called_default_is_opened_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default").write_text("no vocoder")
    with pytest.raises(ValueError, match=r"^default: "):
        Vocoder.from_pretrained()

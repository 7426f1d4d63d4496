"""Formats and families that only this file knows: opened, converted, described and saved like those of the package."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fastvoc import Vocoder
from fastvoc.audio import MelConfig
from fastvoc.checkpoints import (
    FORMATS,
    Checkpoint,
    Format,
    Source,
    VocoderConfig,
    open_checkpoint,
    save_native,
)
from fastvoc.checkpoints.format import Formats, each, top_has, write_torch
from fastvoc.checkpoints.tensor_names import from_native, to_native
from fastvoc.cli import main
from fastvoc.cli.checkpoint.info import multiply_accumulates
from fastvoc.config import config
from fastvoc.models import GENERATORS, Generator, HiFiGANConfig

MEL = MelConfig(sample_rate=16000, fft_size=64, hop=16, window_size=64, bands=12, low=0, high=8000)
SMALL = HiFiGANConfig(mel_bands=12, channels=8, rates=(4, 4), rate_kernel_sizes=(8, 8))


@config
class ToyConfig:
    """A family of one convolution of three taps; its tensors are called as those of no other."""

    kind: Literal["toy"] = "toy"
    mel_bands: int = 12
    hop: int = 16

    def build(self) -> Toy:
        return Toy(self)


class Toy(Generator):
    hop = 0

    def __init__(self, settings: ToyConfig) -> None:
        super().__init__(mel_bands=settings.mel_bands)
        self.hop = settings.hop  # type: ignore[misc]
        self.wave = nn.Conv1d(settings.mel_bands, settings.hop, 3, padding=1)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first // self.hop - 1, last // self.hop + 1

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.sin(self.wave(mel)).mT.flatten(1)[:, None]


TABLE = (("filter", "wave"),)


def read_toy(source: Source) -> Checkpoint:
    settings = source.content["about"] if source.config is None else source.settings()
    vocoder = VocoderConfig(generator=ToyConfig(hop=settings["hop"]), mel=replace(MEL, hop=settings["hop"]))
    weights = to_native(source.state(), TABLE, vocoder.generator, str(source.file))
    return Checkpoint(vocoder, weights, "a toy", ("made in a test",))


def write_toy(folder: Path, config: VocoderConfig, weights: dict[str, Tensor]) -> None:
    content = {"net": from_native(weights, TABLE), "about": {"hop": config.generator.hop}}
    write_torch(folder, "toy-1.bin", content, "about.txt", "a toy")


TOY = Format(
    name="toy",
    title="Toy",
    files=("toy-*.bin",),
    places=("net",),
    read=read_toy,
    write=write_toy,
    layers=each("filter"),
    clue=top_has("net", "about"),
    presets={"toy-8": {"hop": 8}},
)


@pytest.fixture(autouse=True)
def _toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(GENERATORS, "_classes", dict(GENERATORS._classes))
    GENERATORS.add(ToyConfig)
    FORMATS.add(TOY)
    with torch.no_grad():
        yield
    FORMATS.remove("toy")


def toy_weights(hop: int = 16) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(hop)
    return {
        "wave.weight": torch.randn(hop, 12, 3, generator=draw) / 6,
        "wave.bias": torch.randn(hop, generator=draw) / 6,
    }


def toy_file(hop: int = 16) -> Path:
    write_toy(Path("theirs"), VocoderConfig(generator=ToyConfig(hop=hop), mel=replace(MEL, hop=hop)), toy_weights(hop))
    return Path("theirs")


def test_a_format_is_opened_by_folder_file_and_any_name() -> None:
    folder = toy_file()
    renamed = (folder / "toy-1.bin").rename(folder / "other.pt")
    for path in (folder, renamed):
        found = open_checkpoint(path)
        assert found.source == "a toy" and found.config == VocoderConfig(generator=ToyConfig(), mel=MEL)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in toy_weights().items())


def test_its_files_go_by_its_patterns_and_its_presets_by_name() -> None:
    folder = toy_file(hop=8)
    torch.save({"a": torch.zeros(1)}, folder / "another.pt")
    torch.save({"net": {}, "about": {}}, folder / "toy-0.bin")
    assert open_checkpoint(folder, config="toy-8").config.generator == ToyConfig(hop=8)
    assert "toy-8" in FORMATS.presets


def test_what_a_part_of_its_file_lacks_is_named() -> None:
    torch.save({"net": {"noise": torch.zeros(1)}, "about": {}}, "part.pt")
    with pytest.raises(ValueError, match=r"part\.pt: seems to be a part of a checkpoint of Toy; it lacks filter"):
        open_checkpoint("part.pt")


def test_the_command_line_describes_and_converts_it_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(toy_file())
    assert main(["info", folder]) == 0
    told = capsys.readouterr().out
    assert "a toy" in told and "made in a test" in told and "16 samples, 1.00 ms" in told
    assert multiply_accumulates(Vocoder.from_pretrained(folder)) == 12 * 16 * 3 * 1000  # weights, frames in a second
    assert main(["convert", folder, "ours"]) == 0
    assert sorted(path.name for path in Path("ours").iterdir()) == ["config.json", "model.safetensors"]
    assert main(["convert", "ours", "again", "--to", "toy"]) == 0
    assert sorted(path.name for path in Path("again").iterdir()) == ["about.txt", "toy-1.bin"]
    back = open_checkpoint("again")
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in toy_weights().items())
    capsys.readouterr()
    for arguments, sentence in (
        (["--to", "toys"], "--to toys: is no format that is written; did you mean 'toy'?"),
        (
            ["--to", "nemo"],
            "--to nemo: is no format that is written; known: bigvgan, hifigan, melgan, n",
        ),
        (["--to", "toy", "--half"], "--half: a folder for --to toy holds single precision"),
    ):
        assert main(["convert", "ours", "never", *arguments]) == 2
        assert sentence in capsys.readouterr().err
    assert not Path("never").exists()


def test_a_family_of_any_tensors_is_saved_opened_and_played() -> None:
    save_native("ours", VocoderConfig(generator=ToyConfig(), mel=MEL), toy_weights(), half=True)
    found = open_checkpoint("ours")
    assert found.source == "fastvoc" and found.config.generator == ToyConfig()
    assert found.weights["wave.weight"].dtype == torch.float16
    mel = torch.randn(12, 9, generator=torch.Generator().manual_seed(0)) - 7
    weight, bias = (found.weights[name].float() for name in ("wave.weight", "wave.bias"))
    expected = torch.sin(nn.functional.conv1d(mel[None], weight, bias, padding=1))[0].T.flatten()
    torch.testing.assert_close(Vocoder.from_pretrained("ours")(mel), expected, rtol=0, atol=1e-6)


def test_a_kind_that_is_not_known_is_one_sentence_with_those_that_are() -> None:
    save_native("ours", VocoderConfig(generator=ToyConfig(), mel=MEL), toy_weights())
    del GENERATORS._classes["toy"]
    with pytest.raises(ValueError, match=r"ours/config\.json: .*'toy' is no kind of generator; known: .*hifigan"):
        open_checkpoint("ours")


def test_a_family_may_name_its_tensors_as_another_project_does() -> None:
    """Its own folder is known by its settings, before any format that goes by names."""
    FORMATS.add(Format(name="greedy", title="Greedy", read=read_toy, layers=each("wave")), before="hifigan")
    try:
        save_native("ours", VocoderConfig(generator=ToyConfig(), mel=MEL), toy_weights())
        assert open_checkpoint("ours").source == "fastvoc"
    finally:
        FORMATS.remove("greedy")


def test_files_of_others_beside_our_settings_stay_theirs() -> None:
    save_native("ours", VocoderConfig(generator=SMALL, mel=MEL), SMALL.build().state_dict())
    theirs = (toy_file() / "toy-1.bin").rename("ours/toy-1.bin")
    assert open_checkpoint(theirs).source == "a toy"
    assert open_checkpoint("ours/model.safetensors").source == "fastvoc"
    Path("ours/config.json").write_text(json.dumps({"resblock": "1"}))
    assert open_checkpoint(theirs).source == "a toy"
    Path("ours/config.json").write_text("{" * 99)
    assert open_checkpoint(theirs).source == "a toy"


def test_weights_of_another_name_are_ours_if_they_have_a_tensor_of_our_network() -> None:
    save_native("ours", VocoderConfig(generator=ToyConfig(), mel=MEL), toy_weights())
    weights = load_file("ours/model.safetensors")
    for name, sentence in (
        ("wave.bias", r"has no wave\.weight and has other, for which there is no place"),
        ("another", r"holds tensors such as another, other, which are of no format that fastvoc knows$"),
    ):
        save_file({name: weights["wave.bias"], "other": torch.zeros(1)}, "ours/renamed.safetensors")
        with pytest.raises(ValueError, match=sentence):
            open_checkpoint("ours/renamed.safetensors")
    Path("ours/renamed.safetensors").rename("ours/model.safetensors")
    with pytest.raises(ValueError, match=r"has no wave\.weight, wave\.bias and has another, other, for which"):
        open_checkpoint("ours")


def test_what_fastvoc_only_names_is_opened_once_there_is_a_format_of_the_name() -> None:
    torch.save({"diffusion_embedding.projection1": torch.zeros(1)}, "diffwave.pt")
    with pytest.raises(ValueError, match="is a checkpoint of DiffWave; fastvoc does not open those yet"):
        open_checkpoint("diffwave.pt")
    clue = Format(
        name="diffwave",
        title="DiffWave",
        read=read_toy,
        layers=each("input_projection", "output_projection"),
        clue=lambda seen: "diffusion_embedding.projection1" in seen.names,
    )
    FORMATS.add(clue)
    try:
        with pytest.raises(
            ValueError, match=r"seems to be a part of a checkpoint of DiffWave; it lacks input_projection"
        ):
            open_checkpoint("diffwave.pt")
    finally:
        FORMATS.remove("diffwave")


def test_the_list_keeps_its_order_and_refuses_doubles() -> None:
    def named(name: str, **others: Any) -> Format:
        return Format(name=name, title=name, read=read_toy, **others)

    formats = Formats(named("b", files=("*.b", "*.x")), named("d"))
    formats.add(named("a", files=("*.a", "*.x")))
    formats.add(named("c"), before="d")
    assert [one.name for one in formats] == ["a", "b", "c", "d"]
    assert formats.files == ("*.a", "*.x", "*.b")
    assert formats["c"].title == "c"
    with pytest.raises(ValueError, match="a format 'b' is there already; remove it first"):
        formats.add(named("b"))
    with pytest.raises(ValueError, match="'e' is no format; known: a, b, c, d"):
        formats.add(named("f"), before="e")
    formats.remove("b")
    assert [one.name for one in formats] == ["a", "c", "d"]
    assert not named("without layers").layers and formats["a"].at(Source(Path("x"), None, {})) is None


def test_what_a_format_keeps_is_not_taken_from_it(tmp_path: Path) -> None:
    kept = toy_weights()

    def read(source: Source) -> Checkpoint:
        return replace(read_toy(source), weights=kept)

    write_toy(tmp_path / "toy", VocoderConfig(generator=ToyConfig(), mel=MEL), toy_weights())
    FORMATS.add(replace(TOY, name="keeping", read=read))
    try:
        opened = Vocoder.from_pretrained(tmp_path / "toy")
    finally:
        FORMATS.remove("keeping")
    assert torch.equal(opened.generator.state_dict()["wave.weight"], kept["wave.weight"])
    for weight in opened.generator.parameters():
        weight.zero_()
    assert torch.equal(kept["wave.weight"], toy_weights()["wave.weight"])

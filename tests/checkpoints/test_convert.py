"""Checkpoints of other projects as folders of ours, and ours as folders that other projects open."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
import yaml
from golden import draw

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import InferenceFrames, VocoderConfig, open_checkpoint, save_native
from fastvoc.cli import main
from fastvoc.models import GriffinLimNetConfig, HiFiGANConfig, MelGANConfig

SMALL = HiFiGANConfig(channels=16, kernel_sizes=(3,), dilations=((1, 3),))
MEL = replace(CONVENTIONS["hifigan"], sample_rate=24000, high=None)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with torch.no_grad():
        yield


def a_folder(name: str) -> Path:
    folder = Path(name)
    folder.mkdir()
    return folder


def native(name: str, generator: Any = SMALL, mel: Any = MEL, **others: Any) -> str:
    weights = {key: tensor + 0.01 for key, tensor in generator.build().state_dict().items()}
    save_native(name, VocoderConfig(generator=generator, mel=mel, **others), weights)
    return name


def test_a_foreign_checkpoint_becomes_a_native_folder(capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign.speechbrain(a_folder("their"), replace(SMALL, padding_mode="reflect"), CONVENTIONS["tacotron2"])
    assert main(["convert", str(path), "ours"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "their: HiFi-GAN (SpeechBrain) generator"
    assert any("repeats 5 frames at both ends" in line for line in told)
    assert told[-1] == "ours: written"
    assert sorted(file.name for file in Path("ours").iterdir()) == ["config.json", "model.safetensors"]
    before, after = open_checkpoint(path), open_checkpoint("ours")
    assert after.config == before.config
    assert after.config.inference == InferenceFrames(replicated_frames=5)
    assert all(torch.equal(after.weights[name], tensor) for name, tensor in before.weights.items())


def test_half_precision_is_for_what_was_learned(capsys: pytest.CaptureFixture[str]) -> None:
    generator = GriffinLimNetConfig(mel_bands=80, channels=8, iterations=1, revisions=1)
    native("exact", generator, CONVENTIONS["hifigan"])
    assert main(["convert", "exact", "small", "--half"]) == 0
    exact, small = open_checkpoint("exact").weights, open_checkpoint("small").weights
    for name, tensor in exact.items():
        assert torch.equal(small[name], tensor if name == "filters" else tensor.half())
        assert small[name].dtype == (torch.float32 if name == "filters" else torch.float16)
    capsys.readouterr()
    assert main(["convert", "exact", "theirs", "--half", "--to", "hifigan"]) == 2
    assert "--half: a folder for --to hifigan holds single precision" in capsys.readouterr().err
    exact["stem.bias"][3] = 7e4
    with pytest.raises(ValueError, match=r"stem\.bias holds values beyond 65504"):
        save_native("loud", open_checkpoint("exact").config, exact, half=True)


def original_forward(state: dict[str, torch.Tensor], settings: dict[str, Any], mel: torch.Tensor) -> torch.Tensor:
    """HiFi-GAN by its paper, from the names of the original's file; written here, so that it shares nothing."""
    conv = torch.nn.functional

    def weight(layer: str) -> torch.Tensor:
        g, v = state[f"{layer}.weight_g"], state[f"{layer}.weight_v"]
        return g * v / v.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()

    def convolve(x: torch.Tensor, layer: str, dilation: int = 1) -> torch.Tensor:
        taps = weight(layer).shape[-1]
        side = dilation * (taps - 1) // 2
        return conv.conv1d(x, weight(layer), state[f"{layer}.bias"], padding=side, dilation=dilation)

    x = convolve(mel, "conv_pre")
    blocks = len(settings["resblock_kernel_sizes"])
    for stage, rate in enumerate(settings["upsample_rates"]):
        taps = settings["upsample_kernel_sizes"][stage]
        layer = f"ups.{stage}"
        x = conv.leaky_relu(x, 0.1)
        x = conv.conv_transpose1d(x, weight(layer), state[f"{layer}.bias"], stride=rate, padding=(taps - rate) // 2)
        total = torch.zeros_like(x)
        for block, dilations in enumerate(settings["resblock_dilation_sizes"]):
            y, name = x, f"resblocks.{stage * blocks + block}"
            for unit, dilation in enumerate(dilations):
                inner = convolve(conv.leaky_relu(y, 0.1), f"{name}.convs1.{unit}", dilation)
                y = y + convolve(conv.leaky_relu(inner, 0.1), f"{name}.convs2.{unit}")
            total = total + y
        x = total / blocks
    return convolve(conv.leaky_relu(x, 0.01), "conv_post").tanh()


def test_a_vocoder_becomes_a_folder_that_the_original_opens() -> None:
    assert main(["convert", native("ours"), "theirs", "--to", "hifigan"]) == 0
    assert sorted(file.name for file in Path("theirs").iterdir()) == ["config.json", "g_00000000"]
    content = torch.load("theirs/g_00000000", weights_only=True)
    settings = json.loads(Path("theirs/config.json").read_text())
    assert list(content) == ["generator"]
    assert settings["resblock"] == "1" and settings["seed"] == 1234 and settings["fmax"] is None
    ours, back = open_checkpoint("ours"), open_checkpoint("theirs")
    assert back.config == ours.config
    assert back.notes == ()

    network = SMALL.build().double()
    network.load_state_dict(ours.weights)
    mel = draw(0, 1, 80, 6)
    state = {name: tensor.double() for name, tensor in content["generator"].items()}
    # the file holds single precision, rounded once more in the magnitudes
    torch.testing.assert_close(original_forward(state, settings, mel), network(mel), rtol=0, atol=1e-6)


def test_a_file_travels_there_and_back_with_equal_weights() -> None:
    assert main(["convert", native("ours"), "theirs", "--to", "hifigan"]) == 0
    assert main(["convert", "theirs", "back"]) == 0
    ours, back = open_checkpoint("ours"), open_checkpoint("back")
    for name, tensor in ours.weights.items():
        torch.testing.assert_close(back.weights[name], tensor, rtol=2.0**-23, atol=0)


def test_half_precision_is_not_rounded_once_more_in_the_originals_layout() -> None:
    assert main(["convert", native("ours"), "half", "--half"]) == 0
    assert main(["convert", "half", "theirs", "--to", "hifigan"]) == 0
    half, theirs = open_checkpoint("half"), open_checkpoint("theirs")
    for name, tensor in half.weights.items():
        torch.testing.assert_close(theirs.weights[name].float(), tensor.float(), rtol=2.0**-22, atol=0)


@pytest.mark.parametrize("to", ["hifigan", "melgan"])
def test_frames_around_a_mel_have_no_place_in_the_originals(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    generator, mel = (SMALL, MEL) if to == "hifigan" else (FLAT, CONVENTIONS["melgan"])
    native("ours", generator, mel, inference=InferenceFrames(replicated_frames=5))
    assert main(["convert", "ours", "theirs", "--to", to]) == 1
    assert f"{to}: the original has no setting for the inference's replicated_frames, which is 5" in (
        capsys.readouterr().err
    )
    assert not Path("theirs").exists()


def original_melgan(state: dict[str, torch.Tensor], units: int, mel: torch.Tensor) -> torch.Tensor:
    """MelGAN by its authors' sequence of modules, from the names of their file; written here."""
    conv = torch.nn.functional

    def weight(layer: str) -> torch.Tensor:
        g, v = state[f"{layer}.weight_g"], state[f"{layer}.weight_v"]
        return g * v / v.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()

    def convolve(x: torch.Tensor, layer: str, dilation: int = 1) -> torch.Tensor:
        side = dilation * (weight(layer).shape[-1] - 1) // 2
        x = conv.pad(x, (side, side), "reflect") if side else x
        return conv.conv1d(x, weight(layer), state[f"{layer}.bias"], dilation=dilation)

    x, number = convolve(mel, "model.1"), 3
    for rate in (8, 8, 2, 2):
        layer = f"model.{number}"
        x = conv.conv_transpose1d(
            conv.leaky_relu(x, 0.2), weight(layer), state[f"{layer}.bias"], rate, rate // 2 + rate % 2, rate % 2
        )
        for unit in range(units):
            name = f"model.{number + 1 + unit}"
            inner = convolve(conv.leaky_relu(x, 0.2), f"{name}.block.2", 3**unit)
            x = convolve(x, f"{name}.shortcut") + convolve(conv.leaky_relu(inner, 0.2), f"{name}.block.4")
        number += 2 + units
    return convolve(conv.leaky_relu(x, 0.2), f"model.{number + 1}").tanh()


def test_a_melgan_becomes_a_folder_that_the_original_opens(capsys: pytest.CaptureFixture[str]) -> None:
    generator = MelGANConfig(channels=16, units=2)
    native("ours", generator, CONVENTIONS["melgan"])
    assert main(["convert", "ours", "theirs", "--to", "melgan"]) == 0
    assert sorted(file.name for file in Path("theirs").iterdir()) == ["args.yml", "netG.pt"]
    arguments = yaml.load(Path("theirs/args.yml").read_text(), Loader=yaml.UnsafeLoader)  # as the original does
    assert (arguments.n_mel_channels, arguments.ngf, arguments.n_residual_layers) == (80, 1, 2)
    ours, back = open_checkpoint("ours"), open_checkpoint("theirs")
    assert (back.config, back.notes) == (ours.config, ())
    network = generator.build().double()
    network.load_state_dict(ours.weights)
    mel = draw(0, 1, 80, 6)
    state = {name: tensor.double() for name, tensor in torch.load("theirs/netG.pt", weights_only=True).items()}
    # the file holds single precision, rounded once more in the magnitudes
    torch.testing.assert_close(original_melgan(state, 2, mel), network(mel), rtol=0, atol=1e-6)
    capsys.readouterr()
    Path("theirs/netD.pt").touch()
    for source, sentence in (
        ("ours", "without it the weights beside it cannot be opened; name another folder"),
        (native("hifi"), "the original is a MelGAN, not a hifigan"),
        (native("other", generator), "the original has no setting for the mel's sample_rate, which is 24000"),
    ):
        assert main(["convert", source, "theirs", "--to", "melgan", "--overwrite"]) == 1
        assert sentence in capsys.readouterr().err


def test_onnx_is_asked_for_by_the_name_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "nowhere", "theirs", "--to", "onnx"]) == 2
    assert "--to onnx: is no format that is written; name OUT voice.onnx instead" in capsys.readouterr().err


WIDE = replace(MEL, bands=100)
FLAT = MelGANConfig(channels=16, units=1)

IMPOSSIBLE: dict[str, tuple[Any, Any, str]] = {
    "MelGAN": (FLAT, MEL, "the original is a HiFi-GAN, not a melgan"),
    "reflection": (replace(SMALL, padding_mode="reflect"), MEL, "no setting for padding_mode 'reflect'"),
    "statistics": (replace(SMALL, standardised=True), MEL, "no setting for standardised True"),
    "bands": (replace(SMALL, mel_bands=100), WIDE, "takes mels of 80 bands, not of 100"),
    "decimal": (SMALL, replace(MEL, logarithm="decimal"), "no setting for the mel's logarithm, which is 'decimal'"),
    "centred": (SMALL, replace(MEL, padding="centre"), "no setting for the mel's padding, which is 'centre'"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_the_original_cannot_express_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    generator, mel, reason = IMPOSSIBLE[name]
    assert main(["convert", native("ours", generator, mel), "theirs", "--to", "hifigan"]) == 1
    assert reason in capsys.readouterr().err.replace("\n", " ")
    assert not Path("theirs").exists()


def test_a_result_never_replaces_what_is_converted(capsys: pytest.CaptureFixture[str]) -> None:
    native("ours")
    Path("file").write_text("text")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("text")
    for arguments, reason in (
        (["ours", "ours", "--overwrite"], "holds what is converted"),
        (["ours/model.safetensors", "ours", "--overwrite"], "holds what is converted"),
        (["ours", "file"], "is a file; the result is a folder"),
        (["ours", "full"], "is not empty"),
    ):
        assert main(["convert", *arguments]) == 2
        assert reason in capsys.readouterr().err.replace("\n", " ")
    assert main(["convert", "ours", "full", "--overwrite"]) == 0
    assert sorted(file.name for file in Path("full").iterdir()) == ["config.json", "model.safetensors", "notes.txt"]


def test_info_tells_the_peculiarities_of_a_format(capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign.coqui(a_folder("their"), SMALL, foreign.COQUI_MEL)
    assert main(["info", str(path)]) == 0
    told = capsys.readouterr().out
    assert "HiFi-GAN (Coqui) generator" in told
    assert "the original repeats 5 frames" in told
    assert "replicated_frames" in told
    native("ours")
    assert main(["info", "ours"]) == 0
    assert "replicated_frames" not in capsys.readouterr().out


WRITTEN = {"native": "model.safetensors", "hifigan": "g_00000000", "melgan": "netG.pt"}


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(WRITTEN, 2)))
def test_a_folder_never_holds_the_results_of_two_formats(
    first: str, second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which of the two would be opened is nothing that a user could know."""
    ours = {
        to: native(f"for {to}", *((FLAT, CONVENTIONS["melgan"]) if to == "melgan" else (SMALL, MEL)))
        for to in (first, second)
    }
    assert main(["convert", ours[first], "result", "--to", first]) == 0
    before = {path.name: path.read_bytes() for path in Path("result").iterdir()}
    assert main(["convert", ours[second], "result", "--to", second, "--overwrite"]) == 1
    told = capsys.readouterr().err.replace("\n", " ")
    assert f"result: holds {WRITTEN[first]} of another format, which would be opened instead; name another" in told
    assert {path.name: path.read_bytes() for path in Path("result").iterdir()} == before

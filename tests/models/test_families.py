"""BigVGAN, Vocos, WaveNet and WaveGlow beyond their files: of tensors in memory, as live modules, as ONNX."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_bigvgan
import test_vocos
import test_waveglow_files
import test_wavenet
import torch
import yaml
from test_waveglow_files import TINY
from test_waveglow_files import filled as filled_waveglow
from torch import Tensor, nn

import fastvoc
from fastvoc import Vocoder
from fastvoc.export import write_onnx
from fastvoc.models import hifigan


def bigvgan(folder: Path) -> tuple[Vocoder, dict[str, Any], dict[str, Any] | str]:
    config, mel = test_bigvgan.SMALL, test_bigvgan.SMALL_MEL
    test_bigvgan.written(folder, config, mel)
    state = torch.load(folder / "bigvgan_generator.pt")
    return Vocoder.from_pretrained(folder), state, json.loads((folder / "config.json").read_text())


def vocos(folder: Path) -> tuple[Vocoder, dict[str, Any], dict[str, Any] | str]:
    test_vocos.folder_of(folder, test_vocos.SMALL, test_vocos.settings_of(test_vocos.SMALL))
    state = torch.load(folder / "pytorch_model.bin")
    return Vocoder.from_pretrained(folder), state, yaml.safe_load((folder / "config.yaml").read_text())


def wavenet(folder: Path) -> tuple[Vocoder, dict[str, Any], dict[str, Any] | str]:
    folder.mkdir()
    state = {"state_dict": test_wavenet.original_tensors(test_wavenet.GAUSSIAN)}
    torch.save(state, folder / "checkpoint_step000000003_ema.pth")
    return Vocoder.from_pretrained(folder, config="wavenet-gaussian"), state, "wavenet-gaussian"


def waveglow(folder: Path) -> tuple[Vocoder, dict[str, Any], dict[str, Any] | str]:
    folder.mkdir()
    state = {"state_dict": {name: value.float() for name, value in filled_waveglow(TINY).items()}}
    torch.save(state, folder / "some.pt")
    test_waveglow_files.config_json(folder)
    return Vocoder.from_pretrained(folder / "some.pt"), state, json.loads((folder / "config.json").read_text())


FAMILIES: dict[str, Callable[[Path], tuple[Vocoder, dict[str, Any], dict[str, Any] | str]]] = {
    "BigVGAN": bigvgan,
    "Vocos": vocos,
    "WaveNet": wavenet,
    "WaveGlow": waveglow,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_in_memory_are_read_as_a_file_of_them_is(name: str, tmp_path: Path) -> None:
    opened, state, settings = FAMILIES[name](tmp_path / "folder")
    vocoder = Vocoder.from_state_dict(state, settings)
    assert vocoder.config == opened.config and vocoder.source == opened.source
    ours, theirs = vocoder.generator.state_dict(), opened.generator.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # no mel of anybody, but one that all of them play
    mel = torch.randn(opened.generator.mel_bands, 12) - 4
    given = {} if opened.draws is None else {"seed": 1}
    assert torch.equal(vocoder(mel, check=False, **given), opened(mel, check=False, **given))


class SnakeBlock(nn.Module):
    """A residual block of BigVGAN by its names; a plain activation stands for the smoothed one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2))
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, 3, padding=1) for _ in range(2))
        self.activations = nn.ModuleList(nn.PReLU(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for number in range(2):
            first, second = self.activations[2 * number : 2 * number + 2]
            x = x + self.convs2[number](second(self.convs1[number](first(x))))
        return x


class LiveBigVGAN(nn.Module):
    """With upsamplings inside lists, as the original has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(20, 16, 7, padding=3)
        self.ups = nn.ModuleList([nn.ModuleList([nn.ConvTranspose1d(16, 8, 8, 4, padding=2)])])
        self.resblocks = nn.ModuleList([SnakeBlock(8)])
        self.conv_post = nn.Conv1d(8, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        (up,) = self.ups[0]  # type: ignore[misc]
        return torch.tanh(self.conv_post(self.resblocks[0](up(self.conv_pre(x)))))


class FlatBigVGAN(LiveBigVGAN):
    """With the upsampling where HiFi-GAN has it, so that all names are those of the official HiFi-GAN."""

    def __init__(self) -> None:
        super().__init__()
        self.ups = nn.ModuleList(self.ups[0])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv_post(self.resblocks[0](self.ups[0](self.conv_pre(x)))))


LIVE: dict[str, tuple[Callable[[], Any], str]] = {
    "BigVGAN": (LiveBigVGAN, "LiveBigVGAN is no generator that is known"),
    "with HiFi-GAN's names": (FlatBigVGAN, "FlatBigVGAN"),
    "Vocos": (lambda: nn.ModuleDict({"backbone": nn.Conv1d(20, 8, 7), "head": nn.Linear(8, 66)}), "ModuleDict is no"),
    "fastvoc's own": (lambda: hifigan.V3.build(), "HiFiGAN is fastvoc's own network already; call a Vocoder of it"),
    "fastvoc's own, inside": (lambda: nn.Sequential(test_vocos.SMALL.build()), "Vocos is fastvoc's own network"),
}


@pytest.mark.parametrize("name", LIVE)
def test_live_modules_of_other_families_are_refused_in_a_sentence_and_left_alone(name: str) -> None:
    make, sentence = LIVE[name]
    network = make()
    kind = type(network)
    for use in (fastvoc.accelerate, partial(Vocoder.from_module, mel="hifigan")):
        with pytest.raises(ValueError) as refused:
            use(network)
        assert sentence in str(refused.value) and "\n" not in str(refused.value)
        if "no generator that is known" in str(refused.value):
            assert str(refused.value).endswith("the tensors of others may be what Vocoder.from_state_dict reads")
    assert type(network) is kind and "forward" not in vars(network)


@pytest.mark.parametrize("name", ["WaveNet", "WaveGlow"])
def test_what_no_file_of_operators_can_hold_is_not_exported(name: str, tmp_path: Path) -> None:
    vocoder, _, _ = FAMILIES[name](tmp_path / "folder")
    with pytest.raises(ValueError, match=f"export: {name} cannot be written as ONNX: it is recurrent, and makes"):
        write_onnx(vocoder, tmp_path / "vocoder.onnx")
    assert not (tmp_path / "vocoder.onnx").exists()

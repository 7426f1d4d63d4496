"""What a file is for decides as what it is opened; a face of another kind of use registers from outside."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

import fastvoc
from fastvoc import Vocoder
from fastvoc.audio import MelConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.config import Kinds, config
from fastvoc.faces import Face, face, register
from fastvoc.models import HiFiGANConfig

AUTOENCODERS = Kinds("autoencoder")


@AUTOENCODERS.add
@config
class FoldedConfig:
    kind: Literal["folded"] = "folded"
    size: int = 4

    def build(self) -> Folded:
        return Folded(self)


class Folded(nn.Module):
    def __init__(self, config: FoldedConfig) -> None:
        super().__init__()
        self.config = config
        self.into = nn.Linear(config.size, 2)
        self.out = nn.Linear(2, config.size)


@config
class AutoencoderConfig:
    format: Literal[1] = 1
    generator: FoldedConfig
    sample_rate: int


class Autoencoder(Face[Folded]):
    """Waves to codes and back."""

    CONFIG: ClassVar[Any] = AutoencoderConfig
    GENERATORS: ClassVar[Kinds] = AUTOENCODERS

    def encode(self, wave: Tensor) -> Tensor:
        codes: Tensor = self._generator.into(wave.unflatten(-1, (-1, self.config.generator.size)).to(self.dtype))
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        wave: Tensor = self._generator.out(codes)
        return wave.flatten(-2)

    def _facts(self) -> list[str]:
        return [f"{self.config.sample_rate} Hz"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "_FACES", [*face._FACES])
    register(Autoencoder)


def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    settings = AutoencoderConfig(generator=FoldedConfig(), sample_rate=16000)
    return Autoencoder(Checkpoint(settings, settings.generator.build().state_dict(), "a test"))  # type: ignore[arg-type]


def vocoder() -> Vocoder:
    generator = HiFiGANConfig(mel_bands=6, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4))
    mel = MelConfig(sample_rate=16000, fft_size=64, hop=8, window_size=64, bands=6, low=0, high=8000)
    settings = VocoderConfig(generator=generator, mel=mel)
    return Vocoder(Checkpoint(settings, generator.build().state_dict(), "a test"))


WAVE = torch.linspace(-1, 1, 40)


def test_open_returns_the_face_that_a_folder_has(tmp_path: Path) -> None:
    made = autoencoder()
    made.save_pretrained(tmp_path / "folded")
    vocoder().save_pretrained(tmp_path / "vocoder")
    opened = fastvoc.open(tmp_path / "folded")
    assert type(opened) is Autoencoder
    assert torch.equal(opened.decode(opened.encode(WAVE)), made.decode(made.encode(WAVE)))
    assert opened.config == made.config
    assert type(fastvoc.open(tmp_path / "folded" / "model.safetensors", dtype="float64")) is Autoencoder
    assert type(fastvoc.open(tmp_path / "vocoder")) is Vocoder
    assert type(fastvoc.open()) is Vocoder
    made.save_pretrained(tmp_path / "folded")  # over its own


def test_open_takes_the_options_of_the_face(tmp_path: Path) -> None:
    autoencoder().save_pretrained(tmp_path)
    opened = fastvoc.open(tmp_path, device="cpu", dtype="float64", backend="reference")
    assert (opened.dtype, opened.device.type, opened.backend) == (torch.float64, "cpu", "reference")
    (tmp_path / "config.json").rename(tmp_path / "elsewhere.json")
    moved = fastvoc.open(tmp_path, config=tmp_path / "elsewhere.json")
    assert type(moved) is Autoencoder and moved.dtype == torch.float32
    with pytest.raises(ValueError, match="Autoencoder: 'tpu' is not a backend"):
        fastvoc.open(tmp_path, config=tmp_path / "elsewhere.json", backend="tpu")


def test_the_wrong_face_is_a_sentence(tmp_path: Path) -> None:
    autoencoder().save_pretrained(tmp_path / "folded")
    vocoder().save_pretrained(tmp_path / "vocoder")
    with pytest.raises(ValueError, match=r"^Vocoder: .*folded holds 'folded', which is for Autoencoder; fastvoc\.open"):
        Vocoder.from_pretrained(tmp_path / "folded")
    with pytest.raises(ValueError, match=r"^Autoencoder: .*vocoder holds 'hifigan', which is for Vocoder; fastvoc\."):
        Autoencoder.from_pretrained(tmp_path / "vocoder")


@pytest.mark.parametrize("content", ["{", "[]", '{"generator": 3}', '{"generator": {"kind": []}}', ""])
def test_settings_that_say_nothing_are_no_face(tmp_path: Path, content: str) -> None:
    vocoder().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        fastvoc.open(tmp_path)


def test_nothing_at_a_path_is_said() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        fastvoc.open("nowhere")


def test_a_subclass_of_a_face_opens_what_the_face_does(tmp_path: Path) -> None:
    class Quiet(Vocoder):
        pass

    vocoder().save_pretrained(tmp_path)
    assert type(Quiet.from_pretrained(tmp_path)) is Quiet
    assert type(fastvoc.open(tmp_path)) is Vocoder


def test_a_face_moves_and_says_what_it_is() -> None:
    made = autoencoder()
    assert made.half() is made and made.dtype == torch.float16
    assert made.float().dtype == torch.float32
    made.generator.train()
    assert made.eval() is made and not made.generator.training
    assert repr(made) == "Autoencoder(folded, 16000 Hz, torch.float32 on cpu)"
    assert repr(vocoder()).startswith("Vocoder(hifigan, 6 bands, 16000 Hz, hop 8, torch.float32 on cpu, runs by ")
    assert vocoder().half().explain().keys() == vocoder().explain().keys()
    copied = copy.copy(made)
    copied.generator = FoldedConfig().build()
    assert not torch.equal(copied.encode(WAVE), made.encode(WAVE))
    with pytest.raises(TypeError, match=r"Autoencoder: generator is a int; it must be a torch\.nn\.Module"):
        made.generator = 3


def test_automatic_device_is_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Vocoder.from_pretrained(device="auto").device.type == "cpu"
    with pytest.raises(ValueError, match="Vocoder: device 'cuda': torch sees 0 CUDA devices; use auto or cpu"):
        Vocoder.from_pretrained(device="cuda")
    monkeypatch.setenv("LOCAL_RANK", "one")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="LOCAL_RANK=one: must be a whole number"):
        Vocoder.from_pretrained(device="auto")


def test_rooms_are_there_after_the_import() -> None:
    program = """
import fastvoc, sys
assert "torch" not in sys.modules
names = ["audio", "blocks", "checkpoints", "engine", "models", "noise", "ops", "train"]
assert set(names) <= set(dir(fastvoc))
for name in names:
    assert getattr(fastvoc, name) is sys.modules[f"fastvoc.{name}"]
assert fastvoc.audio.MelConfig and fastvoc.ops.conv1d and fastvoc.open
"""
    subprocess.run([sys.executable, "-c", program], check=True)

"""What users of PyTorch expect: that a vocoder is warmed up, says what it is, and refuses what is not there."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from test_streaming import BANDS, GENERATORS, checkpoint, random_mel

import fastvoc
from fastvoc import Vocoder, native
from fastvoc.engine import Plan


@pytest.mark.parametrize("name", GENERATORS)
def test_a_vocoder_is_warmed_up(name: str) -> None:
    vocoder = Vocoder(checkpoint(name))
    assert vocoder.warm_up([40, 50], batch=2) is vocoder


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
def test_after_warming_up_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    vocoder, made = Vocoder(checkpoint("hifigan")), []
    pack = Plan.__init__
    monkeypatch.setattr(Plan, "__init__", lambda plan, *args, **named: (made.append(1), pack(plan, *args, **named))[1])
    vocoder.warm_up(30)
    assert len(made) == 1
    vocoder(random_mel(BANDS, 20))
    assert len(made) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frames": 0}, "frames is 0; it must be a positive whole number"),
        ({"frames": [10, 2.5]}, "frames is 2.5"),
        ({"frames": True}, "frames is True"),
        ({"frames": 1.5}, "frames is 1.5"),
        ({"frames": None}, "frames is None"),
        ({"frames": 4, "batch": -1}, "batch is -1"),
    ],
)
def test_a_length_that_is_none_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"Vocoder.warm_up: {sentence}"):
        Vocoder(checkpoint("hifigan")).warm_up(**arguments)


def test_unchecked_values_are_not_looked_at() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(vocoder(mel, check=False), vocoder(mel))
        loud = mel + 100
        with pytest.raises(UserWarning, match="mel lies between"):
            vocoder(loud)
        vocoder(loud, check=False)
        broken = mel.clone()
        broken[0, 3] = torch.nan
        with pytest.raises(ValueError, match="1 values that are NaN or infinite"):
            vocoder(broken)
        assert vocoder(broken, check=False).isnan().any()
        waves = vocoder(torch.stack([mel, mel]), lengths=[9, 40], check=False)
        assert [len(wave) for wave in waves] == [9 * vocoder.hop, 40 * vocoder.hop]
    with pytest.raises(ValueError, match="mel has shape"):
        vocoder(mel[1:], check=False)
    with pytest.raises(TypeError, match="must be floating point"):
        vocoder(mel.long(), check=False)


def test_it_moves_as_modules_do() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 20)
    assert vocoder.to(torch.bfloat16) is vocoder and vocoder(mel).dtype == vocoder.dtype == torch.bfloat16
    assert vocoder.to("cpu", torch.float64)(mel).dtype == torch.float64
    assert vocoder.to(torch.device("cpu")).dtype == torch.float64
    with pytest.raises(ValueError, match=r"device 'torch\.float16': is not a device"):
        vocoder.to(torch.float16, torch.float32)


def test_it_is_printed_with_what_runs_it() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    running = next(way for way, reason in vocoder.explain().items() if reason is None)
    assert repr(vocoder) == f"Vocoder(hifigan, 6 bands, 16000 Hz, hop 8, torch.float32 on cpu, runs by {running})"
    assert repr(Vocoder(checkpoint("hifigan"), backend="reference")).endswith(", runs by reference)")


@pytest.mark.parametrize("make", [fastvoc.open, Vocoder.from_pretrained])
def test_what_is_misspelt_or_absent_is_refused_at_once(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="Vocoder: 'cpuu' is not a backend; known: cuda, triton, cpu, reference"):
        make(backend="cpuu")
    with pytest.raises(TypeError, match="float8_e4m3fn is too narrow to compute in"):
        make(dtype="float8_e4m3fn")
    with pytest.raises(
        ValueError, match=r"Vocoder: device 'ipu': torch has it not here \(.+\); use auto, cpu, cuda or"
    ):
        make(device="ipu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="Vocoder: device 'cuda': torch sees 0 CUDA devices; use auto or cpu"):
        make(device="cuda")


def test_help_shows_the_arguments_of_training() -> None:
    assert list(inspect.signature(fastvoc.train).parameters)[:3] == ["config", "data", "folder"]
    assert {"accelerate", "audio", "blocks", "engine", "models", "ops"} <= set(dir(fastvoc))
    assert {name for name in dir(fastvoc) if not name.startswith("__")} == set(fastvoc.__all__) - {"__version__"}


def test_tensors_and_devices_without_values_are_refused_by_name() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan")), torch.empty(BANDS, 40, device="meta")
    sentence = "mel is a tensor on the meta device; it must have values"
    for use in (lambda: vocoder(mel), lambda: vocoder(mel[None], lengths=[3]), lambda: [*vocoder.stream([mel])]):
        with pytest.raises(TypeError, match=sentence):
            use()
    narrow, nested = torch.zeros(BANDS, 40).to(torch.float8_e4m3fn), torch.nested.nested_tensor([torch.zeros(BANDS, 4)])
    with pytest.raises(TypeError, match="float8_e4m3fn; it must be floating point of 16 bits"):
        vocoder(narrow)
    with pytest.raises(TypeError, match="mel is a nested tensor; it must be dense"):
        vocoder(nested)
    with pytest.raises(TypeError, match="wave is a tensor on the meta device"):
        vocoder.mel(torch.empty(9000, device="meta"))
    with pytest.raises(ValueError, match="Vocoder: device 'meta': holds no values; use auto, cpu, cuda or cuda:N"):
        vocoder.to("meta")
    assert vocoder.device.type == "cpu"


@pytest.mark.parametrize("use", ["at once", "a streamer", "a mel"])
def test_warnings_name_the_line_of_the_caller(use: str) -> None:
    vocoder, loud = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 70) + 100
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if use == "at once":
            vocoder(loud)
        elif use == "a streamer":
            vocoder.streamer().push(loud)
        else:
            vocoder.mel(1000 * torch.ones(2000))
    assert [one.filename for one in caught] == [__file__]

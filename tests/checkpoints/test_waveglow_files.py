"""Files of WaveGlow: pickled modules of both versions of the original, dictionaries of tensors, and hostile ones."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from test_waveglow import TINY, filled, mel_of, network, noise_of
from torch import Tensor, nn

from fastvoc import Vocoder
from fastvoc.checkpoints import open_checkpoint
from fastvoc.cli import main
from fastvoc.models import WaveGlowConfig

BANDS = 5
LEGACY = [False, True]


class Plain(nn.Module):
    """What the original's classes are to a pickle: names, and modules inside."""


@contextmanager
def original(file: str) -> Iterator[dict[str, type[nn.Module]]]:
    """Let there be a module of the original's name while something is pickled."""
    module = ModuleType(file)
    for name in ("WaveGlow", "WN", "Invertible1x1Conv", "Evil"):
        setattr(module, name, type(name, (Plain,), {"__module__": file}))
    sys.modules[file] = module
    try:
        yield vars(module)
    finally:
        del sys.modules[file]


def module_of(values: dict[str, Tensor], classes: dict[str, Any], config: WaveGlowConfig) -> nn.Module:
    """Build the original's module of its tensors, as it is in memory: convolutions under weight norm, with hooks."""
    made = classes["WaveGlow"]()
    made.n_flows, made.n_group = config.flows, config.group  # plain attributes of the original, which nothing reads
    made.WN, made.convinv = nn.ModuleList(), nn.ModuleList()
    for _ in range(config.flows):
        made.WN.append(classes["WN"]())
        made.convinv.append(classes["Invertible1x1Conv"]())
    for name in sorted({name.rpartition(".")[0] for name in values}):
        *way, last = name.split(".")
        place: Any = made
        for part in way:
            if not hasattr(place, part):
                setattr(place, part, nn.ModuleList())
            place = getattr(place, part)
        kind: Any = nn.ConvTranspose1d if name == "upsample" else nn.Conv1d
        layer = kind(1, 1, 1)
        if f"{name}.weight_g" in values:
            layer = torch.nn.utils.weight_norm(layer)
        for key in [key for key in values if key.rpartition(".")[0] == name]:
            layer._parameters[key.rpartition(".")[2]] = nn.Parameter(values[key])
        if name.startswith("convinv"):
            layer.bias = None
        (place.append if isinstance(place, nn.ModuleList) else lambda layer, at=last, to=place: setattr(to, at, layer))(
            layer
        )
    return made


def separate(values: dict[str, Tensor], config: WaveGlowConfig) -> dict[str, Tensor]:
    """Divide what the first version of the original had in parts."""
    parts: dict[str, Tensor] = {}
    for name, value in values.items():
        if ".cond_layer." in name:
            for number, rows in enumerate(value.chunk(config.layers)):
                parts[name.replace(".cond_layer.", f".cond_layers.{number}.")] = rows
        elif ".res_skip_layers." in name:
            rows = value.split(config.channels)
            parts[name.replace("res_skip", "skip")] = rows[-1]
            if len(rows) == 2:
                parts[name.replace("res_skip", "res")] = rows[0]
        else:
            parts[name] = value
    return parts


def config_json(folder: Path) -> None:
    """The original's own settings, of which only those of the mel are read, and sigma."""
    data = {"sampling_rate": 8000, "filter_length": 64, "hop_length": 12, "win_length": 64, "mel_fmin": 0.0}
    content = {"data_config": data | {"mel_fmax": 4000.0, "segment_length": 16000}, "train_config": {"sigma": 0.5}}
    (folder / "config.json").write_text(json.dumps(content | {"waveglow_config": {}}))


def check(path: Path) -> None:
    mel = mel_of(1, BANDS, 9, dtype=torch.float64)
    opened = open_checkpoint(path)
    assert opened.source == "WaveGlow (NVIDIA)"
    assert opened.config.mel.sample_rate == 8000 and opened.config.generator.hop == 12
    made = Vocoder(opened, dtype=torch.float64)
    z = noise_of(TINY, 1, 9)
    torch.testing.assert_close(made.generator.inverse(z, mel), network().inverse(z, mel), rtol=0, atol=1e-12)  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("file", ["glow", "glow_old"])
def test_a_pickled_module_is_read_without_its_code(tmp_path: Path, file: str, legacy: bool) -> None:
    values = filled(TINY) if file == "glow" else separate(filled(TINY), TINY)
    with original(file) as classes:
        content = {"model": module_of(values, classes, TINY), "iteration": 5, "learning_rate": 1e-4}
        torch.save(content, tmp_path / "waveglow_5.pt", _use_new_zipfile_serialization=not legacy)
    assert file not in sys.modules
    config_json(tmp_path)
    check(tmp_path)


@pytest.mark.parametrize("place", ["state_dict", "model", "", "separate", "folded"])
def test_dictionaries_of_tensors_are_read(tmp_path: Path, place: str) -> None:
    values = filled(TINY)
    if place == "separate":  # DeepLearningExamples: conditions in parts, and names of data-parallel training
        values = {n: v for n, v in separate(values, TINY).items() if ".cond_layers." in n} | {
            n: v for n, v in values.items() if ".cond_layer." not in n
        }
        values = {f"module.{name}": value for name, value in values.items()}
    if place == "folded":
        norms = {n: v.flatten(1).norm(dim=1).view(-1, 1, 1) for n, v in values.items() if n.endswith("weight_v")}
        whole = {n[:-2]: values[f"{n[:-1]}g"] * values[n] / norm for n, norm in norms.items()}
        values = {n: v for n, v in values.items() if not n.endswith(("_g", "_v"))} | whole
    torch.save({place: values, "iteration": 3} if place in ("state_dict", "model") else values, tmp_path / "some.pt")
    config_json(tmp_path)
    check(tmp_path / "some.pt")


def test_what_the_file_does_not_say_is_the_originals(tmp_path: Path) -> None:
    values = filled(TINY)
    torch.save({"state_dict": values}, tmp_path / "some.pt")
    with pytest.raises(ValueError, match="hop 256 must be a multiple of group 6"):
        open_checkpoint(tmp_path / "some.pt")
    config_json(tmp_path)
    opened = open_checkpoint(tmp_path / "some.pt")
    assert opened.config.generator.deviation == 0.5  # type: ignore[attr-defined]


def test_it_is_converted_and_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {name: value.float() for name, value in filled(TINY).items()}}, tmp_path / "some.pt")
    config_json(tmp_path)
    assert main(["convert", str(tmp_path / "some.pt"), str(tmp_path / "ours")]) == 0
    mel = mel_of(BANDS, 9, dtype=torch.float32)
    first, second = (Vocoder.from_pretrained(tmp_path / name)(mel, seed=1) for name in ("some.pt", "ours"))
    assert torch.equal(first, second)
    assert main(["info", str(tmp_path / "ours")]) == 0
    assert "waveglow" in capsys.readouterr().out


RAN: list[int] = []


class Bomb:
    def __reduce__(self) -> Any:
        return RAN.append, (1,)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("legacy", LEGACY)
def test_nothing_in_a_pickle_runs(tmp_path: Path, legacy: bool) -> None:
    with original("glow") as classes:
        evil = {"model": classes["Evil"]()}
        torch.save(evil, tmp_path / "evil.pt", _use_new_zipfile_serialization=not legacy)
        module = module_of(filled(TINY), classes, TINY)
        module.hook = Bomb()
        torch.save({"model": module}, tmp_path / "bomb.pt", _use_new_zipfile_serialization=not legacy)
    for name, wish in (("evil.pt", "glow.Evil"), ("bomb.pt", r"\w+")):
        with pytest.raises(ValueError, match=f"{name}: (wants to run {wish}|is damaged)"):
            open_checkpoint(tmp_path / name)
    assert not RAN


def test_a_module_that_holds_itself_over_and_over_is_refused(tmp_path: Path) -> None:
    with original("glow") as classes:
        inner = classes["WN"]()
        inner.weight = nn.Parameter(torch.zeros(1))
        for _ in range(40):
            outer = classes["WN"]()
            outer.a, outer.b = inner, inner
            inner = outer
        torch.save({"model": inner}, tmp_path / "deep.pt")
    with pytest.raises(ValueError, match=r"deep.pt: is damaged or cut short .a module holds more than 65536 tensors"):
        open_checkpoint(tmp_path / "deep.pt")


def changed(name: str, change: Any) -> dict[str, Tensor]:
    values = filled(TINY)
    values[name] = change(values[name])
    return values


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({n: v for n, v in filled(TINY).items() if n != "WN.1.end.bias"}, "WN.1.end.bias"),
        (changed("convinv.0.conv.weight", lambda v: v[..., 0]), "convinv.0.conv.weight is missing or has no three"),
        (changed("convinv.1.conv.weight", lambda v: v[:, :3]), "flows.1.mix|convinv.1.conv.weight"),
        (filled(TINY) | {"WN.0.other": torch.zeros(2)}, "WN.0.other"),
        (
            separate(filled(TINY), TINY) | {"WN.0.cond_layers.0.bias": torch.zeros(1).expand(1 << 40)},
            "WN.0.cond_layer",
        ),
    ],
)
def test_what_is_no_whole_waveglow_is_one_sentence(tmp_path: Path, values: dict[str, Tensor], sentence: str) -> None:
    torch.save({"state_dict": values}, tmp_path / "some.pt")
    config_json(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        open_checkpoint(tmp_path / "some.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_damaged_files_of_the_older_layout_end_in_a_sentence(tmp_path: Path) -> None:
    with original("glow") as classes:
        module = module_of(filled(TINY), classes, TINY)
        torch.save({"model": module}, tmp_path / "whole.pt", _use_new_zipfile_serialization=False)
    config_json(tmp_path)
    content, chance = (tmp_path / "whole.pt").read_bytes(), random.Random(0)
    for number in range(30):
        changed = bytearray(content)
        if number % 2:
            del changed[chance.randrange(len(content)) :]
        for _ in range(5 * (number % 2 == 0)):
            changed[chance.randrange(len(content) // 4)] = chance.randrange(256)
        (tmp_path / "damaged.pt").write_bytes(changed)
        try:
            open_checkpoint(tmp_path / "damaged.pt")
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 1200
        else:
            assert number % 2 == 0  # other values of weights

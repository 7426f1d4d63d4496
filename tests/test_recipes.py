"""The recipes: what they say is what the originals did, every one runs, and mistakes are one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fastvoc
from fastvoc.cli import main
from fastvoc.config import to_dict
from fastvoc.models import GriffinLimNetConfig, hifigan, melgan
from fastvoc.train.config import TrainConfig, load_config, recipes
from fastvoc.train.log import read_log
from fastvoc.train.networks import Networks
from fastvoc.train.report import Report

FOLDER = Path(fastvoc.__file__).parent / "recipes"

TINY: dict[str, Any] = {"generator.channels": 16, "segment": 2048, "batch": 2}
"""Every recipe with networks and segments so small that three steps take a second."""
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "melgan": {"channels": 4, "scales": 2, "downsampling": (4, 4)},
    "scale": {"channels": 16, "scales": 2},
    "period": {"channels": 2, "periods": (2, 3)},
    "resolution": {"channels": 4, "resolutions": ((256, 64, 256),)},
}


def read(recipe: str, **changes: Any) -> TrainConfig:
    return load_config(recipe, {"data.recordings": "x"} | changes)


def tiny(recipe: str) -> dict[str, Any]:
    config = read(recipe)
    changes = dict(TINY)
    for number, discriminator in enumerate(config.adversary.discriminators if config.adversary else ()):
        for name, value in DISCRIMINATORS[discriminator.kind].items():
            changes[f"adversary.discriminators.{number}.{name}"] = value
    return changes


def test_these_are_the_recipes() -> None:
    assert recipes() == [
        "griffin-lim-net",
        "hifigan-best",
        "hifigan-finetune",
        "hifigan-v1",
        "hifigan-v2",
        "hifigan-v3",
        "melgan",
        "melgan-keras",
        "melgan-stft",
        "multi-band-melgan",
    ]


@pytest.mark.parametrize("recipe", recipes())
def test_three_steps_on_tones(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow in ("_show", "_draw_curves"):  # pictures take longer than all the rest
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    vocoder = fastvoc.train(recipe, folder=tmp_path, changes=tiny(recipe), smoke=True, device="cpu")
    lines = read_log(tmp_path / "log.jsonl")
    assert [(line["step"], line["kind"]) for line in lines] == [
        (1, "training"),
        (2, "training"),
        (3, "training"),
        (3, "validation"),
    ]
    weights = to_dict(read(recipe).losses)
    terms = {name for name, weight in weights.items() if weight}
    if read(recipe).adversary:
        terms |= {"discriminators", "discriminators_gradient"}
    assert terms | {"generator_gradient"} <= set(lines[2])
    assert all(isinstance(value, (int, float, str)) for line in lines for value in line.values())  # none is null
    opened = fastvoc.Vocoder.from_pretrained(tmp_path)
    mel = opened.mel(torch.randn(4096, generator=torch.Generator().manual_seed(0)) / 10)
    assert torch.equal(opened(mel), vocoder(mel))
    assert opened.config.generator == vocoder.config.generator


@pytest.mark.parametrize("recipe", recipes())
def test_every_line_has_its_reason(recipe: str) -> None:
    lines = (FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    bare = [line for line in lines if line.strip() and "#" not in line and not line.rstrip().endswith(":")]
    assert bare == []
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize(
    ("recipe", "generator"),
    [
        ("hifigan-v1", hifigan.V1),
        ("hifigan-v2", hifigan.V2),
        ("hifigan-v3", hifigan.V3),
        ("melgan", melgan.DESCRIPT),
        ("melgan-keras", melgan.KERAS),
        ("melgan-stft", melgan.DESCRIPT),
        ("multi-band-melgan", melgan.MULTI_BAND),
        ("griffin-lim-net", GriffinLimNetConfig()),
        ("hifigan-best", hifigan.V1),
        ("hifigan-finetune", hifigan.V1),
    ],
)
def test_the_networks_are_the_published_ones(recipe: str, generator: Any) -> None:
    assert read(recipe).generator == generator


@pytest.mark.parametrize(
    ("recipe", "dressed", "discriminators"),
    [
        ("hifigan-v1", 13_936_130, 70_724_591),
        ("hifigan-v2", 928_514, 70_724_591),
        ("hifigan-v3", 1_464_322, 70_724_591),
        ("melgan", 4_266_050, 16_924_086),
        ("multi-band-melgan", 2_539_448, 4_354_998),
        # what Keras counts beyond these is not trained
        ("melgan-keras", 4_646_912 - 254, 16_924_107 - 21),
    ],
)
def test_variables_under_weight_norm_are_as_many_as_the_originals(
    recipe: str, dressed: int, discriminators: int
) -> None:
    with torch.device("meta"):
        networks = Networks(read(recipe), torch.device("meta"))
    counts = [sum(p.numel() for p in network.parameters()) for network in networks.networks().values()]
    assert counts == [dressed, discriminators]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("hifigan-v1", ("adamw", 2e-4, (0.8, 0.99), 0.01, 16, 8192)),
        ("melgan", ("adam", 1e-4, (0.5, 0.9), 0.0, 16, 8192)),
        ("melgan-keras", ("adam", 1e-5, (0.5, 0.9), 0.0, 16, 8192)),
        ("melgan-stft", ("radam", 1e-4, (0.9, 0.999), 0.0, 8, 25600)),
        ("multi-band-melgan", ("adam", 1e-3, (0.9, 0.999), 0.0, 64, 16384)),
    ],
)
def test_optimisers_are_the_originals(recipe: str, settings: tuple[Any, ...]) -> None:
    config = read(recipe)
    one = config.optimiser
    found = (one.kind, one.learning_rate, one.betas, one.weight_decay, config.batch, config.segment)
    assert found == settings


def test_trap_only_hifigan_compares_the_scores() -> None:
    official = {"hifigan-v1", "hifigan-v2", "hifigan-v3", "hifigan-finetune", "hifigan-best"}
    comparing = set()
    for recipe in recipes():
        adversary = read(recipe).adversary
        if adversary is not None and adversary.features_score:
            comparing.add(recipe)
    assert comparing == official


def test_trap_the_official_decay_counts_epochs() -> None:
    per = {recipe: read(recipe).optimiser.schedule.per for recipe in recipes()}
    assert {recipe for recipe, unit in per.items() if unit == "epoch"} == {"hifigan-v1", "hifigan-v2", "hifigan-v3"}


def test_trap_only_keras_pools_by_two() -> None:
    """The three ways of pooling themselves are compared in `test_discriminators.py`."""
    keras = {}
    for recipe in recipes():
        adversary = read(recipe).adversary
        for one in adversary.discriminators if adversary else ():
            if one.kind == "melgan":
                keras[recipe] = one.keras
    assert {recipe for recipe, flag in keras.items() if flag} == {"melgan-keras"}
    assert len(keras) == 4


def test_order_of_the_updates() -> None:
    orders = {}
    for recipe in ("melgan", "hifigan-v1", "melgan-stft", "multi-band-melgan", "melgan-keras"):
        adversary = read(recipe).adversary
        assert adversary is not None
        orders[recipe] = (adversary.order, adversary.objective, adversary.across)
    assert orders == {
        "melgan": ("discriminators-first", "hinge", "sum"),
        "hifigan-v1": ("discriminators-first", "least-squares", "sum"),
        "melgan-stft": ("generator-first", "least-squares", "mean"),
        "multi-band-melgan": ("generator-first", "least-squares", "mean"),
        "melgan-keras": ("together", "least-squares", "mean"),
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optimiser.learning_rat": 1}, "optimiser.learning_rat is not a known field; did you mean 'learning_rate'?"),
        ({"batchsize": 1}, "batchsize is not a known field; did you mean 'batch'?"),
        ({"mel": "hifi-gan"}, "'hifi-gan' is not a mel convention; did you mean 'hifigan'?"),
        ({"segment": 1000}, "segment 1000 is not a multiple of the hop 256; such as 768"),
        ({"generator.rates": [8, 8, 2, 4]}, "a frame every 256 samples but the generator makes 512"),
        ({"losses": {"mel": 45}}, "an adversary needs one"),
        ({"adversary": None}, "need an adversary"),
        ({"losses.subband_stft": 1}, "needs a generator of sub-bands"),
        ({"losses.mel": 0, "adversary.starts_at": 5}, "nothing to minimise"),
        ({"batch": 15, "accumulate": 2}, "batch 15 cannot be divided into 2 equal parts"),
        ({"losses": {}, "adversary": None}, "every weight is zero"),
        ({"optimiser.schedule": {"kind": "cosine"}}, "a cosine needs its length"),
        ({"adversary.discriminators.7.channels": 1}, "nothing called '7' to change"),
        ({"adversary.reuse": True, "adversary.order": "generator-first"}, "reuse needs"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?").replace("(", r"\(")) as raised:
        read("hifigan-v1", **changes)
    assert "\n" not in str(raised.value)


def test_a_recipe_that_is_not_known() -> None:
    with pytest.raises(FileNotFoundError, match=r"hifigan-v4: is neither a recipe nor .*did you mean 'hifigan-v"):
        load_config("hifigan-v4")


def test_recordings_must_be_named() -> None:
    with pytest.raises(ValueError, match="does not say what to train on"):
        load_config("melgan")


def test_a_configuration_is_the_same_from_a_file_from_values_and_from_itself(tmp_path: Path) -> None:
    config = read("hifigan-best", seed=7)
    values = to_dict(config)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert load_config(values) == load_config(path) == load_config(config) == config
    assert load_config(config, {"seed": 8}).seed == 8
    assert values["seed"] == 7


def test_the_command_lists_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{recipe} " in printed for recipe in recipes())


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["hifigan-v5", "--data", "x"], 1, "hifigan-v5: is neither a recipe nor"),
        (["hifigan-v1"], 1, "does not say what to train on"),
        (["hifigan-v1", "--set", "batch"], 2, "--set batch: is not a setting; write NAME=VALUE"),
        (["hifigan-v1", "--set", "a=[1"], 2, "its value is not YAML"),
        (["hifigan-v1", "--data", "x", "--set", "optimiser.learningrate=1"], 1, "did you mean 'learning_rate'?"),
        (["hifigan-v1", "--data", "no-such-folder"], 1, "no-such-folder"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_the_command_trains_with_its_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("_show", "_draw_curves"):
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    values = [f"{name}={json.dumps(value)}" for name, value in tiny("hifigan-v3").items()]
    assert main(["train", "hifigan-v3", "--smoke", "--out", str(tmp_path / "run"), "--set", *values]) == 0
    assert f"done: {tmp_path / 'run'} holds a vocoder of 80 bands" in capsys.readouterr().out
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["step"] == 3

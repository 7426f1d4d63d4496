"""The recipes: what they say is what the originals did, every one runs, and mistakes are one sentence."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

import fastvoc
import fastvoc.audio
from fastvoc.cli import main
from fastvoc.config import read_plain, to_dict
from fastvoc.models import GriffinLimNetConfig, bigvgan, hifigan, melgan, vocos, waveglow, wavenet
from fastvoc.models.nsynth import H512_BO16
from fastvoc.train.config import TrainConfig, load_config, recipes
from fastvoc.train.report.log import read_log
from fastvoc.train.report.report import Report
from fastvoc.train.tasks.gan import GanTask

FOLDER = Path(fastvoc.__file__).parent / "recipes"

TERMS = {
    "gansynth": {"generator", "discriminator", "distance", "penalty", "real_pitch", "fake_pitch", "progress"},
    "nsynth": {"cross_entropy"},
    "waveglow": {"negative_log_likelihood", "noise", "scales", "determinants"},
    "wavenet": {"negative_log_likelihood"},
}
"""What is logged of tasks without losses."""

TINY: dict[str, Any] = {"generator.channels": 16, "segment": 2048, "batch": 2}
"""Every recipe with networks and segments so small that three steps take a second."""
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "melgan": {"channels": 4, "scales": 2, "downsampling": (4, 4)},
    "scale": {"channels": 16, "scales": 2},
    "period": {"channels": 2, "periods": (2, 3)},
    "constant-q": {"channels": 4, "hops": (256,), "bins": (12,)},
    "resolution": {"channels": 4, "resolutions": ((256, 64, 256),)},
    "band": {"channels": 4, "fft_sizes": (256,)},
}


def read(recipe: str, **changes: Any) -> TrainConfig:
    return load_config(recipe, {"data.recordings": "x"} | changes)


def tiny(recipe: str) -> dict[str, Any]:
    config = read(recipe)
    changes = dict(TINY)
    if config.generator.kind == "bigvgan":
        changes["generator.channels"] = 64  # which are halved six times
    for number, discriminator in enumerate(config.adversary.discriminators if config.adversary else ()):
        for name, value in DISCRIMINATORS[discriminator.kind].items():
            changes[f"adversary.discriminators.{number}.{name}"] = value
    if config.generator.kind == "nsynth":
        changes |= {"generator.encoder_channels": 8, "generator.skip_channels": 8, "generator.code_channels": 4}
        changes |= {"generator.layers": 2, "generator.encoder_layers": 2, "task.validation_seconds": 0.2}
        changes |= {"data.validation_clips": 1}
    if config.generator.kind == "gansynth":
        changes["generator.channels"] = [4] * len(config.generator.channels)
    if config.generator.kind == "wavenet":
        changes |= {"generator.layers": 4, "generator.gates": 32, "task.validation_seconds": 0.1}
    return changes


def test_these_are_the_recipes() -> None:
    assert recipes() == [
        "bigvgan-v1",
        "bigvgan-v2",
        "gansynth",
        "gansynth-regression",
        "gansynth-small",
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
        "nsynth",
        "nsynth-small",
        "vocos",
        "waveglow",
        "waveglow-small",
        "wavenet-gaussian",
        "wavenet-mol",
        "wavenet-mulaw",
    ]


@pytest.mark.parametrize("recipe", recipes())
def test_three_steps_on_tones(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow in ("_show", "_draw_curves"):  # pictures take longer than all the rest
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    vocoder = fastvoc.train(recipe, folder=tmp_path, changes=tiny(recipe), smoke=True, device="cpu")
    lines = read_log(tmp_path / "smoke" / "log.jsonl")
    assert [(line["step"], line["kind"]) for line in lines] == [
        (1, "training"),
        (2, "training"),
        (3, "training"),
        (3, "validation"),
    ]
    terms = set(read(recipe).losses) or TERMS[read(recipe).generator.kind]
    if read(recipe).adversary:
        terms |= {"discriminators", "discriminators_gradient"}
    assert terms | {"generator_gradient"} <= set(lines[2])
    assert all(isinstance(value, (int, float, str)) for line in lines for value in line.values())  # none is null
    assert [path.name for path in tmp_path.iterdir()] == ["smoke"]
    opened = fastvoc.open(tmp_path / "smoke")
    assert opened.config.generator == vocoder.config.generator
    if isinstance(opened, fastvoc.Instrument):
        assert opened.config.generator.progress is None  # all blocks have been tried
        assert torch.equal(opened([50, 60]), vocoder([50, 60]))
        return
    if not isinstance(opened, fastvoc.Vocoder):
        wave = torch.randn(4096, generator=torch.Generator().manual_seed(0)) / 10
        assert torch.equal(opened.encode(wave), vocoder.encode(wave))
        return
    mel = opened.mel(torch.randn(4096, generator=torch.Generator().manual_seed(0)) / 10)
    drawn = {"seed": 1} if vocoder.draws else {}
    assert torch.equal(opened(mel, **drawn), vocoder(mel, **drawn))


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
        ("bigvgan-v1", bigvgan.LARGE_24K),
        ("bigvgan-v2", bigvgan.V2_24K),
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
        ("nsynth", H512_BO16),
        ("wavenet-mulaw", wavenet.MU_LAW),
        ("wavenet-mol", wavenet.LOGISTICS),
        ("wavenet-gaussian", wavenet.GAUSSIAN),
        ("vocos", replace(vocos.MEL_24K, padding="same")),
        ("waveglow", waveglow.PUBLISHED),
        ("waveglow-small", waveglow.SMALL),
    ],
)
def test_the_networks_are_the_published_ones(recipe: str, generator: Any) -> None:
    assert read(recipe).generator == generator


@pytest.mark.parametrize(
    ("recipe", "normed", "discriminators"),
    [
        ("hifigan-v1", 13_936_130, 70_724_591),
        ("hifigan-v2", 928_514, 70_724_591),
        ("hifigan-v3", 1_464_322, 70_724_591),
        ("melgan", 4_266_050, 16_924_086),
        ("multi-band-melgan", 2_539_448, 4_354_998),
        ("vocos", 13_531_650, 41_105_770 + 1_413_990),
        # what Keras counts beyond these is not trained
        ("melgan-keras", 4_646_912 - 254, 16_924_107 - 21),
    ],
)
def test_variables_under_weight_norm_are_as_many_as_the_originals(
    recipe: str, normed: int, discriminators: int
) -> None:
    with torch.device("meta"):
        task = GanTask(read(recipe), torch.device("meta"))
    counts = [sum(p.numel() for p in network.parameters()) for network in task.networks().values()]
    assert counts == [normed, discriminators]


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("hifigan-v1", ("adamw", 2e-4, (0.8, 0.99), 0.01, 16, 8192)),
        ("melgan", ("adam", 1e-4, (0.5, 0.9), 0.0, 16, 8192)),
        ("melgan-keras", ("adam", 1e-5, (0.5, 0.9), 0.0, 16, 8192)),
        ("melgan-stft", ("radam", 1e-4, (0.9, 0.999), 0.0, 8, 25600)),
        ("multi-band-melgan", ("adam", 1e-3, (0.9, 0.999), 0.0, 64, 16384)),
        ("vocos", ("adamw", 5e-4, (0.8, 0.9), 0.01, 16, 16384)),
    ],
)
def test_optimisers_are_the_originals(recipe: str, settings: tuple[Any, ...]) -> None:
    config = read(recipe)
    one = config.optimiser
    found = (one.kind, one.learning_rate, one.betas, one.weight_decay, config.batch, config.segment)
    assert found == settings


def test_trap_only_hifigan_bigvgan_and_vocos_compare_the_scores() -> None:
    official = {"hifigan-v1", "hifigan-v2", "hifigan-v3", "hifigan-finetune", "hifigan-best", "vocos"}
    official |= {"bigvgan-v1", "bigvgan-v2"}
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


def leaves(values: Any, name: str = "") -> list[tuple[str, Any]]:
    """List the dotted names of all values that hold no others."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    found = [leaf for key, value in items for leaf in leaves(value, f"{name}.{key}" if name else str(key))]
    return found or [(name, values)]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave values as they are before they are checked, and parse each recipe once: with its anchors."""
    parse = lru_cache(read_plain)
    monkeypatch.setattr("fastvoc.train.config.read_plain", lambda path: deepcopy(parse(path)))
    monkeypatch.setattr("fastvoc.train.config.from_dict", lambda kind, values, where: values)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("recipe", recipes())
def test_a_setting_changes_nothing_but_itself(recipe: str) -> None:
    before = dict(leaves(read(recipe)))
    assert len(before) >= 20
    for name in before:
        assert dict(leaves(read(recipe, **{name: "changed"}))) == before | {name: "changed"}


@pytest.mark.parametrize("recipe", [recipe for recipe in recipes() if read(recipe).adversary])
def test_the_rates_of_both_networks_are_two_settings(recipe: str) -> None:
    for name, other in (("", "adversary."), ("adversary.", "")):
        values = to_dict(read(recipe, **{f"{name}optimiser.learning_rate": 3e-5}))
        rates = dict(leaves(values))
        assert rates[f"{name}optimiser.learning_rate"] == 3e-5
        assert (
            rates[f"{other}optimiser.learning_rate"]
            == dict(leaves(to_dict(read(recipe))))[f"{other}optimiser.learning_rate"]
        )


def test_values_that_a_caller_shares_between_two_places_stay_two_and_its_own() -> None:
    shared = {"kind": "adam", "learning_rate": 1e-3}
    changes = {"optimiser": shared, "adversary.optimiser": shared, "adversary.optimiser.learning_rate": 1e-4}
    config = read("hifigan-v1", **changes)
    assert config.adversary is not None
    assert (config.optimiser.learning_rate, config.adversary.optimiser.learning_rate) == (1e-3, 1e-4)
    assert shared == {"kind": "adam", "learning_rate": 1e-3}


NAMED = [name for name in recipes() if isinstance(read_plain(FOLDER / f"{name}.yaml").get("mel"), str)]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("recipe", NAMED)
@pytest.mark.parametrize("place", ["mel", "loss_mel"])
def test_a_convention_that_has_a_name_is_changed_by_its_fields(recipe: str, place: str) -> None:
    values: Any = read(recipe)
    # without one, the loss has that of the network
    named = to_dict(fastvoc.audio.CONVENTIONS[values.get(place) or values["mel"]])
    for name, _ in leaves(named):
        values = read(recipe, **{f"{place}.{name}": "changed"})
        assert dict(leaves(values[place])) == dict(leaves(named)) | {name: "changed"}


def test_a_part_of_a_convention_is_changed_in_whatever_form_it_is_given(tmp_path: Path) -> None:
    mel = fastvoc.audio.CONVENTIONS["melgan"]
    vocoder = tmp_path / "config.json"
    vocoder.write_text(json.dumps({"mel": to_dict(mel)}), encoding="utf-8")
    values = to_dict(read("melgan"))
    for form in ("melgan", mel, to_dict(mel), str(vocoder)):
        for source, changes in ((values | {"mel": form}, {}), ("melgan", {"mel": form})):
            config = load_config(source, {"data.recordings": "x", "mel.high": 8000} | changes)
            assert config.mel == replace(mel, high=8000)
    both = read("melgan", **{"loss_mel.high": 9000, "mel.sample_rate": 24000})
    assert both.loss_mel == replace(both.mel, high=9000)
    assert both.mel == replace(mel, sample_rate=24000)


@pytest.mark.parametrize("recipe", [name for name in NAMED if name != "bigvgan-v2"])  # it is of one rate
def test_both_mels_are_of_one_sample_rate(recipe: str) -> None:
    sentence = "loss_mel is of 22050 Hz and mel of 16000 Hz, .*; set loss_mel.sample_rate=16000, or loss_mel=null"
    rate = {"mel.sample_rate": 16000, "mel.high": 8000}
    with pytest.raises(ValueError, match=sentence):
        read(recipe, **rate, loss_mel="hifigan-loss")
    for mended in ({"loss_mel": None}, {"loss_mel": "hifigan-loss", "loss_mel.sample_rate": 16000}):
        assert read(recipe, **rate, **mended).mel.sample_rate == 16000


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
        ({"losses.subband_stft": 1}, "losses.subband_stft reads subbands, but the generator hifigan gives wave"),
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


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("config_v1.json", '{"resblock": "1", "upsample_rates": [8, 8, 2, 2]}', "a configuration of HiFi-GAN"),
        ("config.yml", "generator_type: MelGANGenerator\ngenerator_params: {}\n", "a configuration of ParallelWaveGAN"),
        ("config.json", '{"generator": {"kind": "hifigan"}, "mel": {}}', "the config.json of a vocoder"),
    ],
)
def test_configurations_of_other_things_are_told_how_they_are_used(
    name: str, text: str, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{name}: is {what}, not the settings of a run; .*start_from.*continue_from"):
        load_config(tmp_path / name, {"data.recordings": "x"})


def test_whole_numbers_may_have_an_exponent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(
        (FOLDER / "hifigan-v1.yaml").read_text(encoding="utf-8").replace("steps: 2500000", "steps: 25e5"),
        encoding="utf-8",
    )
    config = load_config(tmp_path / "run.yaml", {"data.recordings": "x", "save_every": 1e4})
    assert (config.steps, config.save_every) == (2_500_000, 10_000)
    assert main(["train", "hifigan-v1", "--data", str(tmp_path / "none.wav"), "--set", "steps=1e6"]) == 1
    assert "none.wav" in capsys.readouterr().err  # and not a word of the steps
    assert main(["train", "hifigan-v1", "--data", "x", "--set", "steps=1.5e0"]) == 1
    assert "steps is 1.5; Input should be a valid integer" in capsys.readouterr().err


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
        (["hifigan-v1", "--set", "batch=2", "--set", "seed=1"], 2, "--set is given twice, of which only the last"),
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
    assert f"done: {tmp_path / 'run' / 'smoke'} holds a vocoder of 80 bands" in capsys.readouterr().out
    assert read_log(tmp_path / "run" / "smoke" / "log.jsonl")[-1]["step"] == 3

"""What the pages say is so: their examples run, their links lead somewhere, their names and numbers are the code's."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_bundles
import torch
import yaml
from originals import OfficialGenerator, Trainer, official_discriminators
from test_continuing import (
    kan_bayashi,
    kan_bayashi_settings,
    save_kan_bayashi,
    save_official,
    train_kan_bayashi,
    waves,
)
from test_gansynth import saved as gansynth_saved
from test_notes import tones
from test_nsynth import by_rule
from test_recipes import tiny
from voices import tiny_vits, write_voice

from fastvoc.audio import CONVENTIONS, MelConfig, mel_spectrogram, read_audio, write_audio
from fastvoc.checkpoints import FORMATS
from fastvoc.cli import COMMANDS, main
from fastvoc.config import to_dict
from fastvoc.models import (
    GENERATORS,
    GANSynthConfig,
    GriffinLimNetConfig,
    NSynthConfig,
    bigvgan,
    discriminators,
    hifigan,
    istftnet,
    melgan,
    vocos,
    waveglow,
    wavenet,
)
from fastvoc.models.discriminators import DISCRIMINATORS
from fastvoc.ops import OPS
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.learning.optimisers import OptimiserConfig
from fastvoc.train.report.report import Report
from fastvoc.train.tasks.adversary import AdversaryConfig
from fastvoc.train.tasks.losses import LOSSES
from fastvoc.train.tasks.task import TASKS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [path for path in (*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md") if path.is_file()]
LINKED = [path for path in (*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md") if path.is_file()]
EXAMPLES = {path: re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.S) for path in PAGES}

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the pages are not here")


def title(path: Path) -> str:
    return path.name


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows_of(name: str, heading: str) -> dict[str, list[str]]:
    """Read the first table behind a heading: first cell to the others, without the marks of code."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text_of(name), flags=re.M)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert lines is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()[2:]]
    return {first.strip("`"): others for first, *others in cells}


@pytest.fixture
def lists_are_put_back() -> Iterator[None]:
    """Take out of the package's lists what examples have added."""
    kinds = GENERATORS, DISCRIMINATORS, LOSSES, TASKS
    formats, operators, classes = [one.name for one in FORMATS], set(OPS), [set(one._classes) for one in kinds]
    yield
    for name in [one.name for one in FORMATS if one.name not in formats]:
        FORMATS.remove(name)
    for name in set(OPS) - operators:
        del OPS[name]
    for one, known in zip(kinds, classes, strict=True):
        for name in set(one._classes) - known:
            del one._classes[name]


@pytest.mark.usefixtures("lists_are_put_back")
@pytest.mark.parametrize("page", [path for path, blocks in EXAMPLES.items() if blocks], ids=title)
def test_the_examples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "fastvoc" / "assets" / "demo.wav", "speech.wav")
    lay_voice(page, tmp_path)
    nsynth(tmp_path / "wavenet-ckpt")
    gansynth(tmp_path / "all_instruments")
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(EXAMPLES[page], start=1):
        exec(compile(block, f"{page.name}, example {number}", "exec", dont_inherit=True), names)


def lay_voice(page: Path, folder: Path) -> None:
    """Write a tiny voice under the name of the one that a page speaks with."""
    if (name := "en_US-joe-medium.onnx") in page.read_text("utf-8"):
        write_voice(folder / name, tiny_vits())


def nsynth(folder: Path) -> None:
    """Write a checkpoint of an autoencoder as small as can be."""
    folder.mkdir()
    config = NSynthConfig(encoder_channels=4, encoder_layers=2, channels=4, skip_channels=4, layers=1)
    values = {name: value.float() for name, value in by_rule(config).items()}
    tensorflow_bundles.write(folder / "model.ckpt-200000", values)


def gansynth(folder: Path) -> None:
    """Write a run of an instrument as narrow as can be."""
    gansynth_saved(folder, GANSynthConfig(channels=(2,) * 7))


def commands_of(page: Path) -> list[str]:
    """List the commands of the shell blocks of a page: without comments, and with continued lines joined."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    shell = "".join(block for language, block in blocks if language in ("", "sh", "bash", "console"))
    lines = shell.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in (re.sub(r"(^|\s)#.*", "", line) for line in lines) if line.strip()]


NOT_RUN = {
    r"(\w+=\S+ )*make \w+": "sets up an environment, from the network, or needs a GPU",
    r"pip (install|download) .*": "needs the network",
    r"(pytest|python -m) benchmarks.*": "takes minutes to hours; test_benchmarks.py runs what it is made of",
    r"tensorboard .*": "serves until it is stopped",
    r"fastvoc piper .* --text .*": "needs Piper's own package",
    r"i=0; .*|while .*|i=\$.*|for .*|done .*": "need flite and espeak-ng",
    r"fastvoc notes render .*": "needs FluidSynth; tests/train/data/test_notes.py renders where it is",
    r"fastvoc melody .*": "needs a MIDI file and a package of an extra; tests/faces/test_instrument.py plays one",
    r"fastvoc COMMAND .*|fastvoc train RECIPE .*": "show a form",
}
"""Commands that are not run, as patterns, and why."""

RUN = [
    page
    for page in PAGES
    if any(not any(re.fullmatch(pattern, command) for pattern in NOT_RUN) for command in commands_of(page))
]


@pytest.mark.parametrize("page", RUN, ids=title)
def test_the_commands_of_a_page_run_from_top_to_bottom(
    page: Path, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process, and with training made small: a step, networks of a few channels, no pictures."""
    shutil.copytree(stage, tmp_path, dirs_exist_ok=True)
    lay_voice(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for slow in ("_show", "_draw_curves", "_open_tensorboard"):
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    monkeypatch.setattr("fastvoc.train.material.measure", lambda pairs, mel: {"mel_l1": 0.0})
    for command in commands_of(page):
        if any(re.fullmatch(pattern, command) for pattern in NOT_RUN):
            continue
        before = r"(\w+=\S+ )*((torchrun --nproc-per-node \d+|python) -m )?fastvoc "
        assert re.match(before, command), f"{page.name}: {command}: is neither run nor listed in NOT_RUN"
        arguments = shlex.split(re.sub("^" + before, "", command))
        if arguments[0] == "train":
            arguments = made_small(arguments)
        assert main(arguments) == 0, f"{page.name}: {command}: {capsys.readouterr().err}"


def test_no_reason_is_given_for_a_command_that_no_page_has() -> None:
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, command) for page in PAGES for command in commands_of(page)), pattern


def made_small(arguments: list[str]) -> list[str]:
    """Keep a command as it is, but for the size of the networks and the number of steps."""
    shutil.rmtree("run", ignore_errors=True)  # each begins one
    name = arguments[1]
    # a run goes on with the updates that its optimisers know of, and those on the stage of one
    steps = 2 if any(argument.startswith("continue_from=") for argument in arguments) else 1
    changes = {"data.workers": 0, "steps": steps} | ({} if name.endswith(".yaml") else tiny(name))
    if "--steps" in arguments:
        del changes["steps"]
        arguments[arguments.index("--steps") + 1] = "1"
    settings = [f"{setting}={json.dumps(value)}" for setting, value in changes.items()]
    if "--set" not in arguments:
        return [*arguments, "--set", *settings]
    # behind the page's own, whose steps it replaces
    end = arguments.index("--set") + 1
    while end < len(arguments) and not arguments[end].startswith("--"):
        end += 1
    return [*arguments[:end], *settings, *arguments[end:]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of the pages find where they are run."""
    folder = tmp_path_factory.mktemp("stage")
    sound, rate = read_audio(REPOSITORY / "fastvoc" / "assets" / "demo.wav")
    names = [f"recordings/LJ001-000{number}.wav" for number in range(1, 6)]
    names += [f"speech/LJ001-00{number}.wav" for number in range(28, 34)]
    names += [f"synthesised/{number}.wav" for number in range(4)] + ["speech.wav", "more.wav", "other/a/b.flac"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_audio(folder / name, sound[number * 2000 :][: rate // 2], rate)
    (folder / "mels").mkdir()
    for path in (folder / "recordings").iterdir():
        wave, _ = read_audio(path)
        np.save(folder / "mels" / f"{path.stem}.npy", mel_spectrogram(wave, CONVENTIONS["hifigan"]).numpy())

    official = load_config("hifigan-v1", {"data.recordings": "x", **tiny("hifigan-v1")})
    trainer = Trainer(official, OfficialGenerator(official.generator), official_discriminators((16, 2), (2, 3), 2))
    trainer.official(waves(official, 1, dtype=torch.float32)[0])
    (folder / "hifigan").mkdir()
    save_official(trainer, folder / "hifigan", steps=2_500_000)
    for kind in ("g", "do"):
        (folder / "hifigan" / f"{kind}_00000005").replace(folder / "hifigan" / f"{kind}_02500000")
    for name in ("g_02500000", "config.json"):
        shutil.copy(folder / "hifigan" / name, folder / name)

    nsynth(folder / "wavenet-ckpt")
    gansynth(folder / "all_instruments")
    for part, decays in (("nsynth-train", (0.5, 1.0)), ("nsynth-test", (1.5,))):
        tones(folder / "notes" / part, decays)
    theirs = kan_bayashi()
    (folder / "exp").mkdir()
    save_kan_bayashi(train_kan_bayashi(theirs, 1), folder / "exp", 400_000, kan_bayashi_settings())
    own = to_dict(theirs)
    del own["data"]["recordings"]
    (folder / "my-recipe.yaml").write_text(yaml.dump(own))
    return folder


def documented() -> list[str]:
    """Modules of the package with an example in a docstring."""
    files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "fastvoc").rglob("*.py")]
    with_examples = [path for path in files if ">>> " in (REPOSITORY / path).read_text(encoding="utf-8")]
    return sorted(".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in with_examples)


@pytest.mark.parametrize("module", documented())
def test_the_examples_of_docstrings_give_what_they_show(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert tried and not failed


@pytest.mark.parametrize("page", LINKED, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}, but {path.name} has {anchors(path)}"


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_a_requirement_names_exists() -> None:
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", text_of("requirements.md")))
    assert named
    defined = {
        (path.relative_to(REPOSITORY).as_posix(), node.name)
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert not named - defined


def test_every_file_that_a_requirement_names_exists() -> None:
    named = set(re.findall(r"`((?:fastvoc|csrc|benchmarks)/[\w./]+)`", text_of("requirements.md")))
    assert named
    assert not {name for name in named if not (REPOSITORY / name).exists()}


def test_a_requirement_is_shown_by_a_test_or_planned() -> None:
    rows = re.findall(r"^\| (S\d\.\d+) \|.*\| ([^|]+) \|$", text_of("requirements.md"), re.M)
    assert len(rows) == len(dict(rows)) > 50
    assert not [row for row, shown in rows if "tests/" not in shown and not shown.startswith("planned (")]


def test_every_environment_variable_is_listed() -> None:
    """Variables that every program reads, such as PATH, are not ours to list."""
    kinds = {".py", ".cpp", ".cu", ".h", ".cuh", ".txt", ".sh"}
    folders = [REPOSITORY / name for name in ("fastvoc", "csrc", "benchmarks", "tests")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    read = set()
    for path in (REPOSITORY / "setup.py", *files):
        content = path.read_text(encoding="utf-8")
        read |= set(re.findall(r"""(?:environ(?:\.get\(|\[)|getenv\(|\brank\(|ENV\{)["']?([A-Z][A-Z_]+)""", content))
        if path.suffix == ".sh":
            read |= set(re.findall(r"\$\{([A-Z_]+):-", content))
    assert {"FASTVOC_BACKEND", "FASTVOC_NATIVE", "RANK"} <= read
    section = text_of("operators.md").split("## Environment variables")[1]
    listed = set(re.findall(r"`([A-Z][A-Z_]+)`", section))
    assert not read - listed - {"PATH", "PYTHONPATH"}
    assert not listed - read


def test_settings_have_the_defaults_that_are_named() -> None:
    words = {"none": None, "false": False}
    sections = {"": TrainConfig, "adversary.": AdversaryConfig, "optimiser.": OptimiserConfig}
    rows = {names: row[0] for names, row in rows_of("training.md", "Settings").items() if names != "precision"}
    assert len(rows) > 8
    for names, defaults in rows.items():
        for name, said in zip(re.sub("`", "", names).split(", "), defaults.split(", "), strict=True):
            section = name[: name.find(".") + 1]
            default = sections[section].__pydantic_fields__[name.removeprefix(section)].default
            assert default == (words[said] if said in words else float(said)), name


def test_every_loss_is_listed() -> None:
    names = ", ".join(rows_of("training.md", "Losses and tasks")).replace("`", "").split(", ")
    assert sorted(names) == sorted(loss.kind for loss in LOSSES)


def convention_row(config: MelConfig) -> list[str]:
    gain = "" if config.gain == 1 else f"{config.gain:g} "
    logarithm = "ln" if config.logarithm == "natural" else "log10"
    return [
        str(config.sample_rate),
        f"{config.fft_size} / {config.hop} / {config.window_size}",
        f"{config.bands}, {config.low:g}-{config.highest:g}",
        f"{config.padding}, {config.padding_mode}",
        f"{gain}{logarithm}, {config.floor:g}",
    ]


def test_the_table_of_conventions_is_that_of_the_code() -> None:
    rows = rows_of("mels.md", "The conventions of public projects")
    assert {name: row[:5] for name, row in rows.items()} == {
        name: convention_row(config) for name, config in CONVENTIONS.items()
    }


def test_the_table_of_fields_is_that_of_the_code() -> None:
    assert list(rows_of("mels.md", "The fields of MelConfig")) == [field.name for field in fields(MelConfig)]


def test_the_numbers_of_the_generators_are_those_of_the_code() -> None:
    presets = {"griffinlimnet.GriffinLimNetConfig()": GriffinLimNetConfig()}
    sizes = "BASE_22K BASE_24K LARGE_22K LARGE_24K V2_22K V2_24K V2_44K V2_44K_512"
    for module, names in (
        (bigvgan, sizes),
        (hifigan, "V1 V2 V3"),
        (istftnet, "C8C8I"),
        (melgan, "DESCRIPT KERAS FULL_BAND MULTI_BAND"),
        (wavenet, "MU_LAW LOGISTICS GAUSSIAN NV_WAVENET"),
        (vocos, "MEL_24K ENCODEC_24K WAVENEXT"),
        (waveglow, "PUBLISHED"),
    ):
        presets |= {f"{module.__name__.split('.')[-1]}.{name}": getattr(module, name) for name in names.split()}
    found = {}
    for name, config in presets.items():
        with torch.device("meta"):
            network = config.build()
        past, future = network.receptive_field
        found[name] = [f"{sum(p.numel() for p in network.parameters()):,}", str(network.hop), f"{past}, {future}"]
    assert {name: row[:3] for name, row in rows_of("models.md", "Generators").items()} == found


def test_the_numbers_of_the_discriminators_are_those_of_the_code() -> None:
    for call, (count, *_) in rows_of("models.md", "Discriminators").items():
        with torch.device("meta"):
            network = getattr(discriminators, call.removesuffix("()"))().build()
        assert f"{sum(p.numel() for p in network.parameters()):,}" == count


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_on_the_page(name: str) -> None:
    page = text_of("command-line.md")
    assert f"## {name}\n" in page
    command = COMMANDS[name]
    for field in [field for one in getattr(command, "ACTIONS", (command,)) for field in fields(one)]:
        positional = "Positional" in str(field.type)
        assert positional or f"--{field.name.replace('_', '-')}" in page

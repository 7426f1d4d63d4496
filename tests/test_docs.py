"""What the pages say is so: their examples run, their links lead somewhere, their names and numbers are the code's."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.cli import COMMANDS
from fastvoc.models import GriffinLimNetConfig, discriminators, hifigan, istftnet, melgan

REPOSITORY = Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize("page", [path for path, blocks in EXAMPLES.items() if blocks], ids=title)
def test_the_examples_of_a_page_run_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "fastvoc" / "assets" / "demo.wav", "speech.wav")
    names: dict[str, Any] = {"__name__": page.stem}
    for number, block in enumerate(EXAMPLES[page], start=1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)


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
    named = set(re.findall(r"(tests/\w+\.py)::(\w+)", text_of("requirements.md")))
    assert named
    defined = {
        (f"tests/{path.name}", node.name)
        for path in (REPOSITORY / "tests").glob("test_*.py")
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
    for module, names in ((hifigan, "V1 V2 V3"), (istftnet, "C8C8I"), (melgan, "DESCRIPT KERAS FULL_BAND MULTI_BAND")):
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
            network = getattr(discriminators, call.removesuffix("()"))()
        assert f"{sum(p.numel() for p in network.parameters()):,}" == count


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_on_the_page(name: str) -> None:
    page = text_of("command-line.md")
    assert f"## {name}\n" in page
    for field in fields(COMMANDS[name]):  # type: ignore[arg-type]
        positional = "Positional" in str(field.type)
        assert positional or f"--{field.name.replace('_', '-')}" in page

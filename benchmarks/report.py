"""Writes what the rows say into the pages: `python -m benchmarks.report`.

A page has places for it, which hold what was written last::

    <!-- benchmarks: cpu-chart -->
    <!-- /benchmarks -->

Sections are ``headline``, ``cpu-chart``, ``cuda-chart``, ``vocoders`` (one sound, most threads), ``cpu`` and ``cuda``
(all vocoders), ``left-out``, ``operators``, ``rooflines``, ``kernels``, ``accelerated``, ``default``, ``host-time`` (of
operators on a GPU), ``training``, ``autoregressive`` (WaveNets), ``one-stream`` (of these, on one thread), ``recipes``,
``trials`` (of their switches), ``streaming``, ``processes``, ``scaling``, ``quality``, ``precision``, ``voices`` and
``voice-quality`` (what is heard of it). Under each stands the command that makes its rows. Beside the pages, the speeds
that ``fastvoc bench --compare`` knows are written into the package.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.reporting.charts import draw_roofline, draw_vocoders
from benchmarks.reporting.rows import Row, groups, of, read
from benchmarks.reporting.tables import TABLES, autoregressive, training, vocoders

REPOSITORY = Path(__file__).resolve().parents[1]
PLACE = re.compile(r"(<!-- benchmarks: (\S+) -->\n).*?(<!-- /benchmarks -->)", re.DOTALL)

PAGES = ("autoregressive", "benchmarks", "plans", "default-vocoder", "voices", "triton")
"""Of `docs` that have tables."""

VOCODERS = "pytest benchmarks/test_vocoders.py -k {kind} --thorough --seconds 1,10"
COMMANDS = {
    "cpu-chart": VOCODERS.format(kind="cpu"),
    "cuda-chart": VOCODERS.format(kind="cuda"),
    "headline": "pytest benchmarks/test_headline.py --device cuda",
    "vocoders": VOCODERS.format(kind="cpu"),
    "cpu": VOCODERS.format(kind="cpu"),
    "cuda": VOCODERS.format(kind="cuda"),
    "left-out": VOCODERS.format(kind="cpu"),
    "busy": "pytest benchmarks/test_busy.py --seconds 2",
    "operators": "pytest benchmarks/test_ops.py",
    "rooflines": "pytest benchmarks/test_ops.py",
    "kernels": "pytest benchmarks/test_kernels.py",
    "accelerated": "pytest benchmarks/test_accelerate.py",
    "host-time": "FASTVOC_CUDA_ON_CPU=libfastvoc.so pytest benchmarks/test_host_time.py",
    "default": "pytest benchmarks/test_default.py",
    "training": "pytest benchmarks/test_training.py --rounds 5",
    "autoregressive": "pytest benchmarks/test_autoregressive.py --rounds 5",
    "one-stream": "pytest benchmarks/test_autoregressive.py --rounds 5",
    "recipes": "FASTVOC_SPEECH=folder pytest benchmarks/test_recipes.py --minutes 24",
    "trials": "FASTVOC_SPEECH=folder pytest benchmarks/test_trials.py --minutes 0.5",
    "streaming": "pytest benchmarks/test_streaming.py",
    "processes": "pytest benchmarks/test_processes.py",
    "scaling": "pytest benchmarks/test_processes.py --longest 3600",
    "quality": "FASTVOC_SPEECH=folder pytest benchmarks/test_quality.py",
    "precision": "FASTVOC_SPEECH=folder pytest benchmarks/test_quality.py",
    "voices": "FASTVOC_PIPER=en_US-joe-medium.onnx pytest benchmarks/test_voices.py",
    "voice-quality": "FASTVOC_PIPER=en_US-joe-medium.onnx pytest benchmarks/test_voices.py",
}
"""Section → the command that makes its rows."""


def tables(rows: Iterable[Row]) -> dict[str, str]:
    """Return a table for each section that rows have something for."""
    rows = list(rows)
    return {name: table for name, write in TABLES.items() if (table := write(rows))}


def write_pages(pages: Sequence[Path], rows: list[Row], pictures: Path) -> list[str]:
    """Replace what stands between the marks of pages.

    Parameters
    ----------
    pages : sequence of Path
        Markdown files.
    rows : list of dict
    pictures : Path
        Folder of the charts.

    Returns
    -------
    list of str
        What was written, and which places stayed empty.

    Raises
    ------
    ValueError
        If a page marks a section that there is none of.
    """
    said = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        unknown = sorted({name for _, name, _ in PLACE.findall(text)} - set(COMMANDS))
        if unknown:
            raise ValueError(f"{page}: marks {', '.join(unknown)}; known sections: {', '.join(COMMANDS)}")

        def fill(match: re.Match[str], page: Path = page) -> str:
            section = _section(match[2], rows, pictures, page)
            said.append(f"{page.name}: {match[2]}" + ("" if section else ", for which there are no rows yet"))
            return f"{match[1]}{section}{match[3]}"

        filled = PLACE.sub(fill, text)
        if filled != text:
            page.write_text(filled, encoding="utf-8")
    return said


def summary(rows: list[Row]) -> list[Row]:
    """Return what `fastvoc bench --compare` knows: the speeds of one second of sound, ours and plain PyTorch's."""
    keys = ("kind", "device", "isa", "threads", "network", "precision", "seconds", "commit", "date")
    speeds = []
    for case in groups(
        of(rows, "vocoders", batch=1, seconds=1.0), "device", "threads", "network", "precision"
    ).values():
        made = {row["engine"]: row.get("times_real_time") for row in case}
        plain = made.get("PyTorch") or made.get("PyTorch, narrow weights")
        if made.get("fastvoc"):
            speeds.append({key: case[0].get(key) for key in keys} | {"fastvoc": made["fastvoc"], "pytorch": plain})
    return speeds


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the rows, draw the charts, fill the pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=REPOSITORY / "benchmarks" / "results")
    parser.add_argument(
        "--pages",
        type=Path,
        nargs="*",
        default=[REPOSITORY / "README.md", *(REPOSITORY / "docs" / f"{name}.md" for name in PAGES)],
    )
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "docs" / "pictures")
    parser.add_argument("--speeds", type=Path, default=REPOSITORY / "fastvoc" / "assets" / "speeds.json")
    asked = parser.parse_args(arguments)
    try:
        rows = read(asked.results)
        said = write_pages(asked.pages, rows, asked.pictures)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    if speeds := summary(rows):
        asked.speeds.write_text(json.dumps(speeds, indent=1) + "\n", encoding="utf-8")
        said.append(f"{asked.speeds.name}: {len(speeds)} speeds")
    print("\n".join([f"{len(rows)} rows of {asked.results}", *said]))
    return 0


def _section(name: str, rows: list[Row], pictures: Path, page: Path) -> str:
    """Write a section with the command that makes its rows, or nothing."""
    if name.endswith("-chart"):
        body = _chart(name.removesuffix("-chart"), rows, pictures, page)
    elif name == "rooflines":
        body = _rooflines(rows, pictures, page)
    elif name == "vocoders":
        body = vocoders(_first_screen(rows))
    elif name in ("cpu", "cuda"):
        body = vocoders([row for row in rows if row["kind"] == name])
    elif name == "one-stream":
        body = autoregressive(_of_one_device(of(rows, "autoregressive", batch=1, threads=1)))
    elif name == "training":
        body = training(_of_one_device(of(rows, "training")))
    else:
        body = TABLES[name](rows)
    return f"{body}\n\n{_origin(name, rows)}`{COMMANDS[name]}`\n" if body else ""


def _chart(kind: str, rows: list[Row], pictures: Path, page: Path) -> str:
    path = pictures / f"vocoders-{kind}.svg"
    mine = _of_one_device([row for row in rows if row["kind"] == kind and row["suite"] == "vocoders"])
    return _image(f"Times real time of vocoders, {kind}", path, page) if draw_vocoders(mine, path) else ""


def _rooflines(rows: list[Row], pictures: Path, page: Path) -> str:
    images = []
    for (device,), mine in groups(of(rows, "ops"), "device").items():
        path = pictures / f"roofline-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.svg"
        if draw_roofline(mine, path):
            images.append(_image(f"Operators on {device}", path, page))
    return "\n\n".join(images)


def _first_screen(rows: list[Row]) -> list[Row]:
    """Keep one sound of a second, at most threads, on the device measured last."""
    rows = _of_one_device(of(rows, "vocoders", batch=1, seconds=1.0))
    most = max((row["threads"] for row in rows), default=1)
    return [row for row in rows if row["threads"] == most]


def _of_one_device(rows: list[Row]) -> list[Row]:
    """Keep the rows of the device that was measured last."""
    last = max(rows, key=lambda row: row["date"], default={"device": None})["device"]
    return [row for row in rows if row["device"] == last]


def _origin(name: str, rows: list[Row]) -> str:
    """Say on what, and when, the rows of a section were made."""
    suites = {"operators": "ops", "rooflines": "ops", "one-stream": "autoregressive"}
    suite = suites.get(name, name if name in TABLES else "vocoders")
    suite = "vocoders" if suite == "left-out" else suite
    mine = [row for row in rows if row["suite"] == suite and (name not in ("cpu", "cuda") or row["kind"] == name)]
    mine = [row for row in mine if not name.endswith("-chart") or row["kind"] == name.removesuffix("-chart")]
    newest = max(mine, key=lambda row: row["date"])
    return f"{newest['device']}, torch {newest['torch']}, {newest['date'][:10]}, commit {newest['commit']}: "


def _image(title: str, path: Path, page: Path) -> str:
    return f"![{title}]({Path(os.path.relpath(path, page.parent)).as_posix()})"


if __name__ == "__main__":
    sys.exit(main())

"""The committed rows: which of them count, and how a name is written for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

CASES: dict[str, tuple[str, ...]] = {
    "headline": ("network", "precision", "batch", "frames", "peers", "threads"),
    "vocoders": ("network", "precision", "seconds", "batch", "threads"),
    "busy": ("network", "precision", "seconds", "threads"),
    "ops": ("op", "case", "memory", "dtype", "threads"),
    "accelerated": ("network", "threads"),
    "host-time": ("op", "backend"),
    "default": ("seconds", "threads"),
    "streaming": ("model", "frames", "threads"),
    "autoregressive": ("network", "batch", "threads"),
    "instruments": ("network", "threads"),
    "kernels": ("precision", "channels", "taps"),
    "recipes": ("minutes",),
    "trials": ("channels",),
    "training": ("recipe", "batch", "segment", "threads"),
    "quality": ("clip",),
    "precision": ("clip",),
    "processes": ("network", "precision", "seconds", "threads"),
    "voices": ("voice", "threads"),
    "waveglow": ("network", "precision", "frames", "threads"),
    "voice-quality": ("voice",),
    "scaling": ("axis", "network", "engine"),
}
"""Suite → what makes a case. Rows of one case are comparable only if one run has made them."""

NAMES = {
    "hifigan-v1": "HiFi-GAN V1",
    "hifigan-v2": "HiFi-GAN V2",
    "hifigan-v3": "HiFi-GAN V3",
    "melgan": "MelGAN",
    "mb-melgan": "multi-band MelGAN",
    "bigvgan-base": "BigVGAN base",
    "bigvgan": "BigVGAN",
    "bigvgan-24k": "BigVGAN 24 kHz",
    "griffin-lim-net": "Griffin-Lim network",
    "wavenet": "WaveNet, r9y9",
    "nv-wavenet": "WaveNet, nv-wavenet",
    "nsynth": "NSynth's decoder",
}


def read(folder: Path) -> list[Row]:
    """Read the rows of a folder, and of each case keep those of its newest run, of those by the wall's clock.

    Rows by the processor's are of machines that other work shared: pages that have them say so in words.

    Parameters
    ----------
    folder : Path
        Of JSON files, each a list of rows.

    Raises
    ------
    ValueError
        If a file is not a list of rows that say their suite and date.
    """
    rows: list[Row] = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, list) or not all({"suite", "date"} <= set(row) for row in content):
            raise ValueError(f"{path}: is no list of rows with a suite and a date")
        kind = "cuda" if "-cuda-" in path.name else "cpu"
        # what the rows of the first version do not say
        rows += [
            {"kind": kind, "dtype": "float32"} | row | {"file": path.name}
            for row in content
            if row.get("clock", "wall") == "wall"
        ]
    return newest(rows)


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of each case keep the rows of its newest file."""
    rows = list(rows)
    latest: dict[tuple[Any, ...], tuple[str, str]] = {}
    for row in rows:
        latest[_case(row)] = max(latest.get(_case(row), ("", "")), (row["date"], row.get("file", "")))
    return [row for row in rows if row.get("file", "") == latest[_case(row)][1]]


def of(rows: Iterable[Row], suite: str, **wanted: Any) -> list[Row]:
    """Return the rows of a suite that have these values."""
    return [
        row for row in rows if row["suite"] == suite and all(row.get(key) == value for key, value in wanted.items())
    ]


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by values, in the order in which they first come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return found


def _case(row: Row) -> tuple[Any, ...]:
    keys = CASES.get(row["suite"], tuple(sorted(set(row) - {"date", "file"})))
    return (row["suite"], row["kind"], row["device"], *(str(row.get(key)) for key in keys))

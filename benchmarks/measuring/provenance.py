"""Where a row comes from: machine, versions, commit and date; and where rows go."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import stopwatch
from fastvoc import native
from fastvoc.ops import backends

REPOSITORY = Path(__file__).resolve().parents[2]

PACKAGES = ("numpy", "onnxruntime", "openvino", "transformers", "triton")
"""Whose versions a row carries where they are installed."""


class Rows:
    """All rows of a run. Each is on disk as soon as its test is over, so that a run that is cut off is not lost.

    Parameters
    ----------
    folder : Path, optional
        Gets one JSON file for each suite and device.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.collected: list[dict[str, Any]] = []
        self.stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")

    def add(self, rows: list[dict[str, Any]], device: str) -> list[dict[str, Any]]:
        """Add the rows of one test, and return them with where they come from."""
        if not rows:
            return []
        origin = provenance(device)
        made = [origin | row for row in rows]
        self.collected += made
        if self.folder is None:
            return made
        self.folder.mkdir(parents=True, exist_ok=True)
        for suite in dict.fromkeys(row["suite"] for row in rows):
            same = [row for row in self.collected if (row["suite"], row["kind"]) == (suite, device)]
            path = self.folder / f"{suite}-{device}-{self.stamp}.json"
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(same, indent=1) + "\n", encoding="utf-8")
            partial.replace(path)
        return made


def provenance(device: str) -> dict[str, Any]:
    """Return device, versions, commit, date, and the clock where it is not the world's."""
    own = {} if device != "cpu" or stopwatch.clock == "wall" else {"clock": stopwatch.clock}
    return (
        _origin(device)
        | own
        | {
            "threads": torch.get_num_threads(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
    )


@functools.cache
def _origin(device: str) -> dict[str, Any]:
    origin: dict[str, Any] = {
        "kind": device,
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "isa": None if backends()["cpu"] else next(name for name, n in native.isas().items() if n == native.isa()),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastvoc": _version("fastvoc") or "source",
        "commit": os.environ.get("FASTVOC_COMMIT") or _said("git", "describe", "--always", "--dirty") or "unknown",
    }
    if device == "cuda":
        origin["driver"] = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
        origin["cuda"] = torch.version.cuda
    return origin | {name: found for name in PACKAGES if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str:
    """Return what a command prints, or nothing where there is no such command."""
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        return f"{named.get('model name', platform.machine())} family {named.get('cpu family', '?')}"
    return platform.processor() or platform.machine()

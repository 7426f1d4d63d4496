"""What benchmarks share: options, the machine's own ceilings, and rows that say where they come from."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from stopwatch import seconds

from fastvoc.ops import _native, backends

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastvoc")
    group.addoption("--results", type=Path, help="write the rows as JSON to this folder, such as benchmarks/results")
    group.addoption("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    group.addoption("--threads", type=int, default=1, help="CPU threads")
    group.addoption("--rounds", type=int, default=15, help="timed runs per case, interleaved; the median counts")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return where the tensors are, with the threads set that the command line asks for."""
    torch.set_num_threads(request.config.getoption("--threads"))
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def clock(device: str, request: pytest.FixtureRequest) -> Callable[..., list[float]]:
    """Return a function that times callables in turn, round after round, and gives the median of each in seconds."""
    rounds = request.config.getoption("--rounds")

    def measure(*runs: Callable[[], Any]) -> list[float]:
        for run in runs:
            seconds(run, device)
        rows = [[seconds(run, device) for run in runs] for _ in range(rounds)]
        return [median(column) for column in zip(*rows, strict=True)]

    return measure


@pytest.fixture(scope="session")
def ceilings(device: str) -> dict[str, float]:
    """Measure, in this very run, the most FLOP/s and bytes/s that the machine gives."""
    size = 1 << 26 if device == "cpu" else 1 << 30
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copy = min(seconds(lambda: target.copy_(source), device) for _ in range(7))
    return {"flops": _flops(device), "bytes": 2 * size / copy}


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest, device: str) -> Iterator[list[dict[str, Any]]]:
    """Collect measurements; at the end, write or print them with where they come from."""
    collected: list[dict[str, Any]] = []
    yield collected
    if not collected:
        return
    origin = provenance(device)
    text = json.dumps([row | origin for row in collected], indent=1)
    folder = request.config.getoption("--results")
    if folder is None:
        print()
        for row in collected:
            print(json.dumps(row))
        print(json.dumps(origin))
        return
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    (folder / f"{collected[0]['suite']}-{device}-{stamp}.json").write_text(text + "\n", encoding="utf-8")


def provenance(device: str) -> dict[str, Any]:
    """Return device, versions, commit and date."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        fastvoc = version("fastvoc")
    except PackageNotFoundError:
        fastvoc = "source"
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "isa": None if backends()["cpu"] else next(name for name, n in _native.isas().items() if n == _native.isa()),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastvoc": fastvoc,
        "commit": commit or "unknown",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        return f"{named.get('model name', platform.machine())} family {named.get('cpu family', '?')}"
    return platform.processor() or platform.machine()


def _flops(device: str) -> float:
    if device == "cpu" and backends()["cpu"] is None:
        ffi, library = _native.library()
        scratch, rounds = ffi.new("float[16]"), 2_000_000
        done = library.fastvoc_multiply_add(_native.isa(), rounds, scratch)
        fastest = min(
            seconds(lambda: library.fastvoc_multiply_add(_native.isa(), rounds, scratch), device) for _ in range(7)
        )
        return float(done / fastest * torch.get_num_threads())
    size = 1024 if device == "cpu" else 8192
    matrix = torch.ones(size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: matrix @ matrix, device) for _ in range(7))

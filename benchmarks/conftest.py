"""What benchmarks share: options, the machine's own ceilings, and rows that say where they come from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that benchmarks are the package `benchmarks`

from benchmarks import report
from benchmarks.measuring import ceilings as machine
from benchmarks.measuring import stopwatch
from benchmarks.measuring.first import BUDGET, FIRST, SHORT_BUDGET, First
from benchmarks.measuring.provenance import Rows
from benchmarks.measuring.stopwatch import interleaved, seconds
from benchmarks.reporting.tables import sentences

PRECISIONS = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16")}
OPTIONAL = {"cpu": (), "cuda": ("float16",)}
ROWS = pytest.StashKey[Rows]()
SAID = pytest.StashKey[list[str]]()
"""What is to be told when a test is over."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastvoc")
    group.addoption("--results", type=Path, help="write the rows as JSON to this folder, such as benchmarks/results")
    group.addoption("--device", help="cpu or cuda; by default every device of the machine")
    group.addoption(
        "--threads", default="1,2", help="CPU threads of vocoders; others take the first number (%(default)s)"
    )
    group.addoption("--rounds", type=int, default=15, help="timed runs per case, interleaved; the median counts")
    group.addoption(
        "--clock", default="wall", choices=stopwatch.CLOCKS, help="processor: for one thread where other work runs"
    )
    group.addoption(
        "--budget",
        type=float,
        help=f"seconds per vocoder after which no round begins ({BUDGET:g}; {SHORT_BUDGET:g} if no file is named)",
    )
    group.addoption("--networks", help="names of vocoders, separated by commas; by default all")
    group.addoption("--precisions", help="such as float32,bfloat16; by default all of the device")
    group.addoption("--seconds", default="1", help="of sound, such as 0.2,1,10 (%(default)s)")
    group.addoption("--batches", default="1", help="sounds at once, such as 1,8,32 (%(default)s)")
    group.addoption("--sounds", default="32x344,1x86", help="sounds at once, and frames of each (%(default)s)")
    group.addoption(
        "--minutes", type=float, default=0, help="of training for each recipe; by default recipes are left out"
    )
    group.addoption("--longest", type=float, default=60, help="seconds of sound up to which costs must not grow")
    group.addoption(
        "--thorough",
        action="store_true",
        help="every file, instead of what is asked for first, and what torch.compile makes; takes an hour or more",
    )
    group.addoption("--timings", action="store_true", help="show pytest-benchmark's table of times, too")


def pytest_configure(config: pytest.Config) -> None:
    stopwatch.clock = config.getoption("--clock")
    config.stash[ROWS] = Rows(config.getoption("--results"))
    config.stash[SAID] = []
    config.stash[FIRST] = first = First(config)
    if config.getoption("--budget") is None:
        config.option.budget = SHORT_BUDGET if first.chooses else BUDGET
    if not config.getoption("--timings"):
        config.option.benchmark_quiet = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put whole vocoders first, and leave out what is not asked for first."""
    items[:], left = config.stash[FIRST].sort(items)
    if left:
        config.hook.pytest_deselected(items=left)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if reason := item.config.stash[FIRST].over():
        pytest.skip(reason)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Name the device in every test, so that `-k cpu` selects, and spread vocoders over the options."""
    option, names = metafunc.config.getoption, metafunc.fixturenames
    devices = [option("--device")] if option("--device") else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    threads = sorted({min(count, os.cpu_count() or 1) for count in _numbers(option("--threads"), int)})
    if "voice_threads" in names:
        metafunc.parametrize("voice_threads", threads, ids=lambda count: f"threads{count}")
    if "network" in names:
        from benchmarks.measuring.networks import NETWORKS

        metafunc.parametrize("network", _names(option("--networks"), NETWORKS))
    if "precision" in names:
        points = [
            (device, precision, count)
            for device in devices
            for count in (threads if device == "cpu" else threads[:1])
            for precision in _names(option("--precisions"), PRECISIONS[device], OPTIONAL[device])
        ]
        ids = [f"{d}-{p}-{n} thread{'s'[: n - 1]}" if d == "cpu" else f"{d}-{p}" for d, p, n in points]
        metafunc.parametrize("device,precision,threads", points, ids=ids, indirect=["device"], scope="session")
        if "length" in names:
            metafunc.parametrize("length", _numbers(option("--seconds"), float), ids=lambda value: f"{value:g} s")
            metafunc.parametrize("batch", _numbers(option("--batches"), int), ids=lambda value: f"batch {value}")
    elif "device" in names:
        metafunc.parametrize("device", devices, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return where the tensors are, with the threads set that the command line asks for."""
    torch.set_num_threads(_numbers(request.config.getoption("--threads"), int)[0])
    return str(request.param)


@pytest.fixture(scope="session")
def clock(device: str, request: pytest.FixtureRequest) -> Callable[..., list[float]]:
    """Return a function that times callables in turn, round after round, and gives the median of each in seconds."""
    rounds = request.config.getoption("--rounds")

    def measure(*runs: Callable[[], Any]) -> list[float]:
        for run in runs:
            seconds(run, device)
        return [median(column) for column in interleaved(runs, device, rounds=rounds)]

    return measure


@pytest.fixture(scope="session")
def ceilings(device: str) -> dict[str, float]:
    """Measure, in this very run, the most FLOP/s and bytes/s that the machine gives."""
    return machine.ceilings(device, torch.get_num_threads())


@pytest.fixture(scope="session")
def files(device: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a network's weights in the forms that engines start from, once.

    It takes the name of the network, and those of engines; by default all that can run here.
    """
    from benchmarks.measuring.networks import NETWORKS, seeded_vocoder
    from benchmarks.peers.engines import forms
    from benchmarks.peers.exports import write_files

    folder = tmp_path_factory.mktemp("networks")

    def make(network: str, engines: Iterable[str] | None = None) -> Path:
        wanted = forms(device, engines)
        place = folder / "-".join([network, *sorted(wanted)])
        if not place.exists():
            write_files(place, seeded_vocoder(NETWORKS[network]), wanted)
        return place

    return make


@pytest.fixture
def rows(request: pytest.FixtureRequest, device: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the measurements of a test; they are kept, and what they say is told, as soon as it is over."""
    collected: list[dict[str, Any]] = []
    yield collected
    request.config.stash[SAID] += sentences(request.config.stash[ROWS].add(collected, device))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Tell what a test has found, as soon as what it prints is no longer caught."""
    result = yield
    said, reporter = item.config.stash[SAID], item.config.pluginmanager.get_plugin("terminalreporter")
    for sentence in said:
        reporter.ensure_newline()
        reporter.write_line(sentence)
    said.clear()
    return result


if find_spec("pytest_benchmark") is None:

    @pytest.fixture
    def benchmark() -> SimpleNamespace:
        """Stand in for pytest-benchmark on a bare machine; rows have their own times."""
        return SimpleNamespace(pedantic=lambda run, **settings: run(), extra_info={})


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the rows as tables, behind all others."""
    rows = config.stash[ROWS].collected
    for title, table in report.tables(rows).items():
        terminalreporter.section(title)
        terminalreporter.write_line(table)


def _numbers(text: str, kind: Callable[[str], Any]) -> list[Any]:
    return [kind(number) for number in text.split(",")]


def _names(text: str | None, known: Iterable[str], optional: Iterable[str] = ()) -> list[str]:
    """Keep the names that are asked for; by default all but the optional ones."""
    return list(known) if text is None else [name for name in (*known, *optional) if name in text.split(",")]

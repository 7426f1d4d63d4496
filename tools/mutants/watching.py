"""Plugin of pytest: notes which lines of the package each test runs, its seconds, and whether it passed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

TEST = "FASTVOC_MUTANTS_TEST"  # names the test to the processes that it starts; read in the settings of coverage
OUTCOMES = "FASTVOC_MUTANTS_OUTCOMES"  # the file where outcomes go
END = "FASTVOC_MUTANTS_END"  # the time after which no further test begins

SETTINGS = """
[run]
source = {package}
data_file = {data}
parallel = true
context = ${{{test}-}}
disable_warnings = no-data-collected, module-not-imported, dynamic-conflict
patch = _exit
"""


def settings(package: Path, data: Path) -> str:
    """Return what a configuration file of coverage has to say."""
    return SETTINGS.format(package=package, data=data, test=TEST)


MOST = 16
"""Cases of one test that are watched, evenly over all: the others run much the same lines. Of kernels it is four times
as many, which are different kernels."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = 4 * MOST if config.option.keyword else MOST
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = set()
    for each in cases.values():
        count = min(most, len(each))
        kept |= {each[number * len(each) // count] for number in range(count)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    running = coverage.Coverage.current()
    assert running is not None, "these tests have to be started by coverage"
    running.switch_context(item.nodeid)
    os.environ[TEST] = item.nodeid
    try:
        return (yield)
    finally:
        os.environ.pop(TEST, None)
        running.switch_context("")
        running.save()  # what is known stays, should a later test not end
        if time.time() > float(os.environ[END]):
            item.session.shouldstop = "the time is over"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    line = json.dumps([report.nodeid, report.outcome, report.duration])
    with Path(os.environ[OUTCOMES]).open("a", encoding="utf-8") as file:
        file.write(line + "\n")

"""Runs tests in a copy of the tree, each time in a process that has the libraries loaded already."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tree

SLACK = 60  # seconds that every trial has, beside a multiple of what its tests took when they were watched
PATIENCE = 5.0
FURTHER = 10.0  # seconds of cases that were not watched


@dataclass(frozen=True)
class Outcome:
    """What became of some tests: "passed", "failed" or "too slow", and which failed."""

    result: str
    failed: tuple[str, ...] = ()


class Trials:
    """A copy of the tree, into which one fault at a time is put.

    Parameters
    ----------
    folder : Path
        Empty, and only for this.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tree.copy(folder)
        os.environ.update(tree.environment(folder))
        sys.dont_write_bytecode = True
        _load_libraries()

    @contextlib.contextmanager
    def fault(self, file: str, content: str) -> Iterator[None]:
        """Put other content into a file for a while."""
        path = self.folder / file
        before = path.read_bytes()
        path.write_text(content, encoding="utf-8")
        try:
            yield
        finally:
            path.write_bytes(before)

    def run(self, tests: list[str], seconds: float, *, stop: bool = True) -> Outcome:
        """Run tests in this order, those in an environment of their own last, until one fails or to the end."""
        failed: list[str] = []
        for variable in sorted({_variable(test) for test in tests}):
            part = [test for test in tests if _variable(test) == variable]
            outcome = self._run(variable, part, seconds, stop=stop)
            failed += outcome.failed
            if outcome.result == "too slow" or (outcome.result == "failed" and stop):
                return Outcome(outcome.result, tuple(failed))
        return Outcome("failed" if failed else "passed", tuple(failed))

    def _run(self, variable: str, tests: list[str], seconds: float, *, stop: bool) -> Outcome:
        log = self.folder / ".mutants" / "failed"
        log.unlink(missing_ok=True)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _become(self.folder, variable, tests, log, stop=stop)
        deadline = time.monotonic() + SLACK + PATIENCE * seconds
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                failed = tuple(log.read_text(encoding="utf-8").split("\n")[:-1]) if log.exists() else ()
                code = os.waitstatus_to_exitcode(status)
                _kill_group(child)
                named = tuple(
                    f"{variable} {test}".strip() for test in failed or ([] if code in (0, 5) else ["a crash"])
                )
                return Outcome("failed" if named else "passed", named)
            time.sleep(0.05)
        _kill_group(child)
        os.waitpid(child, 0)
        return Outcome("too slow")


class _Only:
    """A plugin of pytest: runs these tests in this order, then for a while further cases of them, and no other.

    It writes down which failed.
    """

    def __init__(self, tests: list[str], log: Path, further: float) -> None:
        self.order = {test: number for number, test in enumerate(tests)}
        self.log = log
        self.further = further
        self.end: float | None = None

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        functions = {test.partition("[")[0] for test in self.order}
        ranks: Counter[str] = Counter()
        places: dict[Any, tuple[int, int]] = {}
        for item in items:
            function = item.nodeid.partition("[")[0]
            if item.nodeid in self.order:
                places[item] = (0, self.order[item.nodeid])
            elif self.further and function in functions:
                ranks[function] += 1
                places[item] = (1, ranks[function])
        items[:] = sorted(places, key=places.__getitem__)

    def pytest_runtest_protocol(self, item: Any) -> bool | None:
        if item.nodeid not in self.order:
            self.end = self.end or time.monotonic() + self.further
            if time.monotonic() > self.end:
                return True  # nothing more is to be done about this test
        return None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._write(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._write(f"{report.nodeid} (collection)")

    def _write(self, line: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _variable(test: str) -> str:
    """Return the variable that a test needs in its environment, such as ``TRITON_INTERPRET=1``, or nothing."""
    before, _, after = test.partition(" tests/")
    return before if after else ""


def _become(folder: Path, variable: str, tests: list[str], log: Path, *, stop: bool) -> None:
    """Run the tests and end; all of it in the child."""
    code = 3
    try:
        if variable:
            name, _, os.environ[name] = variable.partition("=")
            tests = [test.removeprefix(f"{variable} ") for test in tests]
        os.setsid()
        with Path(os.devnull).open("r+b", buffering=0) as nothing:
            for number in (0, 1, 2):
                os.dup2(nothing.fileno(), number)
        os.chdir(folder)
        own = {str(tree.REPOSITORY), str(Path(__file__).parent), ""}
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in own)]
        import pytest

        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", *(["-x"] if stop else [])]
        code = int(pytest.main([*options, *files], plugins=[_Only(tests, log, FURTHER if stop else 0)]))
    finally:
        os._exit(code)


def _load_libraries() -> None:
    """Import what the package and its tests import from elsewhere, which takes longer than most tests."""
    names = set()
    for file in (*tree.tracked("tests/*.py"), *tree.tracked(f"{tree.PACKAGE}/*.py")):
        text = (tree.REPOSITORY / file).read_text(encoding="utf-8")
        names |= set(re.findall(r"^(?:import|from) ([a-z_][\w.]*)", text, re.MULTILINE))
    # Triton is told before it loads whether it interprets.
    own = {
        tree.PACKAGE,
        "benchmarks",
        "triton",
        "__future__",
        *(Path(file).stem for file in tree.tracked("tests/*.py")),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(names):
            if name.partition(".")[0] not in own:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)

"""Which tests run a line: collected once per file of tests, and kept in a folder that Git ignores."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import tree
import watching

# Tests of what compilers make of C++ and Triton, of GPUs, and of whole trainings: minutes each, and no line of the
# package's Python that others leave out. So are tests that are marked as slow.
LEFT_OUT = {
    f"test_{name}.py"
    for name in (
        *("build", "cuda", "cuda_compile", "cuda_gpu", "native_checks"),
        *("overfit", "triton", "triton_compile", "triton_gpu"),
    )
}
LONGEST = 600  # seconds for a file of tests; what is known by then counts


@dataclass(frozen=True)
class Run:
    """A file of tests, and how it is run."""

    file: str
    variable: str = ""
    """Of the environment, such as ``TRITON_INTERPRET=1``; the names of tests then begin with it."""
    expression: str = ""
    """Which of its tests, as ``pytest -k`` takes it."""

    @property
    def record(self) -> Path:
        """Where it is kept what these tests run."""
        said = f"{self.variable} {self.expression}".encode()
        digest = hashlib.sha256((tree.REPOSITORY / self.file).read_bytes() + (said if self.variable else b""))
        return tree.CACHE / "tests" / f"{self.stem}-{digest.hexdigest()[:16]}.json"

    @property
    def stem(self) -> str:
        """How the names of its records begin."""
        return Path(self.file).stem + ("-" + self.variable.partition("=")[0].lower() if self.variable else "")

    def named(self, test: str) -> str:
        """Return the name under which a test of the file is known."""
        return f"{self.variable} {test}" if self.variable else test


def runs() -> list[Run]:
    """Return the files of tests that are watched; kernels for GPUs run where tests let the CPU stand in for one."""
    plain = [Run(file) for file in tree.tracked("tests/*test_*.py") if Path(file).name not in LEFT_OUT]
    triton, contract = "TRITON_INTERPRET=1", "tests/ops/test_ops.py"
    found = [*plain, Run("tests/gpu/triton/interpreted.py", triton), Run(contract, triton, "triton and not bfloat16")]
    for library in tree.REPOSITORY.glob("build/cuda-on-cpu-*/libfastvoc.so"):  # as test_cuda.py leaves it
        cuda = f"FASTVOC_CUDA_ON_CPU={library.relative_to(tree.REPOSITORY)}"
        found += [Run("tests/gpu/cuda/hosted.py", cuda), Run("tests/gpu/cuda/hosted_gradients.py", cuda)]
        found.append(Run(contract, cuda, "cuda and not float32"))
    return found


@dataclass
class Watched:
    """What a file of tests was seen to run: the seconds of each test that passed, and tests by file and line."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]
    sources: dict[str, str]


def known() -> list[Watched]:
    """Return what every file of tests runs; what is not known of a file as it is now is watched first."""
    found = []
    missing = [(run, run.record) for run in runs() if not run.record.is_file()]  # named after the tests as they are now
    if missing:
        print(f"watching what the tests run: {len(missing)} files of tests", flush=True)
        with tempfile.TemporaryDirectory(prefix="fastvoc-mutants-") as folder:
            tree.copy(Path(folder))
            for run, record in missing:
                started = time.monotonic()
                _collect(run, record, Path(folder))
                print(f"  {run.named(run.file)}: {time.monotonic() - started:.0f} s", flush=True)
    for run in runs():
        record = json.loads(run.record.read_text(encoding="utf-8"))
        tests = [run.named(test) for test in record["tests"]]
        lines = {
            file: {int(line): [tests[index] for index in indices] for line, indices in by_line.items()}
            for file, by_line in record["lines"].items()
        }
        sources = {file: _kept(digest).read_text(encoding="utf-8") for file, digest in record["sources"].items()}
        seconds = {run.named(test): duration for test, duration in record["seconds"].items()}
        found.append(Watched(seconds=seconds, lines=lines, sources=sources))
    return found


def _kept(digest: str) -> Path:
    return tree.CACHE / "sources" / digest


def _collect(run: Run, record: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fastvoc-mutants-") as scratch:
        outcomes, data, config = (Path(scratch) / file for file in ("outcomes", "coverage", "settings"))
        config.write_text(watching.settings(folder / tree.PACKAGE, data), encoding="utf-8")
        outcomes.touch()
        environment = os.environ | tree.environment(folder)
        if run.variable:
            name, _, value = run.variable.partition("=")
            environment[name] = value
        environment |= {"COVERAGE_PROCESS_START": str(config), watching.OUTCOMES: str(outcomes)}
        environment[watching.END] = str(time.time() + LONGEST)
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
        command = [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", "-m", "pytest", "-q"]
        command += ["-p", "watching", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
        command += ["-k", run.expression, run.file]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(2 * LONGEST)  # it ends by itself, unless a test does not
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _keep(run, record, folder, _seconds(outcomes), _lines(data, folder))


def _seconds(outcomes: Path) -> dict[str, float]:
    """Return the seconds of tests that passed, with all that they set up."""
    seconds: dict[str, float] = defaultdict(float)
    failed = set()
    for line in outcomes.read_text(encoding="utf-8").splitlines():
        test, outcome, duration = json.loads(line)
        seconds[test] += duration
        if outcome != "passed":
            failed.add(test)
    return {test: duration for test, duration in seconds.items() if test not in failed}


def _lines(data: Path, folder: Path) -> dict[str, dict[int, set[str]]]:
    """Return tests by file and line, of all processes."""
    lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for part in data.parent.glob(f"{data.name}.*"):
        measured = coverage.CoverageData(basename=str(part))
        measured.read()
        for path in measured.measured_files():
            file = Path(path).relative_to(folder).as_posix()
            for line, contexts in measured.contexts_by_lineno(path).items():
                # A process that a test started has a name of its own beside that of what it runs.
                lines[file][line] |= {name for context in contexts for name in context.split("|") if "::" in name}
    return lines


def _keep(
    run: Run, record: Path, folder: Path, seconds: dict[str, float], lines: dict[str, dict[int, set[str]]]
) -> None:
    tests = sorted(seconds)
    index = {test: number for number, test in enumerate(tests)}
    sources = {}
    for file in lines:
        content = (folder / file).read_bytes()
        sources[file] = hashlib.sha256(content).hexdigest()[:16]
        _write(_kept(sources[file]), content)
    by_file: dict[str, Any] = {
        file: {line: sorted(index[test] for test in by if test in index) for line, by in sorted(by_line.items())}
        for file, by_line in sorted(lines.items())
    }
    for older in record.parent.glob(f"{run.stem}-{'[0-9a-f]' * 16}.json"):
        older.unlink()
    known = {"tests": tests, "seconds": seconds, "lines": by_file, "sources": sources}
    _write(record, json.dumps(known).encode())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def recorded_lines(before: str, now: str) -> dict[int, int]:
    """Return for each line of a file as it is the line it had when tests were watched; new lines are left out."""
    known: dict[int, int] = {}
    matcher = difflib.SequenceMatcher(None, before.splitlines(), now.splitlines(), autojunk=False)
    for first, second, size in matcher.get_matching_blocks():
        known |= {second + offset + 1: first + offset + 1 for offset in range(size)}
    return known

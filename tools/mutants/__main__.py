"""Puts small faults into the package, one at a time, and says which of them no test notices."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import covered
import tree
from choice import Choice
from mutations import Mutant, mutants_of, sample
from trials import Trials

# Shapes of published models and edges, for tests and benchmarks: a fault there is another test.
LEFT_ALONE = "cases.py"


def main() -> int:
    """Return 0 where every mutant was caught, else 1."""
    options = _options()
    files = tree.tracked(f"{tree.PACKAGE}/*.py") if options.all else tree.changed(options.base)
    files = [file for file in files if file.endswith(".py") and not file.endswith(LEFT_ALONE)]
    sources = {file: (tree.REPOSITORY / file).read_text(encoding="utf-8") for file in files}
    mutants = [mutant for file in files for mutant in mutants_of(file, sources[file])]
    drawn = sample(mutants, sources, options.count, options.seed)
    where = "the package" if options.all else f"{len(files)} files that differ from {options.base}"
    print(f"{len(drawn)} of {len(mutants)} mutants of {where}, seed {options.seed}", flush=True)
    if not drawn:
        return 0
    choice = Choice(covered.known(), options.seconds)
    with tempfile.TemporaryDirectory(prefix="fastvoc-mutants-", ignore_cleanup_errors=True) as folder:
        judge = _Judge(Trials(Path(folder)), choice, sources)
        end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
        try:
            for number, mutant in enumerate(drawn, start=1):
                if time.monotonic() > end:
                    print(f"{options.minutes} minutes are over")
                    break
                judge.try_out(mutant, f"{number}/{len(drawn)}")
            judge.doubt()
        except KeyboardInterrupt:
            print("interrupted")
    return judge.summary(len(drawn))


class _Judge:
    def __init__(self, trials: Trials, choice: Choice, sources: dict[str, str]) -> None:
        self.trials = trials
        self.choice = choice
        self.sources = sources
        self.results: dict[Mutant, str] = {}
        self.caught_by: dict[Mutant, str] = {}
        self.unfit: set[str] = set()
        """Tests that fail without a fault, too."""

    def try_out(self, mutant: Mutant, number: str) -> None:
        """Run a mutant's tests, and say what became of it."""
        begun = time.monotonic()
        tests = [test for test in self.choice.tests(mutant) if test not in self.unfit]
        source, by = self.sources[mutant.file], ""
        if not tests:
            result = "survived, run by no test"
        else:
            seconds = sum(self.choice.seconds[test] for test in tests)
            with self.trials.fault(mutant.file, mutant.apply(source)):
                outcome = self.trials.run(tests, seconds)
            result = {"passed": "survived", "failed": "caught", "too slow": "caught by time"}[outcome.result]
            by = outcome.failed[0] if outcome.failed else ""
            if by in self.choice.seconds:
                self.caught_by[mutant] = by
        self.results[mutant] = result
        said = by or f"{len(tests)} tests"
        seconds = time.monotonic() - begun
        print(f"{number} {result}: {mutant.file}:{mutant.line} {mutant.kind} ({said}; {seconds:.0f} s)", flush=True)
        if result.startswith("survived"):
            print(mutant.diff(source), flush=True)

    def doubt(self) -> None:
        """Run the tests that caught mutants without a mutant; where one fails, its mutants are tried again."""
        while True:
            tests = sorted(set(self.caught_by.values()))
            seconds = sum(self.choice.seconds[test] for test in tests)
            failed = set(self.trials.run(tests, seconds, stop=False).failed) & set(tests) if tests else set()
            if not failed:
                return
            self.unfit |= failed
            for mutant, test in list(self.caught_by.items()):
                if test in failed:
                    print(f"again, since {test} fails without a mutant, too")
                    del self.caught_by[mutant]
                    self.try_out(mutant, "again")

    def summary(self, drawn: int) -> int:
        """Print the counts."""
        counts = Counter(self.results.values())
        caught = counts["caught"] + counts["caught by time"]
        print(f"\n{len(self.results)} of {drawn} mutants tried; " + ", ".join(f"{n} {r}" for r, n in counts.items()))
        if self.results:
            print(f"{100 * caught / len(self.results):.1f} % caught")
        return int(caught < len(self.results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--base", default="main", help="files that differ from this revision are mutated (%(default)s)")
    parser.add_argument("--all", action="store_true", help="mutate the whole package")
    parser.add_argument("--count", type=int, default=50, help="mutants to draw (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of tests for each mutant (%(default)s)")
    parser.add_argument("--minutes", type=float, default=0, help="after which no further mutant is tried; 0 is never")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

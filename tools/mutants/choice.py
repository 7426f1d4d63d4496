"""Which tests a mutant is tried with: those that run its line, fastest first, different tests before further cases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import tree
from covered import Watched, recorded_lines
from mutations import Mutant, function_around, names_assigned, runs_when_called


class Choice:
    """Chooses among what was watched.

    Parameters
    ----------
    watched : list of Watched
    budget : float
        Seconds that the tests of one mutant took together when they were watched.
    """

    def __init__(self, watched: list[Watched], budget: float) -> None:
        self.budget = budget
        self.seconds: dict[str, float] = {}
        self._by_line: dict[str, dict[int, set[str]]] = {}
        self._watched = watched
        for each in watched:
            self.seconds |= each.seconds

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests for a mutant, in the order in which they are tried."""
        return self._fitting(self._candidates(mutant))

    def _candidates(self, mutant: Mutant) -> set[str]:
        source = _source(mutant.file)
        found = self._of(mutant.file, range(mutant.first, mutant.last + 1))
        if found and runs_when_called(source, mutant.line):
            return found
        # What runs at import has no test of its own: those that run what surrounds it, or what names it.
        names = set(names_assigned(source, mutant.line))
        for file in tree.tracked(f"{tree.PACKAGE}/*.py") if names else ():
            found |= self._of(file, _lines_naming(file, frozenset(names)))
        for test in self.seconds:
            if names and _lines_naming(test.partition("::")[0].split(" ")[-1], frozenset(names)):
                found.add(test)
        around = function_around(source, mutant.line)
        if around is not None:
            found |= self._of(mutant.file, around)
        return found if names or around else found | self._of(mutant.file, range(1, source.count("\n") + 2))

    def _of(self, file: str, lines: Iterable[int]) -> set[str]:
        if file not in self._by_line:
            by_line: dict[int, set[str]] = defaultdict(set)
            self._by_line[file] = by_line
            for each in self._watched:
                if file in each.lines:
                    for now, before in recorded_lines(each.sources[file], _source(file)).items():
                        by_line[now].update(each.lines[file].get(before, ()))
        return set().union(*(self._by_line[file].get(line, set()) for line in lines))

    def _fitting(self, tests: set[str]) -> list[str]:
        cases: dict[str, list[str]] = defaultdict(list)
        for test in sorted(tests & self.seconds.keys(), key=lambda test: (self.seconds[test], test)):
            cases[test.partition("[")[0]].append(test)
        ranked = [(rank, self.seconds[test], test) for each in cases.values() for rank, test in enumerate(each)]
        chosen: list[str] = []
        left = self.budget
        for _, seconds, test in sorted(ranked):
            if seconds <= left or not chosen:
                chosen.append(test)
                left -= seconds
        return chosen


@cache
def _source(file: str) -> str:
    return (tree.REPOSITORY / file).read_text(encoding="utf-8")


@cache
def _lines_naming(file: str, names: frozenset[str]) -> tuple[int, ...]:
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
    return tuple(number for number, line in enumerate(_source(file).splitlines(), start=1) if pattern.search(line))

"""The small faults of `make mutants`: what is changed, what is left alone, and that nothing else is touched."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

MUTANTS = Path(__file__).resolve().parents[2] / "tools" / "mutants"


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"mutants_{name}", MUTANTS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = sys.modules[specification.name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


mutations = load("mutations")

SOURCE = '''"""Where 1 < 2 and nothing is changed."""
__all__ = ["f", "g"]
limit: Annotated[int, Field(ge=0)] = 3
"""At least 2."""


def f(x: Literal[1], *, fill: bool = True) -> "list[int] | None":
    """Say 1 + 1."""
    if x < limit and not x.flag:  # 1 < 2
        raise ValueError(f"x is {x + 1}, not " + "less than 3")
    with lock:
        g(x, y, key=-x)
    state.value = [n for n in (x or y) if n is not None]
    logger.warning("%d", 1 + 1)
    return min(x ** 2, 1.5) * (  # one
        y)
'''

CHANGED = {
    ("limit: Annotated[int, Field(ge=0)] = 3", "limit: Annotated[int, Field(ge=0)] = 4"),
    ("fill: bool = True", "fill: bool = False"),
    ("if x < limit and not x.flag:", "if x <= limit and not x.flag:"),
    ("if x < limit and not x.flag:", "if x < limit or not x.flag:"),
    ("if x < limit and not x.flag:", "if x < limit and bool(x.flag):"),
    ("if x < limit and not x.flag:", "if (not (x < limit and not x.flag)):"),
    ('raise ValueError(f"x is {x + 1}, not " + "less than 3")', "pass"),
    ("with lock:", 'with __import__("contextlib").nullcontext():'),
    ("g(x, y, key=-x)", "pass"),
    ("g(x, y, key=-x)", "g(y, x, key=-x)"),
    ("g(x, y, key=-x)", "g(x, y)"),
    ("g(x, y, key=-x)", "g(x, y, key=(x))"),
    ("state.value = [n for n in (x or y) if n is not None]", "pass"),
    ("(x or y)", "(x and y)"),
    ("if n is not None]", "if n is None]"),
    ("if n is not None]", "if (not (n is not None))]"),
    ('logger.warning("%d", 1 + 1)', "pass"),
    ("min(x ** 2, 1.5)", "max(x ** 2, 1.5)"),
    ("min(x ** 2, 1.5)", "min(1.5, x ** 2)"),
    ("x ** 2", "x * 2"),
    ("x ** 2", "x ** 3"),
    ("1.5", "3.0"),
    ("1.5) * (  # one", "1.5) / (  # one"),
}


def test_every_kind_of_fault_is_put_in_and_nothing_that_is_only_said_is_changed() -> None:
    mutants = [mutant for mutant in mutations.mutants_of("file.py", SOURCE) if mutant.reads_otherwise(SOURCE)]
    found = {mutant.apply(SOURCE) for mutant in mutants}
    assert found == {SOURCE.replace(before, after, 1) for before, after in CHANGED}


def test_a_mutant_knows_the_lines_of_its_statement_and_shows_one_change() -> None:
    (mutant,) = (m for m in mutations.mutants_of("file.py", SOURCE) if m.replacement == "/")
    assert (mutant.line, mutant.first, mutant.last, mutant.kind) == (15, 15, 16, "other arithmetic")
    changed = [line for line in mutant.diff(SOURCE).splitlines()[3:] if line[0] in "+-"]
    assert changed == ["-    return min(x ** 2, 1.5) * (  # one", "+    return min(x ** 2, 1.5) / (  # one"]


def test_a_sample_is_that_of_its_seed_and_has_one_mutant_of_a_line() -> None:
    mutants = mutations.mutants_of("file.py", SOURCE)
    sources = {"file.py": SOURCE}
    drawn = mutations.sample(mutants, sources, 4, 0)
    assert mutations.sample(mutants, sources, 6, 0)[:4] == drawn
    assert mutations.sample(mutants, sources, 4, 1) != drawn
    lines = [mutant.line for mutant in mutations.sample(mutants, sources, 99, 0)]
    assert sorted(lines) == sorted({mutant.line for mutant in mutants})


def test_what_is_drawn_from_the_package_can_be_read() -> None:
    folder = MUTANTS.parents[1] / "fastvoc" / "train"
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("s*.py"))}
    mutants = [mutant for file, source in sources.items() for mutant in mutations.mutants_of(file, source)]
    assert len(mutants) > sum(source.count("\n") for source in sources.values()) // 5
    for mutant in mutations.sample(mutants, sources, 40, 0):
        before = sources[mutant.file]
        assert ast.dump(ast.parse(mutant.apply(before))) != ast.dump(ast.parse(before))

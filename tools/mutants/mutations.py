"""Small faults in Python code: what each changes, found by syntax and applied to the text, so that a diff is small."""

from __future__ import annotations

import ast
import difflib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
_COMPARISONS |= {"is": "is not", "is not": "is", "in": "not in", "not in": "in"}
_ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "//": "*", "%": "//", "**": "*", "@": "*"}
_ARITHMETIC |= {"<<": ">>", ">>": "<<", "&": "|", "|": "&", "^": "&"}
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SAID = {"warn", "debug", "info", "warning", "error", "exception", "print", "add_argument"}
"""Calls whose arguments are words for people."""
_WORDS = {"description", "help", "label", "title", "examples", "stacklevel"}
"""Arguments that are."""


@dataclass(frozen=True)
class Mutant:
    """One fault: a piece of a file, and what stands there instead."""

    file: str
    first: int
    """First line of the statement, or of the head of a compound one."""
    last: int
    line: int
    """Where the change begins."""
    kind: str
    start: int
    """In bytes."""
    end: int
    replacement: str

    def apply(self, source: str) -> str:
        """Return the file with the fault."""
        content = source.encode()
        return (content[: self.start] + self.replacement.encode() + content[self.end :]).decode()

    def diff(self, source: str) -> str:
        """Return the change, as `diff -u` shows it."""
        before, after = source.splitlines(), self.apply(source).splitlines()
        return "\n".join(difflib.unified_diff(before, after, self.file, self.file, n=1, lineterm=""))

    def reads_otherwise(self, source: str) -> bool:
        """Tell whether the file can still be parsed, and is another program."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def sample(mutants: list[Mutant], sources: dict[str, str], count: int, seed: int) -> list[Mutant]:
    """Draw mutants, one of a line at most; a larger sample of a seed begins with the smaller one."""
    drawn: list[Mutant] = []
    lines = set()
    for mutant in random.Random(seed).sample(mutants, len(mutants)):
        if len(drawn) == count:
            break
        if (mutant.file, mutant.line) not in lines and mutant.reads_otherwise(sources[mutant.file]):
            lines.add((mutant.file, mutant.line))
            drawn.append(mutant)
    return drawn


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return every fault that may be put into a file, in its order; a few of them do not read otherwise."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda mutant: (mutant.start, mutant.end, mutant.replacement))


class _Finder(ast.NodeVisitor):
    """Walks through a file and leaves out what is only said: docstrings, annotations, messages."""

    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.content = source.encode()
        self.starts = [0]
        for line in self.content.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Mutant] = []
        self.lines = (1, 1)

    # ---- places in the text

    def _start(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self.starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)

    def _text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        return self.content[self._start(node) : self._end(node)].decode()

    def _add(self, kind: str, start: int, end: int, replacement: str) -> None:
        line = self.content.count(b"\n", 0, start) + 1
        self.found.append(Mutant(self.file, *self.lines, line, kind, start, end, replacement))

    def _replace(self, kind: str, node: ast.expr | ast.stmt | ast.keyword, replacement: str) -> None:
        self._add(kind, self._start(node), self._end(node), replacement)

    def _operator(self, kind: str, left: ast.expr, right: ast.expr, table: dict[str, str]) -> None:
        """Change the operator between two operands, where brackets and comments may stand too."""
        start = self._end(left)
        between = self.content[start : self._start(right)].decode()
        names = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in sorted(table, key=len, reverse=True))
        if match := re.search(names, re.sub(r"#.*", lambda comment: " " * len(comment[0]), between)):
            self._add(kind, start + match.start(), start + match.end(), table[" ".join(match[0].split())])

    # ---- statements

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            outer = self.lines
            body = getattr(node, "body", None) or getattr(node, "cases", None)
            last = node.end_lineno or node.lineno
            if isinstance(body, list) and isinstance(body[0], ast.stmt):
                last = max(node.lineno, body[0].lineno - 1)
            self.lines = (node.lineno, last)
            super().visit(node)
            self.lines = outer
        else:
            super().visit(node)

    def _all(self, nodes: list[ast.stmt] | list[ast.expr] | list[ast.keyword]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._all([default for default in (*node.args.defaults, *node.args.kw_defaults) if default is not None])
        self._all(node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._all(node.body)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            if isinstance(node.target, ast.Attribute):
                self._replace("dropped assignment", node, "pass")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if "__all__" in names:
            return
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self._replace("dropped assignment", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace("dropped assignment", node, "pass")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace("dropped del", node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace("dropped raise", node, "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._replace("dropped call", node, "pass")
        self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        self._replace("continue for break", node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._replace("break for continue", node, "break")

    def visit_Import(self, node: ast.Import) -> None:
        return

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            self._all(node.orelse)
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if item.optional_vars is None:
                self._replace("dropped with", item.context_expr, '__import__("contextlib").nullcontext()')
        self.generic_visit(node)

    # ---- expressions

    def _negate(self, test: ast.expr) -> None:
        if not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._replace("negated condition", test, f"(not ({self._text(test)}))")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            self._operator("other comparison", left, right, _COMPARISONS)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in pairwise(node.values):
            self._operator("and for or", left, right, {"and": "or", "or": "and"})
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sides = (node.left, node.right)
        words = any(
            isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
            for side in sides
        )
        types = isinstance(node.op, ast.BitOr) and any(isinstance(side, ast.Constant) for side in sides)
        if not words and not types:
            self._operator("other arithmetic", node.left, node.right, _ARITHMETIC)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("dropped not", node, f"bool({self._text(node.operand)})")
        elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self._replace("dropped minus", node, f"({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._replace("other constant", node, str(not value))
        elif isinstance(value, int):
            self._replace("other constant", node, str(value + 1))
        elif isinstance(value, float):
            self._replace("other constant", node, repr(2 * value if value else 1.0))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not (isinstance(node.value, ast.Name) and node.value.id in ("Literal", "Annotated")):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _SAID:
            return
        if name in _OPPOSITES and isinstance(node.func, ast.Name):
            self._replace(f"{_OPPOSITES[name]} for {name}", node.func, _OPPOSITES[name])
        if name in ("isinstance", "issubclass", "cast", "TypeVar", "getattr"):
            return
        if len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2]):
            first, second = node.args[:2]
            middle = self.content[self._end(first) : self._start(second)].decode()
            swapped = self._text(second) + middle + self._text(first)
            self._add("swapped arguments", self._start(first), self._end(second), swapped)
        places: list[ast.expr | ast.keyword] = sorted([*node.args, *node.keywords], key=self._start)
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg in _WORDS:
                continue
            index = places.index(keyword)
            start = self._start(keyword) if index == 0 else self._end(places[index - 1])
            follower = places[index + 1] if index == 0 and len(places) > 1 else None
            end = self._end(keyword) if follower is None else self._start(follower)
            before = self.content[start : self._start(keyword)]
            if before.strip() in (b"", b","):
                self._add("dropped argument", start, end, "")
        self.visit(node.func)
        self._all(node.args)
        self._all([keyword for keyword in node.keywords if keyword.arg not in _WORDS])


def names_assigned(source: str, line: int) -> Iterator[str]:
    """Yield the names that a statement of this line gives a value to, where it stands in a module or class."""
    tree = ast.parse(source)
    scopes: list[tuple[list[ast.stmt], str | None]] = [(tree.body, None)]
    while scopes:
        body, owner = scopes.pop()
        for node in body:
            if isinstance(node, ast.ClassDef):
                scopes.append((node.body, node.name))
            inside = node.lineno <= line <= (node.end_lineno or node.lineno)
            if inside and isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (target.id for target in targets if isinstance(target, ast.Name))
                if owner is not None:
                    yield owner


def function_around(source: str, line: int) -> range | None:
    """Return the lines of the innermost function or class that a line belongs to, or None."""
    best: range | None = None
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if line in lines and (best is None or len(lines) < len(best)):
                best = lines
    return best


def runs_when_called(source: str, line: int) -> bool:
    """Tell whether a line stands in the body of a function, and so does not run when its file is imported."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return any(node.body[0].lineno <= line <= (node.end_lineno or node.lineno) for node in functions)

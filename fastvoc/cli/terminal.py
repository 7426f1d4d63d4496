"""What is printed: lines for scripts, tables for people, a progress bar for whoever watches a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

PIPE_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""


def complain(line: str) -> None:
    """Print one line to standard error."""
    print(" ".join(line.split()), file=sys.stderr)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; without columns' names it has no header."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=any(columns), box=None, pad_edge=False
    )
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        # a Text is taken as it is, where a string would lose what stands in brackets
        table.add_row(*(Text(str(value)) for value in row))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(table)
    console.print()


def progress(items: Sequence[T], title: str) -> Iterator[T]:
    """Go through items, with a bar on a terminal once a second has passed."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(title, total=len(items))
    begin = time.monotonic()
    try:
        for item in items:
            yield item
            bar.advance(task)
            if not bar.live.is_started and time.monotonic() - begin > 1:
                bar.start()
    finally:
        bar.stop()

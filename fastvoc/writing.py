"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ending of the names of files and folders that are not complete."""

_READABLE = 64
"""Bytes of the longest temporary name that repeats the whole name: names may have 255, on some file systems 143."""


def temporary_path(path: Path) -> Path:
    """Return where a file is written before it is renamed, another place for each process and thread.

    So two that write one file do not write into each other. It lies in the same folder, so that renaming is one step,
    and its name is short, so that whatever name is possible for the result is possible for what is not complete yet.
    """
    name = os.fsencode(path.name)  # which takes names that are no text too
    ending = f".{os.getpid()}-{threading.get_native_id()}{PARTIAL}"
    if len(name) + len(ending) <= _READABLE:
        return path.with_name(path.name + ending)
    return path.with_name(hashlib.sha256(name).hexdigest()[:32] + ending)


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which is renamed to `path` where nothing was raised, and else removed.

    Parameters
    ----------
    path : Path
        In a folder that exists; a file of this name is replaced.

    Yields
    ------
    Path
        As `temporary_path` returns it.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

"""The numbers of a run as JSON lines, each complete or absent, however the process ended."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal["training", "validation"]


class Log:
    """A file of JSON lines that is only appended to, in the order of the steps.

    The first line that is written cuts off lines of the same and of later steps: a run that resumes from a checkpoint
    makes these again, and a curve must not go through them twice.

    Parameters
    ----------
    path : Path
        Made at the first line; what is there stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def write(self, step: int, kind: Kind, numbers: Mapping[str, float]) -> None:
        """Append a line; numbers that are not finite become null, as JSON has none.

        Raises
        ------
        OSError
            If the line cannot be written, such as on a full disk.
        """
        if self._file is None:
            self._cut(step)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        line = json.dumps({"step": step, "kind": kind, "time": round(time.time(), 3), **finite}, ensure_ascii=False)
        data = f"{line}\n".encode()
        before = os.fstat(self._file).st_size
        # One call for the whole line, past any buffer: a process that is killed leaves nothing behind in one.
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, before)  # or the next line would follow half of this one
            raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes of a line fit")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _cut(self, step: int) -> None:
        if not self.path.exists():
            return
        keep = 0
        for end, entry in _entries(self.path):
            if entry is not None and entry["step"] >= step:
                break
            keep = end
        # also cuts off the beginning of a line that a kill interrupted
        os.truncate(self.path, keep)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log, also while a run writes it.

    Returns
    -------
    list of dict
        `step`, `kind`, `time` (seconds since 1970) and the numbers of each line; None is a number that was not finite.
    """
    return [entry for _, entry in _entries(path) if entry is not None]


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield where each line ends, and what it says; None for a line that a broken disk has left unreadable."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            yield end, entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None

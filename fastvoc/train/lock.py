"""One process trains in a folder: who comes second is told who is there.

The lock is the system's, on a file that names its holder: it ends with the process, whatever ended that, and holds
between machines on file systems that share locks, as NFS does. `lockf` and not `flock`, which processes that read would
inherit and hold on to when the one that trains is killed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastvoc.train import state
from fastvoc.train.learning import parallel

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock.json"

_logger = logging.getLogger(__name__)

_held: set[str] = set()
"""Files that this process holds: the system would let it take them again."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder in a `with` block; all processes of a run share the first one's lock.

    Raises
    ------
    OSError
        If another run is being trained there: one sentence that names its process, machine and beginning.
    """
    made = not folder.exists()
    handle, refusal = _take(folder) if parallel.rank() == 0 else (None, "")
    try:
        refusal = parallel.of_first(refusal)
        if refusal:
            raise OSError(refusal)
        yield
    finally:
        if handle is not None:
            _give_back(folder / LOCK, handle)
            if made:
                with suppress(OSError):  # unless something has been written there
                    folder.rmdir()


def _take(folder: Path) -> tuple[int | None, str]:
    """Return the open file, which is locked, or why it cannot be."""
    try:
        state.make_folder(folder)
    except OSError as error:
        return None, str(error)
    path = folder / LOCK
    name = os.path.realpath(path)
    if name in _held:
        return None, f"{folder}: is being trained already by this process ({os.getpid()}); name another folder"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = _holder(handle)
                os.close(handle)
                return None, f"{folder}: is being trained {holder}; wait for its end, stop it, or name another folder"
            _logger.warning("%s: cannot be locked (%s); see that no other process trains there", folder, error.strerror)
        # the one before may have removed it in between
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                break
        os.close(handle)
    own = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):  # a full disk ends no run that it does not hurt
        os.ftruncate(handle, 0)
        os.write(handle, f"{json.dumps(own)}\n".encode())
    _held.add(name)
    return handle, ""


def _give_back(path: Path, handle: int) -> None:
    with suppress(OSError):
        path.unlink()
    _held.discard(os.path.realpath(path))
    os.close(handle)


def _holder(handle: int) -> str:
    try:
        holder: Any = json.loads(os.pread(handle, 1000, 0))
        return f"by process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "by another process"

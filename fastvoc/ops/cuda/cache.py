"""Bytes that take long to make, made once by all processes of a machine and kept on disk.

A file is whole or not there, whoever is killed when: it is written under another name, and its own checksum is looked
at whenever it is read. Who makes it holds a lock that the system releases with the process. Where nothing can be
written, everything works as well, but slower, and says so.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PATIENCE = 600.0
"""Seconds to wait for another process that makes the same; one that was stopped keeps its lock for ever."""

_CHECKSUM = 64
_logger = logging.getLogger(__name__)


def folder() -> Path:
    """Return where files are kept: what `FASTVOC_CACHE` says, or `fastvoc` among the user's caches."""
    own = os.environ.get("FASTVOC_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~").expanduser() / ".cache") / "fastvoc"


def once(name: str, make: Callable[[], bytes]) -> tuple[bytes, str]:
    """Return what `make` returns, from disk if any process has made it before.

    Parameters
    ----------
    name : str
        Of the file; it has to say all that the bytes depend on.
    make : callable
        Whatever it raises is raised here.

    Returns
    -------
    bytes
    str
        Where they are kept, or why they are not.
    """
    path = folder() / name
    found = _read(path)
    if found is not None:
        return found, f"read from {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        return make(), _not_kept(path, error)
    try:
        alone = _acquire(lock)
        found = _read(path)  # by whoever held the lock
        if found is not None:
            return found, f"read from {path}"
        made = make()
        try:
            _write(path, made, alone)
        except OSError as error:
            return made, _not_kept(path, error)
        return made, f"kept in {path}"
    finally:
        os.close(lock)


def writable() -> str | None:
    """Return why nothing can be kept, as a sentence, or None if it can; nothing is made to find out."""
    place = folder()
    existing = next(path for path in (place, *place.absolute().parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return None
    return f"the cache {place} cannot be written"


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, data = content[:_CHECKSUM], content[_CHECKSUM:]
    if checksum == hashlib.sha256(data).hexdigest().encode():
        return data
    _logger.warning("%s is damaged, and is made again", path)
    return None


def _write(path: Path, data: bytes, alone: bool) -> None:
    if alone:  # then nobody else is writing, and what there is was left by a process that was killed
        for left in path.parent.glob(f"{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
    with _temporary(path) as temporary:
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(data).hexdigest().encode() + data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Create a file of a name that nobody else has, and remove it unless it was renamed."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _acquire(lock: int) -> bool:
    """Wait until nobody else holds a lock, and return whether it is held; some file systems have none."""
    if sys.platform == "win32":
        return False
    begin = time.monotonic()
    while time.monotonic() - begin < PATIENCE:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                return False
        time.sleep(0.05)
    return False


def _not_kept(path: Path, error: OSError) -> str:
    refused = f"the cache {path.parent} cannot be written ({error.strerror or error})"
    _logger.warning("%s, so that every process makes %s again; FASTVOC_CACHE names another folder", refused, path.name)
    return f"not kept: {refused}"

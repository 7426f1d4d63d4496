"""One process trains in a folder; the next is told who is there, and whatever ended the last one leaves no lock."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_ending import PATIENCE, SCRIPT, gone
from test_run import folder, recordings, settings

import fastvoc
from fastvoc.train.learning import parallel
from fastvoc.train.lock import LOCK, locked
from fastvoc.train.report.log import read_log

__all__ = ["folder", "recordings"]  # fixtures

HOLD = """
import sys, time
from pathlib import Path
from fastvoc.train.lock import locked
with locked(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(1000)
"""


def test_a_folder_in_which_another_process_trains_is_refused_with_its_name(folder: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder / "run")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        wanted = rf"run: is being trained by process {holder.pid} on {re.escape(socket.gethostname())} since 20"
        with pytest.raises(OSError, match=wanted):
            fastvoc.train(settings(folder, steps=1), device="cpu")
        assert sorted(path.name for path in (folder / "run").iterdir()) == [LOCK]
    finally:
        holder.kill()
        holder.communicate()
    fastvoc.train(settings(folder, steps=1), device="cpu")  # the name of the dead one is still there
    assert not (folder / "run" / LOCK).exists()


def test_a_process_that_is_killed_leaves_neither_a_lock_nor_readers(folder: Path) -> None:
    path = folder / "script.py"
    path.write_text(SCRIPT.format(path=sys.path, place=str(folder)))
    process = subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE)
    log = folder / "run" / "log.jsonl"
    deadline = time.monotonic() + PATIENCE
    while (not log.exists() or not read_log(log)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(children) == 2
    with locked(folder / "run"):
        pass
    assert gone(children)


def test_a_process_trains_once_in_a_folder(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "run")
    with (
        locked(folder / "run"),
        pytest.raises(OSError, match=rf"link: is being trained already by this process \({os.getpid()}\)"),
    ):
        fastvoc.train(settings(folder, folder=str(folder / "link")), device="cpu")
    fastvoc.train(settings(folder, steps=1), device="cpu")


def test_all_processes_of_a_run_hear_the_refusal_of_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    with locked(folder / "run"):
        assert not (folder / "run" / LOCK).exists()
    monkeypatch.setattr(parallel, "of_first", lambda text: "run: is being trained by process 7")
    with pytest.raises(OSError, match="process 7"), locked(folder / "run"):
        pass


def test_a_folder_that_was_made_for_a_run_that_was_refused_is_removed(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fastvoc.train(settings(folder), data=folder / "absent", device="cpu")
    assert not (folder / "run").exists()
    (folder / "run").mkdir()
    with pytest.raises(FileNotFoundError):
        fastvoc.train(settings(folder), data=folder / "absent", device="cpu")
    assert not list((folder / "run").iterdir())


def test_a_file_system_without_locks_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    with locked(folder / "run"):
        assert "run: cannot be locked (No locks available); see that no other process trains there" in caplog.text


def test_a_lock_that_goes_while_it_is_taken_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, calls = fcntl.lockf, []

    def late(handle: int, what: int) -> None:
        lock(handle, what)
        calls.append(handle)
        if len(calls) == 1:  # who held it ends now
            (folder / "run" / LOCK).unlink()

    monkeypatch.setattr(fcntl, "lockf", late)
    with locked(folder / "run"):
        assert len(calls) == 2
        assert (folder / "run" / LOCK).exists()

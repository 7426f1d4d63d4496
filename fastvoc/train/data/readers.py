"""Processes that read ahead: each reads every n-th batch, and hands it over through a pipe of its own.

A pipe, and not shared memory, of which a container may have little and which fails batch by batch when it is full. A
process that ends closes its pipe, which whoever waits at the other end sees at once.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from fastvoc.train.data.batches import Batch, Batches

AHEAD = 4
"""Batches that each process has ready."""

_SLICE = 0.1  # seconds between two looks at the wish to stop

_UNGUARDED = 78
"""Exit code of a process that met the script's call of training instead of its own work."""

_GUARD = (
    "where processes are started by {method} each one runs the script again up to what it guards; put the call below "
    '`if __name__ == "__main__":`, or set data.workers=0'
)


def refuse_unguarded(workers: int) -> None:
    """Raise before anything is touched if processes that read would run the script that starts them.

    Parameters
    ----------
    workers : int
        `DataConfig.workers`.

    Raises
    ------
    RuntimeError
        If the script has no guard, and processes are not started by fork.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(_UNGUARDED)  # this one runs the script again, and who has started it has the sentence
    method = multiprocessing.get_start_method()
    script = _script()
    if workers and method != "fork" and script is not None and not _has_guard(script):
        raise RuntimeError(f"{script}: calls training with data.workers={workers} unguarded; {_guard(method)}")


class Readers:
    """The processes of a loader.

    Parameters
    ----------
    source : Batches
    first : int
        Number of the first batch.
    workers : int
        At least 1.

    Raises
    ------
    OSError
        If a process cannot be started.
    """

    def __init__(self, source: Batches, first: int, workers: int) -> None:
        self._next = 0
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        # Comes before multiprocessing's own exit, which sends the SIGTERM that they ignore, and waits for them.
        self.close = util.Finalize(self, _end, (self._processes, self._connections), exitpriority=10)
        context = multiprocessing.get_context()
        forked = context.get_start_method() == "fork"
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            self._connections.append(ours)
            process = context.Process(
                target=_read,
                # a forked one has the ends of all pipes so far, which would keep them open
                args=(source, first + number, workers, theirs, tuple(self._connections) if forked else ()),
                daemon=True,
            )
            try:
                process.start()
            except (OSError, EOFError) as error:
                self.close()
                hint = "" if forked else f"; {_guard(multiprocessing.get_start_method())}"
                raise OSError(
                    f"data.workers={workers}: a process that reads cannot be started ({error}){hint}"
                ) from error
            self._processes.append(process)
            theirs.close()

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait for the next batch, or until `stop` says so; return whether `take` has something to take."""
        while not stop():
            if self._connections[self._next].poll(_SLICE):
                return True
        return False

    def take(self) -> Batch:
        """Return the next batch.

        Raises
        ------
        ChildProcessError
            If the process that reads it has ended, or has failed.
        """
        try:
            waves, others, unusable, failure = pickle.loads(self._connections[self._next].recv_bytes())
        except (EOFError, OSError):
            raise ChildProcessError(self._end_of(self._processes[self._next])) from None
        if waves is None:
            raise ChildProcessError(f"data.workers: a process that reads failed: {failure}")
        self._next = (self._next + 1) % len(self._processes)
        return Batch(torch.from_numpy(waves), None if others is None else torch.from_numpy(others), unusable, failure)

    def _end_of(self, process: BaseProcess) -> str:
        process.join(timeout=5)
        code = process.exitcode
        if code == _UNGUARDED:
            return f"the call of training is unguarded; {_guard(multiprocessing.get_start_method())}"
        if code is not None and code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
            remedy = (
                "; a system that is short of memory does that: fewer data.workers or a smaller data.cache need less"
            )
            ended += remedy if -code in (signal.SIGKILL, signal.SIGBUS) else ""
        else:
            ended = f"has ended with code {code}"
        return f"data.workers: process {process.pid}, which reads recordings, {ended}"


def _end(processes: Sequence[BaseProcess], connections: Iterable[Connection]) -> None:
    for process in processes:
        process.kill()  # they have nothing to save, and ignore what is more polite
    for process in processes:
        process.join(timeout=5)
    for connection in connections:
        connection.close()


def _read(source: Batches, first: int, stride: int, connection: Connection, inherited: tuple[Connection, ...]) -> None:
    """Read batches for ever; what one process does."""
    # Ctrl-C, or a SIGTERM to all processes of a job, is for the training process, which has a run to save.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for other in inherited:
        other.close()
    torch.set_num_threads(1)
    ready: queue.Queue[tuple[Any, ...]] = queue.Queue(AHEAD - 1)
    threading.Thread(target=_send, args=(ready, connection), daemon=True).start()
    for step in itertools.count(first, stride):
        try:
            batch = source[step]
        except Exception as error:
            ready.put((None, None, {}, f"{type(error).__name__}: {' '.join(str(error).split())}"))
            continue
        others = None if batch.others is None else batch.others.numpy()
        ready.put((batch.waves.numpy(), others, batch.unusable, batch.failure))


def _send(ready: queue.Queue[tuple[Any, ...]], connection: Connection) -> None:
    # the other end has been closed, or whoever held it has been killed
    with contextlib.suppress(OSError):
        while True:
            connection.send_bytes(pickle.dumps(ready.get(), protocol=5))
    os._exit(0)


def _guard(method: str) -> str:
    return _GUARD.format(method=method)


def _script() -> Path | None:
    """Return what a process that is not forked would run first, if it is a file."""
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", "")
    path = getattr(main, "__file__", None)
    return None if path is None or name.endswith("__main__") else Path(path)


def _has_guard(script: Path) -> bool:
    """Whether a script asks for its name; one that cannot be read is not judged."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    compared = (part for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node))
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in compared)

"""Many files, one after another: a bad one is reported and the others go on; a complete one is skipped."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

from fastvoc.cli.command import MISTAKES, FileCommand, rank
from fastvoc.cli.inputs import Job, share
from fastvoc.cli.terminal import complain, progress


def run(
    command: FileCommand, jobs: Sequence[Job], problems: Sequence[str], work: Callable[[Job], float], title: str | None
) -> int:
    """Do this process's share of the jobs.

    Parameters
    ----------
    command : FileCommand
        Whose options hold.
    jobs, problems
        As `fastvoc.cli.inputs.plan` returns them.
    work : callable
        Makes the target of a job complete or not at all, and returns how many seconds of sound it was.
    title : str, optional
        Of the progress bar; without one there is none, since the work has its own.

    Returns
    -------
    int
        The exit code: 1 if anything failed, else 0.
    """
    problems = problems if rank("RANK", 0) == 0 else ()  # every process sees the same ones: one of them speaks
    for problem in problems:
        complain(problem)
    mine = share(list(jobs))
    # only complete results exist: each is written under another name first
    left = [job for job in mine if command.overwrite or not job.target.exists()]
    failed, seconds, begin = len(problems), 0.0, time.monotonic()
    for job in left if title is None else progress(left, title):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                seconds += work(job)
            except MISTAKES as error:
                if command.debug:
                    raise
                complain(_named(job, str(error)))
                failed += 1
                continue
        for warning in caught:
            complain(_named(job, f"warning: {warning.message}"))
    took = time.monotonic() - begin
    written = len(left) + len(problems) - failed
    parts = [f"{written} written to {command.out}"]
    if len(left) < len(mine):
        parts.append(f"{len(mine) - len(left)} skipped, complete already (--overwrite makes them again)")
    if failed:
        parts.append(f"{failed} failed")
    speed = f"; {seconds:.1f} s of sound in {took:.1f} s, {seconds / took:.1f} times real time" if written else ""
    print(", ".join(parts) + speed)
    return 1 if failed else 0


def _named(job: Job, message: str) -> str:
    """Put the file's name before a message that does not begin with it already."""
    return message if message.startswith(f"{job.source}:") else f"{job.source}: {message}"

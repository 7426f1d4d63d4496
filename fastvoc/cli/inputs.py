"""Which files a command line means: files, globs and folders become a list that every process agrees on."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastvoc.cli.command import UsageError, rank
from fastvoc.train.data.folders import below, matches

MELS = (".npy", ".npz", ".pt", ".safetensors", ".h5", ".hdf5")
"""Suffixes that are looked for in folders; a file that is named itself may have any."""

_RESOURCE_FORK = "._"
"""How the names of files begin that Macs write beside others on foreign disks, with the same suffix."""


@dataclass(frozen=True, order=True)
class Job:
    """A file, and the file that becomes of it."""

    source: Path
    target: Path


def plan(inputs: Sequence[str], suffixes: Sequence[str], out: Path, suffix: str) -> tuple[list[Job], list[str]]:
    """Find the inputs and name their results.

    Parameters
    ----------
    inputs : sequence of str
        Files, globs (`**` is any depth) and folders (searched at any depth); links to folders are followed.
    suffixes : sequence of str
        Of the files that globs and folders give; case does not count.
    out : Path
        Folder of the results. A file that was found below a folder, or below the part of a glob before its first
        wildcard, keeps its relative path.
    suffix : str
        Of the results.

    Returns
    -------
    jobs : list of Job
        Sorted, each source once.
    problems : list of str
        A sentence for each input that gives nothing.

    Raises
    ------
    UsageError
        If there are no inputs, two of them have one result, a result is an input, or the folder is a file.
    """
    if not inputs:
        raise UsageError("no input is given; name files, quoted globs or folders")
    sources: dict[Path, Path] = {}  # file → its path relative to what was named
    problems = []
    for text in inputs:
        found, problem = _expand(text, suffixes, out.resolve())
        for path, name in found.items():
            sources.setdefault(path, name)
        if problem is not None:
            problems.append(problem)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; it must be a folder, or a name for one")
    jobs = sorted(Job(path, out / name.with_suffix(suffix)) for path, name in sources.items())
    _refuse_collisions(jobs)
    return jobs, problems


def share(jobs: list[Job]) -> list[Job]:
    """Return the jobs of this process; torchrun tells each its RANK among WORLD_SIZE."""
    number, count = rank("RANK", 0), rank("WORLD_SIZE", 1)
    if number >= count:
        raise UsageError(f"RANK={number}: must be less than WORLD_SIZE={count}, as torchrun sets them")
    return jobs[number::count]


def _expand(text: str, suffixes: Sequence[str], out: Path) -> tuple[dict[Path, Path], str | None]:
    path = Path(text)
    if path.is_file():
        return {path: Path(path.name)}, None
    if path.is_dir():
        roots, root = [path], path
    elif glob.has_magic(text):
        root = _fixed_part(path)
        roots = list(map(Path, matches(text)))
    else:
        return {}, f"{text}: no such file or folder"
    files = [file for match in roots for file in (_below(match) if match.is_dir() else [match])]
    wanted = [file for file in files if file.suffix.lower() in suffixes and file.is_file()]
    wanted = [file for file in wanted if not file.name.startswith(_RESOURCE_FORK)]
    if root.resolve() in out.parents:  # results of an earlier run are no inputs
        wanted = [file for file in wanted if out not in file.resolve().parents]
    if not wanted:
        kind = "folder holds" if path.is_dir() else "glob matches"
        return {}, f"{text}: this {kind} no file that ends in {', '.join(suffixes)}"
    return {file: file.relative_to(root) for file in wanted}, None


def _below(folder: Path) -> list[Path]:
    everything = below(str(folder), leave_out=lambda parent, names: ())
    return [Path(parent, name) for parent, names in everything for name in names]


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a glob before its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def _refuse_collisions(jobs: list[Job]) -> None:
    sources = {job.source.resolve(): job.source for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise UsageError(f"{job.target}: the result of {job.source} would replace an input; use another --out")
        if target in taken:
            raise UsageError(
                f"{taken[target]} and {job.source} would both become {job.target}; "
                "give the folder above both, or call once for each with another --out"
            )
        taken[target] = job.source

"""Folders and all that lies below them, through links too, each folder once."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

Choice = Callable[[str, Collection[str]], Collection[str]]


def is_hidden(name: str) -> bool:
    """Tell by its name whether a file or folder is hidden."""
    return name.startswith(".")


def hidden(parent: str, names: Collection[str]) -> set[str]:
    """Leave out hidden folders: the usual choice of `below`."""
    return set(filter(is_hidden, names))


def below(folder: str, leave_out: Choice = hidden) -> Iterator[tuple[str, list[str]]]:
    """Walk through a folder and all below it, in the order of names.

    A link to a folder is followed, unless to one that has been met already, or that the walk began below: so no
    loop of links is endless, and none leads out of a data set into what is around it.

    Parameters
    ----------
    folder : str
    leave_out : callable
        ``leave_out(parent, names)`` returns the names of folders that are not entered.

    Yields
    ------
    parent : str
        A folder, by the way that led there.
    names : list of str
        Of its files, hidden ones too.
    """
    begun = Path(folder).resolve()
    met = {str(begun), *map(str, begun.parents)}
    # os.walk, not Path.rglob: a million Path objects would take a gigabyte.
    for parent, folders, names in os.walk(folder, followlinks=True):
        yield parent, sorted(names)
        entered = []
        for name in sorted(set(folders) - set(leave_out(parent, folders))):
            real = os.path.realpath(os.path.join(parent, name))  # noqa: PTH118
            if real not in met:
                met.add(real)
                entered.append(name)
        folders[:] = entered


def matches(pattern: str) -> list[str]:
    """Return what a glob matches, sorted; ``**`` is any depth, as `below` walks."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(glob.glob(pattern))  # noqa: PTH207
    place = parts.index("**")
    before, rest = str(Path(*parts[:place])), str(Path(*(parts[place + 1 :] or ("*",))))
    names: set[str] = set()
    for begun in glob.glob(before) if glob.has_magic(before) else [before]:  # noqa: PTH207
        for parent, _ in below(begun):
            names.update(matches(os.path.join(glob.escape(parent), rest)))  # noqa: PTH118
    return sorted(names)

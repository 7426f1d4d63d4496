"""Which recordings a run hears: found in folders, globs and lists, held as their paths and little else."""

from __future__ import annotations

import glob
import itertools
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fastvoc.train.data import DataConfig
from fastvoc.train.lists import Recording, is_sound, read_list


class Recordings:
    """A sequence of recordings that costs the bytes of its paths and 8 more each.

    Excerpts, which only manifests name, cost 16 more, for all recordings as soon as there is one.

    Parameters
    ----------
    recordings : iterable of Recording
    """

    def __init__(self, recordings: Iterable[Recording] = ()) -> None:
        self._paths = bytearray()
        self._ends = array("Q")
        self._starts = array("d")
        self._durations = array("d")
        self._fingerprint = 0
        for recording in recordings:
            self.append(recording)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Recording:
        if not 0 <= index < len(self):
            raise IndexError(f"Recordings: index {index} of {len(self)}")
        first = self._ends[index - 1] if index else 0
        path = os.fsdecode(bytes(self._paths[first : self._ends[index]]))
        if index >= len(self._starts):
            return Recording(path)
        return Recording(path, self._starts[index], self._durations[index])

    def __iter__(self) -> Iterator[Recording]:
        return (self[index] for index in range(len(self)))

    def append(self, recording: Recording) -> None:
        """Add one at the end."""
        encoded = os.fsencode(recording.path)
        if (recording.start, recording.duration) != (0.0, float("inf")):
            missing = len(self) - len(self._starts)
            self._starts.extend([0.0] * missing + [recording.start])
            self._durations.extend([float("inf")] * missing + [recording.duration])
        self._paths += encoded
        self._ends.append(len(self._paths))
        self._fingerprint = zlib.crc32(os.path.basename(encoded) + b"\0", self._fingerprint)  # noqa: PTH119

    @property
    def fingerprint(self) -> int:
        """A number of the names and their order, but not of the folders: a moved data set keeps it."""
        return self._fingerprint

    @property
    def nbytes(self) -> int:
        """Memory of all paths, in bytes."""
        return len(self._paths) + sum(8 * len(part) for part in (self._ends, self._starts, self._durations))

    def evenly(self, count: int) -> list[int]:
        """Return indices of this many recordings, evenly over their order; of all where there are fewer."""
        return _evenly(count, len(self))


class Split(NamedTuple):
    """What is trained on, and what is only listened to."""

    training: Recordings
    seen: Recordings
    """Of voices that are trained on."""
    unseen: Recordings
    """Of other voices."""
    sizes: tuple[int, ...]
    """Recordings of `training` that come from each source, in its order."""


def find_recordings(sources: Iterable[str], *, root: str | None = None) -> Recordings:
    """List the recordings of folders, globs, lists and sound files, without opening a recording.

    Parameters
    ----------
    sources : iterable of str
        A folder counts with all below it, but not with what it links to or with hidden files. What else is neither a
        glob nor a sound file is a list: see `fastvoc.train.lists.read_list`.
    root : str, optional
        Folder that relative paths in lists start from; by default the list's own.

    Returns
    -------
    Recordings
        In the order of the sources, each one sorted by name (lists keep their order); absolute paths.

    Raises
    ------
    FileNotFoundError
        If a source does not exist.
    ValueError
        If a source names no recordings or is not readable as what it seems to be.
    """
    recordings = Recordings()
    for source in sources:
        before = len(recordings)
        for recording in _of_source(str(Path(source).expanduser()), root):
            recordings.append(recording._replace(path=os.path.abspath(recording.path)))  # noqa: PTH100
        if len(recordings) == before:
            raise ValueError(f"{source}: names no recordings; needs .wav, .flac, .ogg, .mp3 or another sound file")
    return recordings


def split_recordings(config: DataConfig) -> Split:
    """Find the recordings of a run and set aside what it is judged by.

    Recordings of a validation set are left out of training wherever they stand, so a validation list may lie within
    the folder that is trained on.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_recordings`; or if nothing is left to train on.
    """
    parts = [find_recordings((source,), root=config.root) for source in config.recordings]
    seen = find_recordings(config.validation, root=config.root)
    unseen = find_recordings(config.unseen, root=config.root)
    found = sum(map(len, parts))
    aside = {recording.path for part in (seen, unseen) for recording in part}
    if aside:
        parts = [Recordings(recording for recording in part if recording.path not in aside) for part in parts]
    total = sum(map(len, parts))
    held_out = set(() if config.validation else _evenly(config.held_out, total))
    if total == len(held_out):
        raise ValueError(
            f"data.recordings: all {found} are set aside for validation (by held_out, validation or unseen); "
            "needs at least one more to train on, or a smaller held_out"
        )
    training = Recordings()
    sizes = []
    numbers = itertools.count()
    for part in parts:
        before = len(training)
        for recording, number in zip(part, numbers, strict=False):
            (seen if number in held_out else training).append(recording)
        sizes.append(len(training) - before)
    return Split(training, seen, unseen, tuple(sizes))


def _evenly(count: int, total: int) -> list[int]:
    count = min(count, total)
    return [(2 * k + 1) * total // (2 * count) for k in range(count)]


def _of_source(source: str, root: str | None) -> Iterator[Recording]:
    path = Path(source)
    if path.is_dir():
        return _of_folder(source)
    if not path.exists() and glob.has_magic(source):
        names = glob.iglob(source, recursive=True)  # noqa: PTH207
        return (Recording(name) for name in sorted(name for name in names if is_sound(name)))
    if is_sound(source):
        if not path.exists():
            raise FileNotFoundError(f"{source}: no such file")
        return iter((Recording(source),))
    return read_list(path, root=root)


def _of_folder(folder: str) -> Iterator[Recording]:
    # os.walk, not Path.rglob: a million Path objects would take a gigabyte.
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if is_sound(name) and not name.startswith("."):
                yield Recording(os.path.join(parent, name))  # noqa: PTH118

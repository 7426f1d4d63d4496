"""Which recordings a run learns from: found in folders, globs and lists, held as their paths and little else."""

from __future__ import annotations

import glob
import itertools
import os
import zlib
from array import array
from base64 import b85decode, b85encode
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.folders import below, hidden, is_hidden, matches
from fastvoc.train.data.lists import Recording, is_sound, read_list, refuse_packed, shown
from fastvoc.train.data.reading import Unusable, read_clip
from fastvoc.train.state import made_by_runs

# Recordings that are read in search of some to judge by.
_PATIENCE = 1000


class Recordings:
    """A sequence of recordings that costs the bytes of its paths and 8 more each.

    Excerpts, which only manifests name, cost 16 more, for all recordings as soon as there is one; mels that they name
    cost an entry of a dictionary.

    Parameters
    ----------
    recordings : iterable of Recording
    """

    def __init__(self, recordings: Iterable[Recording] = ()) -> None:
        self._paths = bytearray()
        self._ends = array("Q")
        self._starts = array("d")
        self._durations = array("d")
        self._mels: dict[int, str] = {}
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
        mel = self._mels.get(index, "")
        if index >= len(self._starts):
            return Recording(path, mel=mel)
        return Recording(path, self._starts[index], self._durations[index], mel)

    def __iter__(self) -> Iterator[Recording]:
        return (self[index] for index in range(len(self)))

    def append(self, recording: Recording) -> None:
        """Add one at the end."""
        encoded = os.fsencode(recording.path)
        if (recording.start, recording.duration) != (0.0, float("inf")):
            missing = len(self) - len(self._starts)
            self._starts.extend([0.0] * missing + [recording.start])
            self._durations.extend([float("inf")] * missing + [recording.duration])
        if recording.mel:
            self._mels[len(self)] = recording.mel
        self._paths += encoded
        self._ends.append(len(self._paths))
        self._fingerprint = zlib.crc32(os.path.basename(encoded) + b"\0", self._fingerprint)  # noqa: PTH119

    @property
    def fingerprint(self) -> int:
        """A number of the names and their order, but not of the folders: a moved data set keeps it."""
        return self._fingerprint

    @property
    def name_mels(self) -> bool:
        """Whether their lists name mels of another network."""
        return bool(self._mels)

    @property
    def nbytes(self) -> int:
        """Memory of all paths, in bytes."""
        return len(self._paths) + sum(8 * len(part) for part in (self._ends, self._starts, self._durations))

    def evenly(self, count: int) -> list[int]:
        """Return indices of this many recordings, evenly over their order; of all where there are fewer."""
        return evenly(count, len(self))


class Split(NamedTuple):
    """What is trained on, and what is only validated on."""

    training: Recordings
    seen: Recordings
    """Of voices that are trained on."""
    unseen: Recordings
    """Of other voices."""
    sizes: tuple[int, ...]
    """Recordings of `training` that come from each source, in its order."""
    passed_over: tuple[str, ...] = ()
    """Why recordings were not held out in whose place others were."""


def find_recordings(sources: Iterable[str], *, root: str | None = None) -> Recordings:
    """List the recordings of folders, globs, lists and sound files, without opening a recording.

    Parameters
    ----------
    sources : iterable of str
        A folder counts with all below it and what it links to (see `fastvoc.train.data.folders.below`), but not with
        hidden files or with what runs have written. What else is neither a glob nor a sound file is a list: see
        `fastvoc.train.data.lists.read_list`.
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
        if not Path(source).is_dir():
            refuse_packed(source, source)
        for recording in _of_source(str(Path(source).expanduser()), root):
            recordings.append(recording._replace(path=os.path.abspath(recording.path)))  # noqa: PTH100
        if len(recordings) == before:
            raise ValueError(f"{source}: names no recordings; needs .wav, .flac, .ogg, .mp3 or another sound file")
    return recordings


def split_recordings(config: DataConfig, *, sample_rate: int) -> Split:
    """Find the recordings of a run and set aside what it is judged by.

    What is set aside is left out of training wherever it stands: listed again, through a link, or as a part of a longer
    excerpt of the same file. So a validation list may lie within the folder that is trained on. Recordings that
    cannot be judged by, such as very short ones, are not held out while there are others.

    Parameters
    ----------
    config : DataConfig
    sample_rate : int
        In Hz.

    Raises
    ------
    FileNotFoundError, ValueError
        As `find_recordings`; or if nothing is left to train on.
    """
    parts = [find_recordings((source,), root=config.root) for source in config.recordings]
    seen = find_recordings(config.validation, root=config.root)
    unseen = find_recordings(config.unseen, root=config.root)
    found = sum(map(len, parts))
    parts = _without(parts, Stretches(itertools.chain(seen, unseen)))
    passed_over: list[str] = []
    if not config.validation:
        seen, passed_over = _hold_out(parts, config, sample_rate)
        parts = _without(parts, Stretches(seen))
    training = Recordings(itertools.chain(*parts))
    if not len(training):
        raise ValueError(
            f"data.recordings: all {found} are set aside for validation (by held_out, validation or unseen); "
            "needs at least one more to train on, or a smaller held_out"
        )
    return Split(training, seen, unseen, tuple(map(len, parts)), tuple(passed_over))


class Stretches:
    """Stretches of sound files, whatever names and links lead to them.

    Parameters
    ----------
    recordings : iterable of Recording
    """

    def __init__(self, recordings: Iterable[Recording] = ()) -> None:
        self._folders: dict[str, str] = {}
        self._known: dict[str, list[Recording]] = {}
        for recording in recordings:
            self.add(recording)

    def __contains__(self, recording: Recording) -> bool:
        """Whether a part of the recording is a part of one that was added."""
        start, end = recording.start, recording.start + recording.duration
        others = self._known.get(self._real(recording.path), ())
        return any(start < other.start + other.duration and other.start < end for other in others)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, recording: Recording) -> None:
        """Remember one."""
        self._known.setdefault(self._real(recording.path), []).append(recording)

    def _real(self, path: str) -> str:
        # each folder is looked up once: a million paths would take minutes
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)  # noqa: PTH118
        return os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114


def _without(parts: list[Recordings], aside: Stretches) -> list[Recordings]:
    if not aside:
        return parts
    return [Recordings(recording for recording in part if recording not in aside) for part in parts]


def _hold_out(parts: list[Recordings], config: DataConfig, sample_rate: int) -> tuple[Recordings, list[str]]:
    """Choose different recordings evenly over the order of all, each the next one there that can be judged by."""
    ends = list(itertools.accumulate(map(len, parts)))
    total = ends[-1]

    def at(number: int) -> Recording:
        source = bisect_right(ends, number)
        return parts[source][number - ends[source] + len(parts[source])]

    places = evenly(config.held_out, total)
    chosen: dict[int, Recording] = {}
    known, reasons = Stretches(), dict[int, str]()
    for place in places:
        for number in itertools.chain(range(place, total), range(place)):
            recording = at(number)
            if number in reasons or recording in known:
                continue
            if len(reasons) == _PATIENCE:
                break
            try:
                read_clip(recording, sample_rate, trim=config.trim, peak=config.peak)
            except Unusable as error:
                reasons[number] = str(error)
                continue
            chosen[number] = recording
            known.add(recording)
            break
    if not chosen:  # then validation says why
        return Recordings(at(place) for place in places), []
    numbers = sorted(chosen)
    if reasons and len(numbers) < len(places):  # these are all that are any good: half of them are trained on
        numbers = numbers[::2]
    return Recordings(chosen[number] for number in numbers), list(reasons.values())


def pack_names(recordings: Iterable[Recording]) -> str:
    """Return the names of recordings, without folders, compressed into letters: what `name_changes` compares."""
    names = (os.fsencode(os.path.basename(recording.path)) for recording in recordings)  # noqa: PTH119
    return b85encode(zlib.compress(b"\0".join(names))).decode()


def name_changes(before: str, now: str) -> str:
    """Say what has come and gone from one result of `pack_names` to another.

    Returns
    -------
    str
        Such as ``"2 came (a.wav, b.wav) and 1 went (c.wav)"``; at most two of each are named.
    """
    old, new = (Counter(zlib.decompress(b85decode(names)).split(b"\0")) for names in (before, now))
    said = []
    for verb, names in (("came", new - old), ("went", old - new)):
        some = [shown(os.fsdecode(name)) for name in sorted(names)[:2]]
        if names:
            said.append(f"{names.total()} {verb} ({', '.join(some)}{', …' if len(names) > 2 else ''})")
    return " and ".join(said) or "in another order"


def evenly(count: int, total: int) -> list[int]:
    """Return this many numbers below a total, evenly over them; all where there are fewer."""
    count = min(count, total)
    return [(2 * k + 1) * total // (2 * count) for k in range(count)]


def _of_source(source: str, root: str | None) -> Iterator[Recording]:
    path = Path(source)
    if path.is_dir():
        return _of_folder(source)
    if not path.exists() and glob.has_magic(source):
        return (Recording(name) for name in _not_of_runs(source, filter(is_sound, matches(source))))
    if is_sound(source):
        if not path.exists():
            raise FileNotFoundError(f"{source}: no such file")
        return iter((Recording(source),))
    return read_list(path, root=root)


def _not_of_runs(pattern: str, names: Iterable[str]) -> Iterator[str]:
    """Leave out what lies in the folders of runs that a glob has found; one that it names itself is meant."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), Path(pattern).parts[:-1]))

    @cache
    def kept(folder: Path) -> bool:
        if len(folder.parts) <= len(fixed):
            return True
        return kept(folder.parent) and not made_by_runs(str(folder.parent), [folder.name])

    return (name for name in names if kept(Path(name).parent))


def _of_folder(folder: str) -> Iterator[Recording]:
    for parent, names in below(folder, lambda parent, names: hidden(parent, names) | made_by_runs(parent, names)):
        for name in names:
            if is_sound(name) and not is_hidden(name):
                yield Recording(os.path.join(parent, name))  # noqa: PTH118

"""Lists of recordings: lines of text, columns under a header, Kaldi's wav.scp, JSON lines."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64", ".sph")
"""Names of sound files end so: what libsndfile reads of what speech corpora consist of."""

PACKED = (".parquet", ".arrow", ".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".h5", ".hdf5", ".tfrecord", ".lmdb", ".npz")
"""Names of files that may hold sound, but which is not read from within them, end so."""

_KEYS = ("audio_filepath", "path", "audio", "wav", "file", "file_name", "filename")

# Coqui's lists have this column too.
_COLUMNS = (*_KEYS, "audio_file")

# Where recordings lie beside their list: LJ Speech and what follows it, Common Voice.
_HOMES = ("wavs", "clips")


class Recording(NamedTuple):
    """A sound file, or an excerpt of one."""

    path: str
    start: float = 0.0
    """In seconds."""
    duration: float = math.inf
    """In seconds; infinite to the end of the file."""
    mel: str = ""
    """File of a mel that another network has made of it, where a list names one."""


def shown(path: str) -> str:
    r"""Return a path in characters that can be printed and written; bytes that are no UTF-8 become such as ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_sound(name: str) -> bool:
    """Tell by its suffix whether a file is a sound file."""
    return name.lower().endswith(SUFFIXES)


def refuse_packed(name: str, where: str) -> None:
    """Raise if a name is an address, or that of a file which sound would have to be unpacked from.

    Raises
    ------
    ValueError
        With what to do instead.
    """
    if re.match(r"[A-Za-z][\w+.-]+://", name):
        what, remedy = "is an address", "copy it to this machine"
    elif name.lower().endswith(PACKED):
        what, remedy = "is no sound file", "unpack it"
    else:
        return
    raise ValueError(
        f"{where}: {what}, and recordings are read from sound files; {remedy} and name the folder, or write a loop of "
        "your own with fastvoc.train.tasks.gan.GanTask"
    )


def read_list(path: Path, *, root: str | None = None) -> Iterator[Recording]:
    """Read a list of recordings line by line, in its order.

    Parameters
    ----------
    path : Path
        `.scp` is Kaldi's wav.scp: an utterance's name and its file. `.jsonl` and `.json` hold an object per line, with
        the file under `audio_filepath` (as NVIDIA NeMo), `path`, `audio`, `wav`, `file`, `file_name` or `filename`, or
        under `path` within one of these, and perhaps `offset` and `duration` in seconds and a `mel_filepath`. Anything
        else has a file per line: up to the first `|`, or the first sound file between tabs or commas; or columns that
        the first line names, one of them as above or `audio_file`. Without the suffix of a sound file, `.wav` is
        appended, as HiFi-GAN's lists of `id|text` expect. Backslashes are those of Windows, unless a file is called so.
    root : str, optional
        Folder that relative paths start from; by default the list's own, or that folder's `wavs` or `clips` where only
        this holds the first recording.

    Yields
    ------
    Recording

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a list: with the number of the line.
    """
    suffix = path.suffix.lower()
    read = _scp if suffix == ".scp" else _manifest if suffix in (".jsonl", ".json") else _text
    folder = None if root is None else str(Path(root).expanduser())
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for where, recording in read(file, str(path)):
                _check_name(recording.path, where)
                if folder is None:
                    folder = _home(path.parent, recording)
                mel = recording.mel and str(path.parent / recording.mel)
                yield recording._replace(path=_joined(folder, recording.path), mel=mel)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, folder or list of recordings") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is neither a sound file by its suffix nor a list in UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}: its columns are not readable: {error}") from None


def _check_name(name: str, where: str) -> None:
    refuse_packed(name, f"{where}: {name!r}")
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise ValueError(f"{where}: {name!r} has characters that no file name has")


def _joined(folder: str, name: str) -> str:
    path = os.path.join(folder, name)  # noqa: PTH118
    if os.sep == "/" and "\\" in name and not os.path.exists(path):  # noqa: PTH110
        return os.path.join(folder, name.replace("\\", "/"))  # noqa: PTH118
    return path


def _home(folder: Path, first: Recording) -> str:
    """Return the folder that holds the first recording of a list, or the list's own: any file may be missing."""
    homes = [str(folder), *(str(folder / home) for home in _HOMES)]
    return next((home for home in homes if os.path.exists(_joined(home, first.path))), homes[0])  # noqa: PTH110


def _text(file: Iterable[str], path: str) -> Iterator[tuple[str, Recording]]:
    """Read a name per line; or, where the first line names columns, that of the recordings."""
    lines = enumerate(file, start=1)
    begun, first = next(((number, line.strip()) for number, line in lines if line.strip()), (0, ""))
    separator = next((mark for mark in "|\t," if mark in first), None)
    header = [field.strip(' "').lower() for field in first.split(separator)] if separator else []
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    if column is None:
        for number, line in itertools.chain([(begun, first)], lines):
            if line.strip():
                where = f"{path}, line {number}"
                yield where, _named(line.strip(), where)
        return
    rest = (line for _, line in lines)
    if separator == ",":
        rows = csv.reader(rest, skipinitialspace=True)
    else:
        rows = csv.reader(rest, delimiter=separator or "|", quoting=csv.QUOTE_NONE)
    for row in rows:
        where = f"{path}, line {begun + rows.line_num}"
        if not any(field.strip() for field in row):
            continue
        if column >= len(row) or not row[column].strip():
            raise ValueError(f"{where}: has nothing in column {column + 1}, {header[column]!r}; it is {row}")
        yield where, Recording(_with_suffix(row[column].strip()))


def _named(line: str, where: str) -> Recording:
    name = line.split("|", 1)[0].strip()
    if not name:
        raise ValueError(f"{where}: begins with '|'; needs the recording's name before it")
    if "\t" in name:
        fields = [field.strip() for field in name.split("\t")]
        name = next(filter(is_sound, fields), fields[0])
    if not is_sound(name):
        beginning = name.split(",", 1)[0].strip(' "')
        name = beginning if is_sound(beginning) else name
    return Recording(_with_suffix(name))


def _with_suffix(name: str) -> str:
    return name if is_sound(name) or name.lower().endswith(PACKED) else name + ".wav"


def _scp(file: Iterable[str], path: str) -> Iterator[tuple[str, Recording]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _scp_line(line.strip(), where)


def _scp_line(line: str, where: str) -> Recording:
    target = "".join(line.split(maxsplit=1)[1:])
    if not target:
        raise ValueError(f"{where}: is {line!r}; needs an utterance's name, a space and its sound file")
    if target.endswith("|") or target.startswith("|"):
        raise ValueError(
            f"{where}: is a shell command, {target!r}, and commands of a list are never run; "
            "write its output to sound files and list these"
        )
    if not is_sound(target):
        raise ValueError(f"{where}: {target!r} is not a sound file; archives (.ark) are not read, list sound files")
    return Recording(target)


def _manifest(file: Iterable[str], path: str) -> Iterator[tuple[str, Recording]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _json_line(line.strip(), where)


def _json_line(line: str, where: str) -> Recording:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: is not JSON ({error.msg}); a manifest has one whole object in each line") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: is a JSON {type(entry).__name__}; a manifest has one object in each line")
    name = next((entry[key] for key in _KEYS if key in entry), None)
    if isinstance(name, dict):  # as the datasets of Hugging Face hold sound
        if not isinstance(name.get("path"), str):
            raise ValueError(f"{where}: its recording has no path, but {', '.join(name)}; write it to a sound file")
        name = name["path"]
    if not isinstance(name, str):
        raise ValueError(f"{where}: names no file; known keys: {', '.join(_KEYS)}; it has {', '.join(entry) or 'none'}")
    mel = entry.get("mel_filepath") or ""
    if not isinstance(mel, str):
        raise ValueError(f"{where}: mel_filepath is {mel!r}; needs the name of a file")
    if entry.get("offset") is None:  # the duration is then that of the file, rounded
        return Recording(name, mel=mel)
    try:
        excerpt = float(entry["offset"]), float(entry.get("duration") or math.inf)
    except (TypeError, ValueError):
        excerpt = (math.nan, math.nan)
    if not (excerpt[0] >= 0 and excerpt[1] > 0):
        raise ValueError(
            f"{where}: offset {entry['offset']!r} and duration {entry.get('duration')!r} are no excerpt; "
            "both are seconds, and not negative"
        )
    return Recording(name, *excerpt, mel=mel)

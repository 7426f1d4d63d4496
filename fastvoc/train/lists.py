"""Lists of recordings: lines of text, Kaldi's wav.scp, JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64", ".sph")
"""Names of sound files end so: what libsndfile reads of what speech corpora consist of."""

_KEYS = ("audio_filepath", "path", "audio", "wav", "file")


class Recording(NamedTuple):
    """A sound file, or an excerpt of one."""

    path: str
    start: float = 0.0
    """In seconds."""
    duration: float = math.inf
    """In seconds; infinite to the end of the file."""


def is_sound(name: str) -> bool:
    """Tell by its suffix whether a file is a sound file."""
    return name.lower().endswith(SUFFIXES)


def read_list(path: Path, *, root: str | None = None) -> Iterator[Recording]:
    """Read a list of recordings line by line, in its order.

    Parameters
    ----------
    path : Path
        `.scp` is Kaldi's wav.scp: an utterance's name and its file. `.jsonl` and `.json` hold an object per line, with
        the file under `audio_filepath` (as NVIDIA NeMo), `path`, `audio`, `wav` or `file`, and perhaps `offset` and
        `duration` in seconds. Anything else has a file per line, up to the first `|`; without the suffix of a sound
        file, `.wav` is appended, as HiFi-GAN's lists of `id|text` expect.
    root : str, optional
        Folder that relative paths start from; by default the list's own.

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
    parse = _scp_line if suffix == ".scp" else _json_line if suffix in (".jsonl", ".json") else _text_line
    folder = path.parent if root is None else Path(root).expanduser()
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    recording = parse(line.strip(), f"{path}, line {number}")
                    yield recording._replace(path=os.path.join(folder, recording.path))  # noqa: PTH118
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file, folder or list of recordings") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is neither a sound file by its suffix nor a list in UTF-8") from None


def _text_line(line: str, where: str) -> Recording:
    name = line.split("|", 1)[0].strip()
    if not name:
        raise ValueError(f"{where}: begins with '|'; needs the recording's name before it")
    return Recording(name if is_sound(name) else name + ".wav")


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


def _json_line(line: str, where: str) -> Recording:
    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: is not JSON ({error.msg}); a manifest has one whole object in each line") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: is a JSON {type(entry).__name__}; a manifest has one object in each line")
    name = next((entry[key] for key in _KEYS if key in entry), None)
    if not isinstance(name, str):
        raise ValueError(f"{where}: names no file; known keys: {', '.join(_KEYS)}; it has {', '.join(entry) or 'none'}")
    if entry.get("offset") is None:  # the duration is then that of the file, rounded
        return Recording(name)
    try:
        excerpt = float(entry["offset"]), float(entry.get("duration") or math.inf)
    except (TypeError, ValueError):
        excerpt = (math.nan, math.nan)
    if not (excerpt[0] >= 0 and excerpt[1] > 0):
        raise ValueError(
            f"{where}: offset {entry['offset']!r} and duration {entry.get('duration')!r} are no excerpt; "
            "both are seconds, and not negative"
        )
    return Recording(name, *excerpt)

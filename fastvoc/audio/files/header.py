"""What the header of a sound file promises, beside what follows it."""

from __future__ import annotations

import re
from typing import Any

_STREAMED = 0x7F000000
"""Bytes from which a size is that of a program that could not know it, as when it writes into a pipe: ffmpeg says
0xFFFFFFFF, sox 0x7FFFF000, others 0x7FFFFFFF or 0x80000000."""

_LOST = 2400
"""Samples, two frames of MP3 and a few, by which the length of a compressed file may be guessed wrongly."""

_AIFF_HEADER = 8
"""Bytes before the samples of AIFF that its size counts."""

HEAD = 1 << 16
"""Bytes in which the sound of a WAV begins."""

# libsndfile's own account of a size that does not fit the file: of the samples in WAV, AIFF and AU, of all in W64
_SIZES = r"\s*: (?P<promised>\d+) \(should be (?P<kept>\d+)\)"
_SAMPLES = re.compile(r"^\s*(?:data|SSND|Data Size)" + _SIZES, re.MULTILINE)
_FRAMES = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_WHOLE = re.compile(r"^\s*riff" + _SIZES, re.MULTILINE)


def promised_frames(file: Any, there: int) -> int:
    """Return how many samples of a channel a file should have.

    Parameters
    ----------
    file : soundfile.SoundFile
    there : int
        Samples of a channel that could be read.
    """
    account = file.extra_info
    if found := _FRAMES.search(account):
        return int(found[2])
    whole = _WHOLE.search(account) if file.format == "W64" else None
    if found := _SAMPLES.search(account) or whole:
        promised, kept = int(found["promised"]), int(found["kept"])
        if promised >= _STREAMED or there == 0:
            return there
        if kept < there:  # several samples in a byte, as in ADPCM
            return max(there, promised * there // kept)
        width = kept // there
        # neither the header that W64 counts nor that of AIFF holds samples
        header = kept - there * width if whole else _AIFF_HEADER * ("SSND" in found[0])
        return max(there, (promised - header) // width)
    return int(file.frames) if file.frames > there + _LOST else there


def why_empty(head: bytes, size: int) -> str:
    """Say why a file has no samples: a WAV may have them, but say otherwise.

    Parameters
    ----------
    head : bytes
        Its first ones, `HEAD` if it has so many.
    size : int
        Of the file, in bytes.
    """
    begin = head.find(b"data" + bytes(4)) + 8
    if head[:4] == b"RIFF" and begin >= 8 and not _is_chunk(head[begin : begin + 8], size - begin):
        return (
            f"its header says 0 bytes of samples, but {size - begin} follow: the program that wrote it did not finish; "
            "write its header anew"
        )
    return "has no samples; needs at least one"


def _is_chunk(head: bytes, following: int) -> bool:
    """Whether bytes are the name and the size of another part of a WAV, or nothing."""
    if not head:
        return True
    name, size = head[:4], int.from_bytes(head[4:], "little")
    return len(head) == 8 and all(32 <= letter < 127 for letter in name) and size + 8 <= following

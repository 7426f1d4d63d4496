"""One recording as a wave that can be trained on, or a sentence that says why it cannot."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import librosa
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio import resample
from fastvoc.train.data.lists import Recording, shown

LONGEST = 60.0
"""Longest piece that is read at once, in seconds: no hour is decoded for one segment."""

SILENT = 1e-3
"""A recording whose peak is lower (-60 dB of full scale) holds no voice."""

LOUDEST = 8.0
"""A float file whose peak is higher (18 dB over full scale) holds integers: no master is that hot."""

LONGEST_CLIP = 20.0
"""Of longer recordings the first so many seconds are judged."""

SHORTEST_CLIP = 0.25
"""Shorter recordings are not judged, in seconds: PESQ cannot."""


class Unusable(ValueError):
    """Says why a recording, or a piece of one, cannot be trained on.

    Parameters
    ----------
    sentence : str
        Begins with the path.
    whole : bool
        Whether another piece of the recording is no better.
    """

    def __init__(self, sentence: str, *, whole: bool = True) -> None:
        super().__init__(sentence)
        self.whole = whole


def read_recording(
    recording: Recording,
    sample_rate: int,
    *,
    trim: float | None = None,
    speed: float = 1.0,
    peak: float | None = None,
    longest: float = LONGEST,
    random: np.random.Generator | None = None,
) -> tuple[Tensor, bool]:
    """Read a recording as one channel.

    Parameters
    ----------
    recording : Recording
        Any rate, any number of channels (they are averaged), any format that libsndfile reads.
    sample_rate : int
        Rate to resample to, in Hz.
    trim : float, optional
        Silence at both ends that is this far under the loudest frame is cut, in dB.
    speed : float
        To play it at, pitch included: 2 halves its length.
    peak : float, optional
        Largest magnitude that the wave is scaled to; without it, it keeps its level.
    longest : float
        Of a longer recording a piece of this length is read, in seconds.
    random : numpy.random.Generator, optional
        Chooses the piece; without it, the first one is read.

    Returns
    -------
    wave : Tensor, shape (T,), float32
    whole : bool
        Whether it is all of the recording, not a piece.

    Raises
    ------
    Unusable
        If it is missing, not readable for whatever reason, empty or silent, or holds values that are not finite or,
        without a `peak`, in the range of integers.
    """
    with _naming(recording):
        mono, rate, whole = _decode(recording, longest, random)
        path = shown(recording.path)
        if trim is not None:
            mono, _ = librosa.effects.trim(mono, top_db=trim)
        wave = resample(torch.from_numpy(np.ascontiguousarray(mono)), round(rate * speed), sample_rate)
        largest = float(wave.abs().max()) if len(wave) else 0.0
        if largest < SILENT:
            level = (
                f"its peak is {20 * math.log10(largest):.0f} dB of full scale" if largest else "all samples are zero"
            )
            raise Unusable(f"{path}: is silent; {level}", whole=whole)
        if peak is not None:
            return wave * (peak / wave.abs().max()), whole
        if largest > LOUDEST:
            raise Unusable(
                f"{path}: has a peak of {largest:.0f}, and samples of a float file lie within ±1; divide them by the "
                "full scale of the integers that they were, 32768 of 16 bits, or set data.peak to scale recordings",
                whole=whole,
            )
        return wave, whole


def read_clip(
    recording: Recording, sample_rate: int, *, trim: float | None = None, peak: float | None = None
) -> Tensor:
    """Read what of a recording a generator is judged by: at most its first `LONGEST_CLIP` seconds.

    Parameters
    ----------
    recording, sample_rate, trim, peak
        As in `read_recording`.

    Returns
    -------
    Tensor, shape (T,), float32

    Raises
    ------
    Unusable
        As `read_recording`, or if it lasts less than `SHORTEST_CLIP` seconds.
    """
    wave, whole = read_recording(recording, sample_rate, trim=trim, peak=peak, longest=LONGEST_CLIP)
    seconds = len(wave) / sample_rate
    if seconds < SHORTEST_CLIP:
        sentence = f"{shown(recording.path)}: is too short; it lasts {seconds:.2f} s of {SHORTEST_CLIP}"
        raise Unusable(sentence, whole=whole)
    return wave


def rate_of(recording: Recording) -> int:
    """Return the sample rate of a file, in Hz, from its header.

    Raises
    ------
    Unusable
        If the file is missing or not readable.
    """
    with _naming(recording), _open(recording) as file:
        return int(file.samplerate)


def samples_of(recording: Recording, sample_rate: int) -> int:
    """Return how many samples `read_recording` returns without a trim, give or take one, from the header alone.

    Raises
    ------
    Unusable
        If the file is missing or not readable.
    """
    with _naming(recording), _open(recording) as file:
        _, count = _excerpt(recording, file)
        return round(count * sample_rate / int(file.samplerate))


@contextmanager
def _naming(recording: Recording) -> Iterator[None]:
    """Name the recording in whatever happens to it: one file of a million ends no run."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise Unusable(f"{shown(recording.path)}: cannot be read: {reason}") from error


def _decode(
    recording: Recording, longest: float, random: np.random.Generator | None
) -> tuple[NDArray[np.float32], int, bool]:
    path = shown(recording.path)
    with _open(recording) as file:
        first, count = _excerpt(recording, file)
        whole = count <= longest * file.samplerate
        if not whole:
            length = int(longest * file.samplerate)
            first += 0 if random is None else int(random.integers(count - length + 1))
            count = length
        try:
            file.seek(first)
            samples = file.read(count, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise Unusable(f"{path}: breaks off: {error}", whole=whole) from None
        rate = int(file.samplerate)
    if samples.size == 0:
        raise Unusable(f"{path}: has no samples", whole=whole)
    channels = samples.shape[1]
    mono = samples[:, 0] if channels == 1 else samples.mean(axis=1)
    broken = int(np.sum(~np.isfinite(mono)))
    if broken:
        raise Unusable(f"{path}: holds {broken} values that are not finite", whole=whole)
    if channels > 1 and np.abs(mono).max() < SILENT <= np.abs(samples).max():
        raise Unusable(
            f"{path}: is silent when its {channels} channels are averaged: they are of opposite phase and cancel each "
            "other; keep one of them",
            whole=whole,
        )
    return mono, rate, whole


def _open(recording: Recording) -> soundfile.SoundFile:
    path = recording.path
    if not os.path.isfile(path):  # noqa: PTH113
        columns = "; columns of a list need '|' or a tab, or a first line that names them, such as 'file_name,text'"
        raise Unusable(f"{shown(path)}: no such file{columns if {',', ';'} & {*os.path.basename(path)} else ''}")  # noqa: PTH119
    try:
        # soundfile encodes names strictly, but on most systems they are bytes, of whatever encoding
        return soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise Unusable(f"{shown(path)}: not a readable sound file: {error.error_string}") from None


def _excerpt(recording: Recording, file: soundfile.SoundFile) -> tuple[int, int]:
    """Return first sample and number of samples, in those of the file."""
    frames = int(file.frames)
    first = min(round(recording.start * file.samplerate), frames)
    count = frames - first
    if math.isfinite(recording.duration):
        count = min(count, round(recording.duration * file.samplerate))
    return first, count

"""One recording as a wave that can be trained on, or a sentence that says why it cannot."""

from __future__ import annotations

import math
import os

import librosa
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio import resample
from fastvoc.train.lists import Recording

LONGEST = 60.0
"""Longest piece that is read at once, in seconds: no hour is decoded for one segment."""

SILENT = 1e-3
"""A recording whose peak is lower (-60 dB of full scale) holds no voice."""


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
        If it is missing, not readable, empty or silent, or holds values that are not finite.
    """
    samples, rate, whole = _decode(recording, longest, random)
    path = recording.path
    if samples.size == 0:
        raise Unusable(f"{path}: has no samples", whole=whole)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    broken = int(np.sum(~np.isfinite(mono)))
    if broken:
        raise Unusable(f"{path}: holds {broken} values that are not finite", whole=whole)
    if trim is not None:
        mono, _ = librosa.effects.trim(mono, top_db=trim)
    wave = resample(torch.from_numpy(np.ascontiguousarray(mono)), round(rate * speed), sample_rate)
    peak = float(wave.abs().max()) if len(wave) else 0.0
    if peak < SILENT:
        level = f"its peak is {20 * math.log10(peak):.0f} dB of full scale" if peak else "all samples are zero"
        raise Unusable(f"{path}: is silent; {level}", whole=whole)
    return wave, whole


def samples_of(recording: Recording, sample_rate: int) -> int:
    """Return how many samples `read_recording` returns without a trim, give or take one, from the header alone.

    Raises
    ------
    Unusable
        If the file is missing or not readable.
    """
    with _open(recording) as file:
        _, count = _excerpt(recording, file)
        return round(count * sample_rate / int(file.samplerate))


def _decode(
    recording: Recording, longest: float, random: np.random.Generator | None
) -> tuple[NDArray[np.float32], int, bool]:
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
            raise Unusable(f"{recording.path}: breaks off: {error}", whole=whole) from None
        return samples, int(file.samplerate), whole


def _open(recording: Recording) -> soundfile.SoundFile:
    path = recording.path
    if not os.path.isfile(path):  # noqa: PTH113
        raise Unusable(f"{path}: no such file")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise Unusable(f"{path}: not a readable sound file: {error.error_string}") from None


def _excerpt(recording: Recording, file: soundfile.SoundFile) -> tuple[int, int]:
    """Return first sample and number of samples, in those of the file."""
    frames = int(file.frames)
    first = min(round(recording.start * file.samplerate), frames)
    count = frames - first
    if math.isfinite(recording.duration):
        count = min(count, round(recording.duration * file.samplerate))
    return first, count

"""Mels of another network, such as a text-to-speech model, that recordings are paired with for fine-tuning.

Such a mel is made with the durations of the recording (teacher forcing), so that frame by frame both say the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio import MelConfig
from fastvoc.train.data.lists import Recording, shown
from fastvoc.train.data.reading import Unusable, samples_of
from fastvoc.train.data.recordings import Recordings


class _Misfit(Unusable):
    """A mel of another kind or length than its recording needs: hardly ever the only one."""


class PredictedMels:
    """A folder of mels, one `name.npy` for each recording `name.*`; or what the list of the recordings names.

    The mels may lie in folders like those of the recordings: then the one counts whose folders agree furthest, so that
    ``a/1.npy`` and ``b/1.npy`` are those of ``a/1.wav`` and ``b/1.wav``.

    Parameters
    ----------
    folder : str
    config : MelConfig
        The convention of the mels, which is that of the generator.
    tolerance : int
        Frames that a mel may be longer or shorter than its recording.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """

    def __init__(self, folder: str, config: MelConfig, *, tolerance: int) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.config = config
        self.tolerance = tolerance
        if not self.folder.is_dir():
            raise FileNotFoundError(f"data.mels: {folder}: no such folder")
        self._parted = any(entry.is_dir() for entry in self.folder.iterdir())

    def read(self, recording: Recording, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Read the mel of a recording, and make the wave exactly as long.

        Parameters
        ----------
        recording : Recording
        wave : Tensor, shape (T,)

        Returns
        -------
        mel : Tensor, shape (bands, frames), float32
        wave : Tensor, shape (frames * hop,)
            Cut, or followed by silence.

        Raises
        ------
        Unusable
            If there is no mel, or it is damaged, holds values that are not finite, has a wrong shape, or a length that
            differs by more than the tolerance.
        """
        path = self._path(recording)
        array = self._open(path)
        self._check(path, array, len(wave), recording)
        mel = torch.from_numpy(np.array(array, dtype=np.float32))
        if not bool(mel.isfinite().all()):
            raise Unusable(f"{shown(str(path))}: holds values that are not finite")
        samples = mel.shape[1] * self.config.hop
        return mel, F.pad(wave, (0, samples - len(wave)))

    def check(self, recordings: Recordings) -> dict[int, Unusable]:
        """Compare all mels and recordings by their headers, before any time is spent.

        Returns
        -------
        dict of int to Unusable
            Recordings that cannot be used, by index, and why: they have no mel, or one of the two is damaged.

        Raises
        ------
        ValueError
            If two recordings would share a mel, or no recording has one, or a mel has a wrong shape or length.
        """
        named: dict[str, int] = {}
        unusable: dict[int, Unusable] = {}
        wrong: list[str] = []
        for index, recording in enumerate(recordings):
            path = self._path(recording)
            other = recordings[named.setdefault(str(path), index)]
            if not _same(other, recording):  # one may be listed twice
                raise ValueError(
                    f"data.mels: {path.name} would be the mel of both {_described(other)} and {_described(recording)}; "
                    "recordings to fine-tune on need different names, or mels in folders like theirs"
                )
            try:
                self._check(path, self._open(path), samples_of(recording, self.config.sample_rate), recording)
            except _Misfit as error:
                wrong.append(str(error))
            except Unusable as error:
                unusable[index] = error
        if wrong:
            more = f" ({len(wrong)} of {len(recordings)} mels are wrong)" if len(wrong) > 1 else ""
            raise ValueError(wrong[0] + more)
        if len(unusable) == len(recordings):
            raise ValueError(f"data.mels: no recording has a usable mel; {next(iter(unusable.values()))}")
        return unusable

    def _path(self, recording: Recording) -> Path:
        if recording.mel:
            return Path(recording.mel)
        name = Path(recording.path).with_suffix(".npy")
        if self._parted:
            folders = name.parts[1:-1]
            for first in range(len(folders)):
                path = self.folder.joinpath(*folders[first:], name.name)
                if path.exists():
                    return path
        return self.folder / name.name

    def _open(self, path: Path) -> NDArray[np.generic]:
        try:
            array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise Unusable(f"{shown(str(path))}: no such file; a recording of that name needs its mel here") from None
        except (ValueError, EOFError, OSError) as error:
            raise Unusable(f"{shown(str(path))}: not a readable .npy of numbers: {error}") from None
        return array[0] if array.ndim == 3 and array.shape[0] == 1 else array

    def _check(self, path: Path, mel: NDArray[np.generic], samples: int, recording: Recording) -> None:
        bands, hop, where = self.config.bands, self.config.hop, shown(str(path))
        if mel.dtype.kind != "f":
            raise _Misfit(f"{where}: holds {mel.dtype}; a mel is floating point")
        if mel.ndim != 2 or mel.shape[0] != bands:
            if mel.ndim == 2 and mel.shape[1] == bands:
                raise _Misfit(f"{where}: has shape {mel.shape}, which is transposed; write it as (bands, frames)")
            raise _Misfit(f"{where}: has shape {mel.shape}; needs ({bands}, frames)")
        difference = mel.shape[1] - samples / hop
        if abs(difference) > self.tolerance:
            raise _Misfit(
                f"{where}: has {mel.shape[1]} frames, and {shown(recording.path)} has {samples / hop:.1f} "
                f"({samples} samples at {self.config.sample_rate} Hz, hop {hop}); they may differ by "
                f"data.mel_tolerance = {self.tolerance}: was the mel made at another rate or hop, or with a trim?"
            )


def _same(one: Recording, other: Recording) -> bool:
    stretches = [(recording.start, recording.duration) for recording in (one, other)]
    return stretches[0] == stretches[1] and (
        one.path == other.path or os.path.realpath(one.path) == os.path.realpath(other.path)
    )


def _described(recording: Recording) -> str:
    return shown(recording.path) + (f" from {recording.start:g} s on" if recording.start else "")

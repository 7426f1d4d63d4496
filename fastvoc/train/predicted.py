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
from fastvoc.train.lists import Recording
from fastvoc.train.reading import Unusable, samples_of
from fastvoc.train.recordings import Recordings


class PredictedMels:
    """A folder of mels, one `name.npy` for each recording `name.*`.

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
            If there is no mel, or it is damaged or holds values that are not finite.
        ValueError
            If its shape is wrong or the lengths differ by more than the tolerance.
        """
        path = self._path(recording)
        array = self._open(path)
        self._check(path, array, len(wave), recording)
        mel = torch.from_numpy(np.array(array, dtype=np.float32))
        if not bool(mel.isfinite().all()):
            raise Unusable(f"{path}: holds values that are not finite")
        samples = mel.shape[1] * self.config.hop
        return mel, F.pad(wave, (0, samples - len(wave)))

    def check(self, recordings: Recordings) -> dict[int, str]:
        """Compare all mels and recordings by their headers, before any time is spent.

        Returns
        -------
        dict of int to str
            Recordings that cannot be used, by index, and why: they have no mel, or one of the two is damaged.

        Raises
        ------
        ValueError
            If two recordings share a name, or no recording has a mel, or a mel has a wrong shape or length.
        """
        named: dict[str, int] = {}
        unusable: dict[int, str] = {}
        wrong: list[str] = []
        for index, recording in enumerate(recordings):
            path = self._path(recording)
            other = named.setdefault(path.name, index)
            if other != index:
                raise ValueError(
                    f"data.mels: {path.name} would be the mel of both {recordings[other].path} and {recording.path}; "
                    "recordings to fine-tune on need different names"
                )
            try:
                self._check(path, self._open(path), samples_of(recording, self.config.sample_rate), recording)
            except Unusable as error:
                unusable[index] = str(error)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            more = f" ({len(wrong)} of {len(recordings)} mels are wrong)" if len(wrong) > 1 else ""
            raise ValueError(wrong[0] + more)
        if len(unusable) == len(recordings):
            raise ValueError(f"data.mels: no recording has a usable mel; {next(iter(unusable.values()))}")
        return unusable

    def _path(self, recording: Recording) -> Path:
        name, _ = os.path.splitext(os.path.basename(recording.path))  # noqa: PTH119, PTH122
        return self.folder / f"{name}.npy"

    def _open(self, path: Path) -> NDArray[np.generic]:
        try:
            array: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise Unusable(f"{path}: no such file; a recording of that name needs its mel here") from None
        except (ValueError, EOFError, OSError) as error:
            raise Unusable(f"{path}: not a readable .npy of numbers: {error}") from None
        return array[0] if array.ndim == 3 and array.shape[0] == 1 else array

    def _check(self, path: Path, mel: NDArray[np.generic], samples: int, recording: Recording) -> None:
        bands, hop = self.config.bands, self.config.hop
        if mel.dtype.kind != "f":
            raise ValueError(f"{path}: holds {mel.dtype}; a mel is floating point")
        if mel.ndim != 2 or mel.shape[0] != bands:
            if mel.ndim == 2 and mel.shape[1] == bands:
                raise ValueError(f"{path}: has shape {mel.shape}, which is transposed; write it as (bands, frames)")
            raise ValueError(f"{path}: has shape {mel.shape}; needs ({bands}, frames)")
        difference = mel.shape[1] - samples / hop
        if abs(difference) > self.tolerance:
            raise ValueError(
                f"{path}: has {mel.shape[1]} frames, and {recording.path} has {samples / hop:.1f} "
                f"({samples} samples at {self.config.sample_rate} Hz, hop {hop}); they may differ by "
                f"data.mel_tolerance = {self.tolerance}: was the mel made at another rate or hop, or with a trim?"
            )

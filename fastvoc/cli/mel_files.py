"""Mel spectrograms on disk: one array per file, in the formats of NumPy, PyTorch and safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

BROKEN = (
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    LookupError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)
"""What the libraries raise for bytes that end early, make no sense, or hold objects."""


def read_mel(path: Path) -> Tensor:
    """Read the one array of a file.

    Parameters
    ----------
    path : Path
        .npy, .npz, .pt, .pth or .safetensors. Pickled objects are refused.

    Returns
    -------
    Tensor, shape (bands, frames) where the file holds that or (1, bands, frames), else as it is in the file

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or of another format, or holds no array or several.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch}
    reader = readers.get(path.suffix.lower(), load_file if path.suffix.lower() == ".safetensors" else None)
    if reader is None:
        raise ValueError(f"{path}: is not a mel; known suffixes: {', '.join(readers)}, .safetensors")
    try:
        content: Any = reader(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except BROKEN as error:
        reason = f"is damaged, or not a {path.suffix} file of numbers; pickled objects are never opened"
        raise ValueError(f"{path}: {reason}") from error
    mel = _only_tensor(content, path)
    return mel[0] if mel.ndim == 3 and mel.shape[0] == 1 else mel


def write_mel(path: Path, mel: Tensor) -> None:
    """Write a mel as a `.npy`, under a temporary name that is renamed when complete."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            np.save(file, mel.cpu().numpy())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_npy(path: Path) -> Tensor:
    with path.open("rb") as file:
        return _from_numpy(np.load(file, allow_pickle=False))


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: _from_numpy(archive[name]) for name in archive.files}


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _from_numpy(array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, not numbers")
    native = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(native))


def _only_tensor(content: Any, path: Path) -> Tensor:
    if isinstance(content, Mapping):
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if len(tensors) != 1:
            names = ", ".join(map(str, tensors)) or "none"
            raise ValueError(f"{path}: holds {len(tensors)} arrays ({names}); one file holds one mel")
        return next(iter(tensors.values()))
    if not isinstance(content, Tensor):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a tensor; save the mel alone")
    return content

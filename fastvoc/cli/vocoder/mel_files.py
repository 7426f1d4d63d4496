"""Mel spectrograms on disk: one array per file, in the formats of NumPy, PyTorch and safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from fastvoc.writing import complete_file

BROKEN = (
    ValueError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    LookupError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
)
"""What the libraries raise for bytes that end early, make no sense, or hold objects."""


NAMES = ("mel", "feats")
"""What a mel is called among other arrays: by most, and in the dumps of ParallelWaveGAN and ESPnet."""


def read_mel(path: Path, key: str | None = None) -> Tensor:
    """Read the mel of a file.

    Parameters
    ----------
    path : Path
        .npy, .npz, .pt, .pth, .safetensors, .h5 or .hdf5. Pickled objects are refused.
    key : str, optional
        Name of the array, in a file that holds several; without it, the only one, or the one that is called as in
        `NAMES`.

    Returns
    -------
    Tensor, shape (bands, frames) where the file holds that or (1, bands, frames), else as it is in the file

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or of another format, holds no array or several, or none of this name; or if it is HDF5, and
        h5py is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: is not a mel; known suffixes: {', '.join(_READERS)}")
    try:
        content: Any = reader(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except ModuleNotFoundError:
        raise ValueError(f"{path}: is an HDF5 file; to read it, run: pip install 'fastvoc[hdf5]'") from None
    except BROKEN as error:
        reason = f"is damaged, or not a {path.suffix} file of numbers; pickled objects are never opened"
        raise ValueError(f"{path}: {reason}") from error
    mel = _one_tensor(content, path, key)
    if mel.layout is not torch.strided or mel.is_quantized or mel.is_meta:
        raise ValueError(f"{path}: holds a sparse, quantized or empty kind of tensor; a mel is plain numbers")
    return mel[0] if mel.ndim == 3 and mel.shape[0] == 1 else mel


def write_mel(path: Path, mel: Tensor) -> None:
    """Write a mel as a `.npy`, under a temporary name that is renamed when complete."""
    with complete_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, mel.cpu().numpy())


def _read_npy(path: Path) -> Tensor:
    with path.open("rb") as file:
        return _from_numpy(np.load(file, allow_pickle=False))


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: _from_numpy(archive[name]) for name in archive.files}


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:  # PyTorch takes no names that are not text
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> Any:
    return load(path.read_bytes())


def _read_hdf5(path: Path) -> dict[str, Tensor]:
    h5py = import_module("h5py")
    found: dict[str, Tensor] = {}

    def add(name: str, value: Any) -> None:  # links to other files are not visited
        if isinstance(value, h5py.Dataset) and value.dtype.kind in "fiu":
            found[name] = _from_numpy(np.asarray(value[()]))

    with path.open("rb") as file, h5py.File(file, "r") as archive:
        archive.visititems(add)
    return found


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
}


def _from_numpy(array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, not numbers")
    native = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(np.ascontiguousarray(native))


def _one_tensor(content: Any, path: Path, key: str | None) -> Tensor:
    if not isinstance(content, Mapping):
        if not isinstance(content, Tensor):
            raise ValueError(f"{path}: holds a {type(content).__name__}, not a tensor; save the mel alone")
        return content  # which has no name that a key could ask for
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no array")
    names = ", ".join(tensors)
    if key is not None:
        if key not in tensors:
            raise ValueError(f"{path}: holds no array that is called {key!r}; it holds {names}")
        return tensors[key]
    if len(tensors) > 1:
        tensors = {name: value for name, value in tensors.items() if name in NAMES}
    if len(tensors) != 1:
        raise ValueError(f"{path}: holds {len(names.split(', '))} arrays ({names}); name the mel with --key")
    return next(iter(tensors.values()))

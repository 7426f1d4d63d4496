"""Mean and scale of each mel band, as projects store them beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastvoc.audio import Normalization
from fastvoc.config import from_dict

NAMES: tuple[str, ...] = ("mean", "scale")
"""Of both arrays, in every project that fastvoc opens."""

_PICKLED = (
    "holds pickled objects, which could run code while they are opened; where you trust it, run once: "
    'python -c "import numpy as n; s = n.load({name!r}, allow_pickle=True).item(); '
    "n.savez({target!r}, mean=s['mel_mean'], scale=s['mel_std'])\""
)


def normalization(mean: Any, scale: Any, where: str) -> Normalization:
    """Build the normalization of two arrays of one value per band."""
    arrays = [np.asarray(values) for values in (mean, scale)]
    if any(array.dtype.kind not in "fiu" or array.size > 1 << 16 for array in arrays):
        raise ValueError(f"{where}: mean and scale must be numbers, one for each band")
    values = [array.astype(np.float64).ravel().tolist() for array in arrays]
    result: Normalization = from_dict(Normalization, {"mean": values[0], "scale": values[1]}, where)
    return result


def of_tensors(tensors: Mapping[str, Tensor], where: str) -> Normalization | None:
    """Build it of tensors that are called mean and scale; None where there are none."""
    if set(tensors) != {"mean", "scale"}:
        return None
    if any(not t.is_floating_point() or t.dim() != 1 or len(t) > 1 << 16 for t in tensors.values()):
        raise ValueError(f"{where}: mean and scale must be numbers, one for each band")
    return normalization(tensors["mean"].double().numpy(), tensors["scale"].double().numpy(), where)


def beside(folder: Path) -> Normalization | None:
    """Read ``stats.h5``, ``stats.npy`` or ``stats.npz`` in a folder; None where there is none."""
    for name in ("stats.h5", "stats.npy", "stats.npz"):
        if (folder / name).is_file():
            return read(folder / name)
    return None


def read(path: Path) -> Normalization:
    """Read a file of statistics, told apart by content: HDF5, an array of two rows, or an archive of two arrays.

    Raises
    ------
    ValueError
        One sentence, if it is damaged, holds something else or pickled objects, or needs a package that is absent.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        return _read_hdf5(path)
    try:
        content = np.load(path, allow_pickle=False)
        names = list(content) if isinstance(content, np.lib.npyio.NpzFile) else []
        arrays = {name: content[name] for name in names if name in NAMES} if names else content
    except Exception as error:  # whatever NumPy and zipfile raise for bytes that make no sense
        if "pickle" in str(error).lower():
            raise ValueError(f"{path}: {_pickled(path)}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is no readable file of statistics ({reason})") from None
    if isinstance(arrays, dict):
        if set(arrays) != {"mean", "scale"}:
            raise ValueError(f"{path}: holds {', '.join(names[:5]) or 'nothing'}; expected mean and scale")
        return normalization(arrays["mean"], arrays["scale"], str(path))
    if arrays.ndim != 2 or arrays.shape[0] != 2:
        raise ValueError(f"{path}: has shape {arrays.shape}; expected two rows, the mean and the scale of each band")
    return normalization(arrays[0], arrays[1], str(path))


def _pickled(path: Path) -> str:
    return _PICKLED.format(name=path.name, target=path.with_suffix(".npz").name)


def _read_hdf5(path: Path) -> Normalization:
    try:
        h5py = import_module("h5py")
    except ImportError:
        raise ValueError(f"{path}: is an HDF5 file; to read it, run: pip install 'fastvoc[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            found = {name: file[name] for name in NAMES if name in file}
            arrays = {name: data[()] for name, data in found.items() if getattr(data, "size", 1 << 17) <= 1 << 16}
    except Exception as error:  # whatever HDF5 raises for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is no readable HDF5 file ({reason})") from None
    if set(arrays) != {"mean", "scale"}:
        raise ValueError(f"{path}: holds no mean and scale of the mel bands")
    return normalization(arrays["mean"], arrays["scale"], str(path))

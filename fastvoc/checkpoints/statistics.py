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

FILES = ("stats.h5", "stats.npy", "stats.npz")
"""What ParallelWaveGAN calls them."""

NAMES: tuple[str, ...] = ("mean", "scale")
"""Of both arrays, in every project that fastvoc opens."""

_MOST = 1 << 16
"""Bands that a mel may have here."""

_LARGEST, _LARGEST_ARRAY = 1 << 24, 9 * _MOST
"""Bytes of a file of statistics, and of one of its arrays with its header."""

_PICKLED = (
    "holds pickled objects, which could run code while they are opened; where you trust it, run once: "
    'python -c "import numpy as n; s = n.load({name!r}, allow_pickle=True).item(); '
    "n.savez({target!r}, mean=s['mel_mean'], scale=s['mel_std'])\""
)


def normalization(mean: Any, scale: Any, where: str) -> Normalization:
    """Build the normalization of two arrays of one value per band."""
    arrays = [np.asarray(values) for values in (mean, scale)]
    if any(array.dtype.kind not in "fiu" or array.size > _MOST for array in arrays):
        raise ValueError(f"{where}: mean and scale must be numbers, one for each band")
    values = [array.astype(np.float64).ravel().tolist() for array in arrays]
    result: Normalization = from_dict(Normalization, {"mean": values[0], "scale": values[1]}, where)
    return result


def of_tensors(tensors: Mapping[str, Tensor], where: str) -> Normalization | None:
    """Build it of tensors that are called mean and scale; None where there are none.

    Raises
    ------
    ValueError
        If there is only one of them, or they are not numbers, one for each band.
    """
    if not tensors:
        return None
    if missing := [name for name in NAMES if name not in tensors]:
        raise ValueError(f"{where}: has no {missing[0]} beside {', '.join(tensors)}; statistics are both")
    if any(not t.is_floating_point() or t.dim() != 1 or len(t) > _MOST for t in tensors.values()):
        raise ValueError(f"{where}: mean and scale must be numbers, one for each band")
    return normalization(tensors["mean"].double().numpy(), tensors["scale"].double().numpy(), where)


def read(path: Path) -> Normalization:
    """Read a file of statistics, told apart by content: HDF5, an array of two rows, or an archive of two arrays.

    Raises
    ------
    ValueError
        One sentence, if it is damaged, holds something else or pickled objects, or needs a package that is absent.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(
            f"{path}: has {path.stat().st_size} bytes, too many for statistics; it is another kind of file"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        return _read_hdf5(path)
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            with content:  # an archive, which may be compressed: its list says how large each array is
                names = list(content)
                small = {info.filename for info in content.zip.infolist() if info.file_size <= _LARGEST_ARRAY}
                arrays = {name: content[name] for name in NAMES if name in names and f"{name}.npy" in small}
    except Exception as error:  # whatever NumPy and zipfile raise for bytes that make no sense
        if "pickle" in str(error).lower():
            raise ValueError(f"{path}: {_pickled(path)}") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is no readable file of statistics ({reason})") from None
    if not isinstance(content, np.ndarray):
        if set(arrays) != set(NAMES):
            some = ", ".join(names[:5]) or "nothing"
            raise ValueError(f"{path}: holds {some}; expected mean and scale, one number for each band")
        return normalization(arrays["mean"], arrays["scale"], str(path))
    if content.ndim != 2 or content.shape[0] != 2:
        raise ValueError(f"{path}: has shape {content.shape}; expected two rows, the mean and the scale of each band")
    return normalization(content[0], content[1], str(path))


def _pickled(path: Path) -> str:
    return _PICKLED.format(name=path.name, target=path.with_suffix(".npz").name)


def _read_hdf5(path: Path) -> Normalization:
    try:
        h5py = import_module("h5py")
    except ImportError:
        raise ValueError(f"{path}: is an HDF5 file; to read it, run: pip install 'fastvoc[hdf5]'") from None
    try:
        with h5py.File(path, "r") as file:
            # a link could lead to another file
            own = [name for name in NAMES if isinstance(file.get(name, getlink=True), h5py.HardLink)]
            arrays = {name: file[name][()] for name in own if getattr(file[name], "size", _MOST + 1) <= _MOST}
    except Exception as error:  # whatever HDF5 raises for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is no readable HDF5 file ({reason})") from None
    if set(arrays) != {"mean", "scale"}:
        raise ValueError(f"{path}: holds no mean and scale of the mel bands")
    return normalization(arrays["mean"], arrays["scale"], str(path))

"""Codes of autoencoders on disk: one array per file, as NSynth's own scripts save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastvoc.writing import complete_file


def write_code(path: str | Path, code: Tensor) -> None:
    """Write a code, (T, channels), as a `.npy` of float32, under a temporary name that is renamed when complete.

    Raises
    ------
    ValueError
        If the suffix is another one.
    """
    where = Path(path)
    if where.suffix.lower() != ".npy":
        raise ValueError(f"{where}: suffix {where.suffix!r} is not that of a code; it must be .npy")
    with complete_file(where) as temporary, temporary.open("wb") as file:
        np.save(file, code.detach().float().cpu().numpy())


def read_code(path: str | Path) -> Tensor:
    """Read a code from a `.npy`; no pickled object is opened.

    Returns
    -------
    Tensor, shape (T, channels), float32

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or holds anything but one code of finite numbers.
    """
    where = Path(path)
    try:
        with where.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{where}: no such file") from None
    except (ValueError, EOFError, MemoryError, OSError, SyntaxError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: is damaged, or not a .npy file of numbers ({reason})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError(f"{where}: is not an array of numbers; a code is (rows, channels)")
    if array.ndim == 3 and len(array) == 1:  # a batch of one
        array = array[0]
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{where}: holds an array of shape {array.shape}; a code is (rows, channels)")
    values = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: holds values that are not finite")
    return torch.from_numpy(values)

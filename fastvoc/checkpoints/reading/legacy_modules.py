"""Reads modules that PyTorch pickled before version 1.6, with the text of their classes beside them.

``torch.load`` with ``weights_only=True`` refuses such files for that text, which nobody runs. Here every name in the
pickle is given something inert: the stand-ins of `fastvoc.checkpoints.reading.stand_ins`, and what puts tensors
together.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fastvoc.checkpoints.reading.stand_ins import STAND_INS, sequence

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def load(path: Path) -> Any:
    """Read a file of the older layout.

    Raises
    ------
    pickle.UnpicklingError
        If something in it has no stand-in; in the words of PyTorch, ``GLOBAL <name>``.
    Exception
        Whatever pickle and PyTorch raise for bytes that make no sense.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if (_Reader(file, size).load(), _Reader(file, size).load()) != (_MAGIC, _VERSION):
            raise ValueError("it does not begin as files of PyTorch do")
        _Reader(file, size).load()  # of the machine: how its numbers lie in memory, which is how all do by now
        reader = _Reader(file, size)
        content = reader.load()
        for key in _Reader(file, size).load():
            storage = reader.storages[key]
            count = int.from_bytes(file.read(8), "little")
            data = bytearray(file.read(count * storage.element_size())) if count == len(storage) else bytearray()
            if len(data) != storage.nbytes:
                raise ValueError("a tensor ends early")
            if data:
                storage.copy_(torch.frombuffer(data, dtype=storage.dtype))
    return content


class _Reader(pickle._Unpickler):
    """Knows no name but those that are inert, each made anew, so that a pickle that writes into one harms no other.

    It is the reader in Python: that in C takes as much memory as a number in the file says.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file, encoding="utf-8")
        self.size = size
        self.storages: dict[Any, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what is called in place of a name."""
        if module in ("torch", "torch.cuda") and name in _STORAGES:
            return _inert(lambda: None, _STORAGES[name])
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        found = {**_NAMES, **STAND_INS}.get(full)
        if found is None:
            raise pickle.UnpicklingError(f"GLOBAL {full}")
        return type(found.__name__, (found,), {}) if isinstance(found, type) else _inert(found)

    def persistent_load(self, key: Any) -> Any:
        """Return a class for itself and the text beside it, or the memory of tensors."""
        what, kind, *rest = key
        if what == "module":
            return kind
        name, _, count, view = rest
        dtype: torch.dtype = kind.dtype
        if what != "storage" or view is not None or not 0 <= count * dtype.itemsize <= self.size:
            raise ValueError("a tensor is larger than the file")
        if name not in self.storages:
            if sum(storage.nbytes for storage in self.storages.values()) + count * dtype.itemsize > self.size:
                raise ValueError("tensors are larger than the file")
            self.storages[name] = torch.zeros(count, dtype=dtype)
        return self.storages[name]


def _inert(function: Callable[..., Any], dtype: torch.dtype | None = None) -> Any:
    """Wrap a function in one of its own."""

    def call(*arguments: Any) -> Any:
        return function(*arguments)

    call.dtype = dtype  # type: ignore[attr-defined]
    return call


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *ignored: Any) -> Tensor:
    if not isinstance(storage, Tensor):
        raise TypeError("a tensor has no memory")
    return storage.as_strided(size, stride, offset)


def _parameter(data: Any, *ignored: Any) -> Any:
    return data


_NAMES: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": sequence,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}

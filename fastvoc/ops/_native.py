"""Loads the compiled library through cffi.

The declarations are read out of the headers themselves, which the build ships beside the library, so that signatures
cannot drift. An absent library is a reason kept, not a silence: the build writes it to `build.json`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import cffi
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "_native"
HEADERS = ("fastvoc.h", "fastvoc_downsample.h", "fastvoc_plan.h", "fastvoc_cuda.h")
"""Each builds on those before it."""

_scratch = threading.local()
_isa: ContextVar[str | None] = ContextVar("fastvoc_isa", default=os.environ.get("FASTVOC_ISA") or None)


def build() -> dict[str, Any]:
    """Return what the build recorded about itself, or an empty record if there was no build."""
    record = FOLDER / "build.json"
    return dict(json.loads(record.read_text(encoding="utf-8"))) if record.is_file() else {}


def hosted() -> Path | None:
    """Return the library in which the CPU executes the kernels of GPUs, which is for tests, or None."""
    named = os.environ.get("FASTVOC_CUDA_ON_CPU")
    return Path(named).resolve() if named else None


def declarations(header: str) -> str:
    """Strip a C header of comments and preprocessor lines, and of what only C++ reads."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    header = re.sub(r"#ifdef __cplusplus.*?#endif", "", header, flags=re.DOTALL)
    return re.sub(r"^\s*#.*$", "", header, flags=re.MULTILINE)


@functools.cache
def missing() -> str | None:
    """Return why there is no compiled library, as a sentence, or None if there is one."""
    return _load()[2]


@functools.cache
def missing_cuda() -> str | None:
    """Return why the compiled library has no CUDA kernels, as a sentence, or None if it has."""
    reason = build().get("cuda", "the native library was built without CUDA kernels")
    return None if reason is None else str(reason)


def library() -> tuple[Any, Any]:
    """Return the cffi interface and the loaded library.

    Raises
    ------
    RuntimeError
        With the reason, if there is no library.
    """
    ffi, loaded, reason = _load()
    if reason is not None:
        raise RuntimeError(f"native library: {reason}")
    return ffi, loaded


def check(where: str, code: int) -> None:
    """Raise the sentence that belongs to a native error code."""
    if code != 0:
        ffi, loaded = library()
        said = f" ({ffi.string(loaded.fastvoc_cuda_message()).decode()})" if code == loaded.FASTVOC_DRIVER_ERROR else ""
        raise RuntimeError(f"{where}: {ffi.string(loaded.fastvoc_error(code)).decode()}{said}")


@functools.cache
def isas() -> dict[str, int]:
    """Return the instruction sets that this library was compiled for and this processor has, best first."""
    ffi, loaded = library()
    names: dict[str, int] = {}
    for number in range(loaded.FASTVOC_ISA_COUNT - 1, -1, -1):
        if loaded.fastvoc_isa_usable(number):
            names[ffi.string(loaded.fastvoc_isa_name(number)).decode()] = number
    return names


def isa() -> int:
    """Return the number of the instruction set in use: the best one, or the one that `FASTVOC_ISA` names.

    Raises
    ------
    ValueError
        If the instruction set that was asked for cannot be used here.
    """
    usable, asked = isas(), _isa.get()
    if asked is None:
        return next(iter(usable.values()))
    if asked not in usable:
        raise ValueError(f"FASTVOC_ISA: {asked!r} cannot be used on this machine; usable: {', '.join(usable)}")
    return usable[asked]


def multiplies_bfloat16() -> bool:
    """Tell whether the instruction set in use multiplies bfloat16."""
    _, loaded = library()
    return isa() >= int(loaded.FASTVOC_ISA_AVX512_BF16)


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Run CPU kernels with one instruction set inside a `with` block."""
    token = _isa.set(name)
    try:
        yield
    finally:
        _isa.reset(token)


def scratch(size: int) -> Tensor:
    """Return at least `size` floats for the work of one call, the same ones for the next call of this thread.

    Fresh memory costs more than the packing that fills it: 5.4 ms against 1.8 ms for the 8 MiB weight of HiFi-GAN V1's
    first upsampling (one core of an AMD EPYC of family 26, 2026-11-20).
    """
    if torch.are_deterministic_algorithms_enabled():
        return torch.empty(size)  # which then holds NaN, so that tests see whoever reads before writing
    if getattr(_scratch, "memory", None) is None or _scratch.memory.numel() < size:
        _scratch.memory = torch.empty(size)
    memory: Tensor = _scratch.memory
    return memory


@functools.cache
def _load() -> tuple[Any, Any, str | None]:
    path = hosted()
    if path is None:
        record = build()
        if not record:
            return None, None, "the native library was never built here; run `pip install -e .` or `pip install .`"
        if record.get("reason"):
            return None, None, str(record["reason"])
        path = FOLDER / record["library"]
    ffi = cffi.FFI()
    try:
        for header in HEADERS:
            ffi.cdef(declarations((path.parent / header).read_text(encoding="utf-8")))
        return ffi, ffi.dlopen(str(path)), None
    except (OSError, cffi.CDefError) as error:
        return None, None, f"the native library cannot be loaded: {' '.join(str(error).split())}"

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import cffi
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent / "_native"
HEADERS = (
    "fastvoc.h",
    "fastvoc_plan.h",
    "fastvoc_convnext.h",
    "fastvoc_gated.h",
    "fastvoc_griffin_lim.h",
    "fastvoc_recurrent.h",
    "fastvoc_cuda.h",
    "fastvoc_cuda_smooth_snake.h",
    "fastvoc_cuda_convnext.h",
)
"""Each builds on those before it."""

_loading = threading.Lock()
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
    """Return why kernels cannot be loaded on a GPU, as a sentence, or None if NVIDIA's driver is there to do it."""
    ffi, loaded = library()
    reason = loaded.fastvoc_cuda_missing()
    return None if reason == ffi.NULL else str(ffi.string(reason).decode())


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


def host_memory(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return uninitialised memory that native code may write, whatever torch's default dtype and device are.

    PyTorch aligns it to 64 bytes.

    Parameters
    ----------
    *shape : int
    dtype : torch.dtype
        What native code takes the memory for: torch.float32 for `float`, torch.uint8 for bytes.
    """
    return torch.empty(shape, dtype=dtype, device="cpu")


def floats(tensor: Tensor | None) -> Any:
    """Return where the floats of a tensor begin, or null for None.

    Raises
    ------
    ValueError
        If its memory was given back, as sharded training does between steps.
    """
    if tensor is None:
        return library()[0].NULL
    address = tensor.data_ptr()
    if address == 0 and tensor.numel():
        raise ValueError(f"native library: the memory of a tensor of shape {tuple(tensor.shape)} was given back")
    return _float_pointer()(address)


@functools.cache
def _float_pointer() -> Callable[[int], Any]:
    """Return what casts an address: an operator does it six times a call."""
    ffi, _ = library()
    return functools.partial(ffi.cast, ffi.typeof("float *"))


def scratch(size: int) -> Tensor:
    """Return at least `size` floats for the work of one call, the same ones for the next call of this thread.

    Fresh memory costs more than the packing that fills it: 5.4 ms against 1.8 ms for the 8 MiB weight of HiFi-GAN V1's
    first upsampling (one core of an AMD EPYC of family 26, 2026-11-20).
    """
    if torch.are_deterministic_algorithms_enabled():
        return host_memory(
            size, dtype=torch.float32
        )  # which then holds NaN, so that tests see whoever reads before writing
    if getattr(_scratch, "memory", None) is None or _scratch.memory.numel() < size:
        _scratch.memory = host_memory(size, dtype=torch.float32)
    memory: Tensor = _scratch.memory
    return memory


@functools.cache
def _load() -> tuple[Any, Any, str | None]:
    # A second interface would refuse what the first one made, so that threads whose first calls meet must share one.
    with _loading:
        return _load_once()


@functools.cache
def _load_once() -> tuple[Any, Any, str | None]:
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

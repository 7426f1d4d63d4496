"""Compiles CUDA sources for one kind of GPU, by NVIDIA's run-time compiler, which PyTorch's CUDA wheels bring along.

The library is found at the first use, needs neither a GPU nor a toolkit, and is called through cffi.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cffi
import torch

OPTIONS = ("--std=c++17",)
FASTER = ("--split-compile=0",)
"""Several threads; not every NVRTC of CUDA 12 has them."""
MAJORS = (13, 12)
"""Versions of the toolkit that may be installed, newest first."""

_INVALID_OPTION = 5
_DECLARATIONS = """
typedef struct _nvrtcProgram *nvrtcProgram;
const char *nvrtcGetErrorString(int result);
int nvrtcVersion(int *major, int *minor);
int nvrtcGetNumSupportedArchs(int *count);
int nvrtcGetSupportedArchs(int *architectures);
int nvrtcCreateProgram(nvrtcProgram *program, const char *source, const char *name, int headers,
                       const char *const *contents, const char *const *names);
int nvrtcCompileProgram(nvrtcProgram program, int options, const char *const *option);
int nvrtcGetProgramLogSize(nvrtcProgram program, size_t *size);
int nvrtcGetProgramLog(nvrtcProgram program, char *log);
int nvrtcGetCUBINSize(nvrtcProgram program, size_t *size);
int nvrtcGetCUBIN(nvrtcProgram program, char *cubin);
int nvrtcDestroyProgram(nvrtcProgram *program);
"""


class CompilationFailed(RuntimeError):
    """Why sources do not compile, as one sentence."""


@functools.cache
def missing() -> str | None:
    """Return why there is no run-time compiler, as a sentence, or None if there is one."""
    return _load()[2]


def where() -> str:
    """Return what the run-time compiler was loaded from: a file, or a name that the system resolved."""
    return _load()[3]


@functools.cache
def version() -> str:
    """Return the version of the run-time compiler, such as 13.0."""
    ffi, library = _library()
    numbers = ffi.new("int[2]")
    _check(library.nvrtcVersion(numbers, numbers + 1))
    return f"{numbers[0]}.{numbers[1]}"


@functools.cache
def capabilities() -> tuple[int, ...]:
    """Return the GPUs that the run-time compiler knows, as 10 * major + minor of their compute capability."""
    ffi, library = _library()
    count = ffi.new("int *")
    _check(library.nvrtcGetNumSupportedArchs(count))
    numbers = ffi.new("int[]", count[0])
    _check(library.nvrtcGetSupportedArchs(numbers))
    return tuple(numbers)


def compile_sources(sources: Mapping[str, str], main: str, architecture: str) -> bytes:
    """Compile a translation unit to a cubin.

    Parameters
    ----------
    sources : mapping of str to str
        Name, as it is included, to text.
    main : str
        The name of the file that is compiled.
    architecture : str
        Such as 89, or 90a.

    Raises
    ------
    CompilationFailed
        With the first error of the compiler.
    """
    ffi, library = _library()
    headers = {name: text for name, text in sources.items() if name != main}
    contents, names = (
        [ffi.new("char[]", text.encode()) for text in texts] for texts in (headers.values(), headers.keys())
    )
    options = [
        ffi.new("char[]", option.encode()) for option in (f"--gpu-architecture=sm_{architecture}", *OPTIONS, *FASTER)
    ]
    program = ffi.new("nvrtcProgram *")
    _check(
        library.nvrtcCreateProgram(
            program,
            sources[main].encode(),
            main.encode(),
            len(headers),
            ffi.new("char *[]", contents),
            ffi.new("char *[]", names),
        )
    )
    try:
        code = library.nvrtcCompileProgram(program[0], len(options), ffi.new("char *[]", options))
        if code == _INVALID_OPTION:
            options = options[: -len(FASTER)]
            code = library.nvrtcCompileProgram(program[0], len(options), ffi.new("char *[]", options))
        if code:
            log = _read(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program[0])
            raise CompilationFailed(_first_error(log.decode(errors="replace")) or _message(code))
        return _read(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program[0])
    finally:
        library.nvrtcDestroyProgram(program)


def _first_error(log: str) -> str:
    """Return the first line of a log that is an error, or else the first at all, without the NUL at its end."""
    lines = [line.strip("\0 ") for line in log.splitlines() if line.strip("\0 ")]
    return next((line for line in lines if re.search(r"\b(error|fatal) *:", line)), lines[0] if lines else "")


def _read(size_of: Callable[..., int], read: Callable[..., int], program: Any) -> bytes:
    ffi, _ = _library()
    size = ffi.new("size_t *")
    _check(size_of(program, size))
    memory = ffi.new("char[]", max(size[0], 1))
    _check(read(program, memory))
    return bytes(ffi.buffer(memory, size[0]))


def _message(code: int) -> str:
    ffi, library = _library()
    return str(ffi.string(library.nvrtcGetErrorString(code)).decode())


def _check(code: int) -> None:
    if code:
        raise CompilationFailed(f"NVRTC says {_message(code)}")


def _library() -> tuple[Any, Any]:
    ffi, library, reason, _ = _load()
    if reason is not None:
        raise CompilationFailed(reason)
    return ffi, library


@functools.cache
def _load() -> tuple[Any, Any, str | None, str]:
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    broken = ""
    for candidate in _candidates():
        try:
            return ffi, ffi.dlopen(candidate), None, candidate
        except OSError as error:
            if os.sep in candidate:
                broken = broken or f" ({' '.join(str(error).split())})"
    reason = f"CUDA's run-time compiler was not found{broken}; run `pip install nvidia-cuda-nvrtc`"
    return None, None, reason, ""


def _candidates() -> Iterator[str]:
    """Return what to try: the major version that torch was built for, then newest first; files before names."""
    built_for = int((torch.version.cuda or "0").split(".")[0])
    for major in sorted(MAJORS, key=lambda number: (number != built_for, -number)):
        name = f"libnvrtc.so.{major}"
        yield from (str(folder / name) for folder in _folders(major) if (folder / name).is_file())
        yield name


def _folders(major: int) -> Iterator[Path]:
    """Return where wheels of NVIDIA, conda and toolkits put libraries."""
    namespace = find_spec("nvidia")
    for package in (namespace and namespace.submodule_search_locations) or ():
        yield Path(package) / f"cu{major}" / "lib"
        yield Path(package) / "cuda_nvrtc" / "lib"
    yield Path(sys.prefix) / "lib"
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "lib64"
    yield Path("/usr/local/cuda/lib64")

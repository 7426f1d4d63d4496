"""Compiled kernels for a GPU: those that came with the package, or else their sources, compiled at first use."""

from __future__ import annotations

import functools
import hashlib
import logging
import re
import threading
from dataclasses import dataclass
from typing import Any

import torch

from fastvoc import native
from fastvoc.ops.cuda import cache, nvrtc

OLDEST = (7, 5)
MAIN = "kernels.cu"

Capability = tuple[int, int]

_APART = {(8, 7)}
"""GPUs that do not run the code of their desktop relatives."""

_lock = threading.Lock()
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Image:
    """Compiled kernels.

    Parameters
    ----------
    code : bytes
        A fatbin or a cubin.
    origin : str
        Where it comes from.
    """

    code: bytes
    origin: str


@dataclass(frozen=True)
class Loaded:
    """What became of the attempt to load kernels.

    Parameters
    ----------
    kernels : void * or None
    origin : str
        Where they come from, or nothing.
    reasons : tuple of str
        Why they do not come from a better place.
    """

    kernels: Any
    origin: str
    reasons: tuple[str, ...]


def kernels(device: int | torch.device) -> Any:
    """Return the kernels that are loaded on a GPU, for the native library; the first call may compile them.

    Raises
    ------
    RuntimeError
        With every reason, if there are none.
    """
    loaded = load(device)
    if loaded.kernels is None:
        raise RuntimeError(f"CUDA kernels: {'; '.join(loaded.reasons)}")
    return loaded.kernels


def missing(device: int | torch.device) -> str | None:
    """Return why there are no kernels on a GPU, as a sentence, or None if they are loaded now."""
    loaded = load(device)
    return "; ".join(loaded.reasons) if loaded.kernels is None else None


def load(device: int | torch.device) -> Loaded:
    """Load the kernels on a GPU, once for the process."""
    index = device if isinstance(device, int) else device.index
    with _lock:
        return _load(torch.cuda.current_device() if index is None else index)


def unavailable(capability: Capability) -> str | None:
    """Return why a GPU cannot have kernels, as a sentence, or None if it can; nothing is compiled or loaded."""
    if capability < OLDEST:
        return f"the GPU is {_sm(capability)}; the CUDA kernels need {_sm(OLDEST)} or newer"
    reason = not_prebuilt(capability)
    if reason is None:
        return None
    other = not_compilable(capability)
    return None if other is None else f"{reason}; {other}"


def not_prebuilt(capability: Capability) -> str | None:
    """Return why the kernels that came with the package do not serve a GPU, or None if they do."""
    build = native.build()
    absent = build.get("cuda", "the native library was built before there were CUDA kernels; install it again")
    if absent is not None:
        return str(absent)
    architectures = build["cuda_architectures"]
    if any(_runs(architecture, capability) for architecture in architectures):
        return None
    return f"the kernels in the package are for sm_{', '.join(architectures)}, not for {_sm(capability)}"


def not_compilable(capability: Capability) -> str | None:
    """Return why the sources cannot be compiled for a GPU, as far as one can say without trying."""
    if not (native.FOLDER / "cuda" / MAIN).is_file():
        return "the sources of the CUDA kernels are not in the package; install it again"
    reason = nvrtc.missing()
    if reason is None and 10 * capability[0] + capability[1] not in nvrtc.capabilities():
        return f"NVRTC {nvrtc.version()} does not know {_sm(capability)}; a newer one does"
    return reason


def prebuilt(capability: Capability) -> Image | str:
    """Return the kernels that came with the package, or why they do not serve a GPU."""
    reason = not_prebuilt(capability)
    if reason is not None:
        return reason
    try:
        code = (native.FOLDER / "kernels.fatbin").read_bytes()
    except OSError as error:
        return f"the kernels of the package cannot be read: {error}"
    return Image(code, f"compiled with the package by {native.build()['cuda_compiler']}")


def compiled(capability: Capability) -> Image | str:
    """Return kernels compiled on this machine, now or once, or why they cannot be."""
    reason = not_compilable(capability)
    if reason is not None:
        return reason
    architecture = _sm(capability, prefix="") + ("a" if capability == (9, 0) else "")
    sources = shipped()
    everything = (nvrtc.version(), nvrtc.OPTIONS, architecture, sources)
    digest = hashlib.sha256(repr(everything).encode()).hexdigest()

    def make() -> bytes:
        _logger.warning("compiling the CUDA kernels for sm_%s; that takes a while, once", architecture)
        return nvrtc.compile_sources(sources, MAIN, architecture)

    try:
        code, kept = cache.once(f"kernels-sm_{architecture}-{digest[:32]}.cubin", make)
    except nvrtc.CompilationFailed as error:
        return f"NVRTC {nvrtc.version()} did not compile the kernels for sm_{architecture} ({error})"
    return Image(code, f"compiled by NVRTC {nvrtc.version()}, {kept}")


def shipped() -> dict[str, str]:
    """Return the sources of the kernels that came with the package, by name: what is compiled, and what it includes."""
    folder, sources, names = native.FOLDER / "cuda", dict[str, str](), [MAIN]
    for name in names:
        if name not in sources and (folder / name).is_file():
            sources[name] = (folder / name).read_text(encoding="utf-8")
            names += re.findall(r'^\s*#\s*include\s+"(\w[\w.]*)"', sources[name], flags=re.MULTILINE)
    return sources


@functools.cache
def _load(index: int) -> Loaded:
    capability = torch.cuda.get_device_capability(index)
    hopeless = native.missing() or unavailable(capability)
    if hopeless is not None:
        return Loaded(None, "", (hopeless,))
    ffi, library = native.library()
    reasons = []
    for place in (prebuilt, compiled):
        image = place(capability)
        if isinstance(image, str):
            reasons.append(image)
            continue
        handle = ffi.new("void **")
        with torch.cuda.device(index):
            torch.cuda.mem_get_info()  # makes the context of this device the current one of this thread
            code = library.fastvoc_cuda_load(ffi.from_buffer(image.code), handle)
            if code == 0:
                return Loaded(handle[0], image.origin, tuple(reasons))
            said = ffi.string(library.fastvoc_cuda_message()).decode()
        reasons.append(f"what was {image.origin} is refused by the driver ({said})")
    return Loaded(None, "", tuple(reasons))


def _runs(architecture: str, capability: Capability) -> bool:
    """Tell whether code for an architecture runs on a GPU, or can be translated for it."""
    virtual = architecture.endswith("-virtual")
    number = int(architecture.removesuffix("-virtual").rstrip("af"))
    built_for = divmod(number, 10)
    if virtual:
        return capability >= built_for
    if architecture.endswith("a") or capability in _APART:
        return capability == built_for
    return capability[0] == built_for[0] and capability[1] >= built_for[1]


def _sm(capability: Capability, prefix: str = "sm_") -> str:
    return f"{prefix}{capability[0]}{capability[1]}"

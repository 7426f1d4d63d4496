"""The GPU that a tensor is on, or the CPU in its place: what it has, its kernels, its stream and its memory."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.availability import missing, tf32_allowed
from fastvoc.ops.op import Slower

PRECISIONS = {torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16", torch.float32: "TFLOAT32"}
"""How the kernels multiply tensors of a dtype."""

OLDEST_FOR_ALL = 80
"""Architecture of the first GPUs that multiply all precisions; those before multiply float16."""

ALIGNMENT = 256

_begun = threading.local()
_in_place = threading.Lock()  # the CPU executes one launch at a time


class Gpu(NamedTuple):
    """What a network is compiled for; sizes are in bytes."""

    architecture: int
    multiprocessors: int
    shared_per_block: int
    shared_per_multiprocessor: int
    hopper: int = 0
    """What to do with kernels that only compute capability 9.0 can run: a sum of `HOPPER_CHOICES`."""


HOPPER_CHOICES = {"on": 0, "off": 1, "chains": 2, "in-turn": 4, "clusters": 8}
"""What `FASTVOC_HOPPER` may be, as `fastvoc_gpu.hopper` has it."""

IN_PLACE = Gpu(80, 108, 163 << 10, 164 << 10)
"""What the CPU pretends to be: an A100."""


def gpu(device: torch.device) -> Gpu:
    """Describe a GPU."""
    return IN_PLACE if device.type == "cpu" else _gpu(device)


@functools.cache
def _gpu(device: torch.device) -> Gpu:
    found: Any = torch.cuda.get_device_properties(device)
    return Gpu(
        10 * found.major + found.minor,
        found.multi_processor_count,
        found.shared_memory_per_block_optin,
        found.shared_memory_per_multiprocessor,
        hopper=_hopper(),
    )


def _hopper() -> int:
    """Return what `FASTVOC_HOPPER` asks of the kernels that only compute capability 9.0 can run."""
    asked = os.environ.get("FASTVOC_HOPPER") or "on"
    if asked not in HOPPER_CHOICES:
        raise ValueError(f"FASTVOC_HOPPER: {asked!r} is no choice; known: {', '.join(HOPPER_CHOICES)}")
    return HOPPER_CHOICES[asked]


def refuses(device: torch.device, dtype: torch.dtype, *, what: str = "x is", matrices: bool = True) -> str | None:
    """Return why no kernel runs on a device, or multiplies tensors of a dtype there, as a sentence, or None.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
    what : str
        How the sentence begins.
    matrices : bool
        Whether matrices are multiplied, torch.float32 in TF32; else it stays what it is.
    """
    if dtype not in PRECISIONS:
        taken = "multiply torch.float16, torch.bfloat16, and torch.float32 in TF32"
        return f"{what} {dtype}; these kernels {taken if matrices else 'take torch.float16, bfloat16 and float32'}"
    in_place = device.type == "cpu" and native.hosted() is not None
    if device.type != "cuda" and not in_place:
        return f"{what} on {device}"
    if absent := missing("cuda"):
        return absent
    architecture = gpu(device).architecture
    exact = dtype == torch.float32 and not matrices
    if dtype != torch.float16 and not exact and architecture < OLDEST_FOR_ALL:
        return f"the GPU is sm_{architecture}, which multiplies torch.float16 only; {dtype} needs sm_{OLDEST_FOR_ALL}"
    if dtype == torch.float32 and matrices and not tf32_allowed():
        return "torch.float32 is multiplied in TF32, which torch.backends.cudnn.conv.fp32_precision does not allow"
    if in_place:
        return Slower("the CPU executes the kernels here, for tests, not for speed")
    from fastvoc.ops.cuda import image

    return image.missing(device)


def kernels(device: torch.device) -> Any:
    """Return the kernels for a device, loaded."""
    if device.type == "cpu":
        return _kernels_in_place()
    from fastvoc.ops.cuda import image

    return image.kernels(device)


@functools.cache
def _kernels_in_place() -> Any:
    ffi, library = native.library()
    loaded = ffi.new("void **")
    native.check("cuda", library.fastvoc_cuda_load(ffi.from_buffer(b"nothing to load"), loaded))
    return loaded[0]


@contextmanager
def stream(device: torch.device) -> Iterator[Any]:
    """Make a device current inside a `with` block, and yield its current stream as the driver knows it."""
    ffi, _ = native.library()
    if device.type == "cpu":
        with _in_place:
            yield ffi.NULL
        return
    other = device.index not in (None, torch.cuda.current_device())
    with torch.cuda.device(device) if other else nullcontext():
        number = torch.cuda.current_device()
        begun: set[int] = _begun.__dict__.setdefault("devices", set())
        if number not in begun:
            # The driver knows of no context in a thread before the runtime has done something there.
            torch.zeros(1, dtype=torch.uint8, device=device)
            begun.add(number)
        yield ffi.cast("void *", torch.cuda.current_stream().cuda_stream)


def memory(size: int, device: torch.device) -> Tensor:
    """Return uninitialised bytes, aligned as the kernels need it."""
    block = torch.empty(size + ALIGNMENT, dtype=torch.uint8, device=device)
    start = -block.data_ptr() % ALIGNMENT
    return block[start : start + size]


def pointer(tensor: Tensor | None) -> Any:
    """Return where a tensor begins, or null."""
    return native.library()[0].NULL if tensor is None else _pointer()(tensor.data_ptr())


@functools.cache
def _pointer() -> Callable[[int], Any]:
    """Return what casts an address: an operator does it a dozen times a call."""
    ffi, _ = native.library()
    return functools.partial(ffi.cast, ffi.typeof("void *"))


class Template:
    """A structure of a native call that is filled once, and copied for each call with other tensors.

    Parameters
    ----------
    kind : str
        Of a pointer to it, such as ``"fastvoc_cuda_call *"``.
    **fields
        All but the tensors.
    """

    def __init__(self, kind: str, **fields: Any) -> None:
        ffi, _ = native.library()
        self._new = functools.partial(ffi.new, ffi.typeof(kind))
        self._filled = self._new(fields)

    def __call__(self, **tensors: Tensor | None) -> Any:
        """Return a copy with the addresses of these."""
        made = self._new(self._filled[0])
        for name, tensor in tensors.items():
            if tensor is not None:
                setattr(made, name, _pointer()(tensor.data_ptr()))
        return made

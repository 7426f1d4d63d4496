"""The only place that asks the machine which backends are usable."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from fastvoc import native

NAMES = ("cuda", "triton", "cpu")
"""Every backend beside the definition, in order of preference."""


@functools.cache
def missing(name: str) -> str | None:
    """Return why a backend cannot be used on this machine, as a sentence, or None if it can."""
    if name == "cpu":
        return native.missing()
    if name == "cuda":
        return native.missing() or (None if native.hosted() else _missing_gpu() or _missing_cuda())
    if name == "triton":
        return _missing_triton()
    raise ValueError(f"backends: {name!r} is not a backend; known: {', '.join(NAMES)}")


def backends() -> dict[str, str | None]:
    """Return, for each backend, why it cannot be used on this machine, or None if it can."""
    return {name: missing(name) for name in NAMES} | {"reference": None}


def tf32_allowed() -> bool:
    """Tell whether torch lets convolutions of float32 multiply in TF32."""
    if hasattr(torch.backends.cudnn, "conv"):
        return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")
    return bool(torch.backends.cudnn.allow_tf32)


OLDEST_TRITON = (3, 4)
OLDEST_FOR_TRITON = (8, 0)


def interpreted() -> bool:
    """Tell whether Triton was asked to interpret kernels on the CPU, which is for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def triton_version() -> str:
    """Return the version of Triton, without importing it where its package goes by that name."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return str(import_module("triton").__version__)


def too_old_for_triton(device: int | torch.device) -> str | None:
    """Return why Triton cannot multiply matrices on a GPU, as a sentence, or None if it can."""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) >= OLDEST_FOR_TRITON:
        return None
    return f"the GPU is sm_{major}{minor}; Triton uses the matrix units of sm_80 and newer only"


def _missing_triton() -> str | None:
    if find_spec("triton") is None:
        return "the package triton is not installed"
    found = triton_version()
    if tuple(map(int, found.split(".")[:2])) < OLDEST_TRITON:
        return f"triton {found} is installed; the kernels need {'.'.join(map(str, OLDEST_TRITON))} or newer"
    if interpreted():
        return None
    reasons = [too_old_for_triton(device) for device in range(torch.cuda.device_count())]
    return _missing_gpu() or (None if None in reasons else reasons[0])


def _missing_cuda() -> str | None:
    if torch.version.hip is not None:
        return "this PyTorch is for AMD's GPUs; the CUDA kernels are for NVIDIA's"
    if reason := native.missing_cuda():
        return reason
    from fastvoc.ops.cuda import image

    # Nothing is compiled or loaded yet: of many GPUs, perhaps one will be used.
    reasons = [image.unavailable(torch.cuda.get_device_capability(n)) for n in range(torch.cuda.device_count())]
    return None if None in reasons else reasons[0]


def _missing_gpu() -> str | None:
    return None if torch.cuda.is_available() else "torch sees no CUDA device"

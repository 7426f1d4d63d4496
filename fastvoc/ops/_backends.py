"""The only place that asks the machine which backends are usable."""

from __future__ import annotations

import functools
from importlib.util import find_spec

import torch

from fastvoc.ops import _native

NAMES = ("cuda", "triton", "cpu")
"""Every backend beside the definition, in order of preference."""


@functools.cache
def missing(name: str) -> str | None:
    """Return why a backend cannot be used on this machine, as a sentence, or None if it can."""
    if name == "cpu":
        return _native.missing()
    if name == "cuda":
        return _native.missing() or _native.missing_cuda() or _missing_gpu()
    if name == "triton":
        if find_spec("triton") is None:
            return "the package triton is not installed"
        return _missing_gpu()
    raise ValueError(f"backends: {name!r} is not a backend; known: {', '.join(NAMES)}")


def backends() -> dict[str, str | None]:
    """Return, for each backend, why it cannot be used on this machine, or None if it can."""
    return {name: missing(name) for name in NAMES} | {"reference": None}


def _missing_gpu() -> str | None:
    return None if torch.cuda.is_available() else "torch sees no CUDA device"

"""Fast neural vocoders: mel spectrograms to sound, and the training of the networks that do it.

The names are loaded when they are first used, so that what needs no network, such as `fastvoc --help`, waits for none.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc.ops import explain, use_backend
    from fastvoc.train.config import load_config
    from fastvoc.train.run import train
    from fastvoc.vocoder import Vocoder

    __version__: str

_HOMES = {
    "Vocoder": "fastvoc.vocoder",
    "explain": "fastvoc.ops",
    "load_config": "fastvoc.train.config",
    "use_backend": "fastvoc.ops",
}

__all__ = ["Vocoder", "__version__", "explain", "load_config", "train", "use_backend"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("fastvoc")
    if name == "train":
        return import_module("fastvoc.train")  # a room that can be called, however it was imported
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastvoc' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

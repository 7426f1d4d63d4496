"""Fast neural vocoders: mel spectrograms to sound, and the training of the networks that do it.

The names are loaded when they are first used, so that what needs no network, such as `fastvoc --help`, waits for none.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvoc import audio, blocks, checkpoints, engine, models, noise, ops
    from fastvoc.acceleration import accelerate
    from fastvoc.faces.autoencoder import Autoencoder
    from fastvoc.faces.code_decoder import CodeDecoder
    from fastvoc.faces.instrument import Instrument
    from fastvoc.faces.opening import open
    from fastvoc.faces.vocoder import Vocoder
    from fastvoc.faces.voice import Voice
    from fastvoc.ops import explain, use_backend
    from fastvoc.train.config import load_config
    from fastvoc.train.run import train

    __version__: str

_HOMES = {
    "Autoencoder": "fastvoc.faces.autoencoder",
    "CodeDecoder": "fastvoc.faces.code_decoder",
    "Instrument": "fastvoc.faces.instrument",
    "Vocoder": "fastvoc.faces.vocoder",
    "accelerate": "fastvoc.acceleration",
    "Voice": "fastvoc.faces.voice",
    "explain": "fastvoc.ops",
    "load_config": "fastvoc.train.config",
    "open": "fastvoc.faces.opening",
    "use_backend": "fastvoc.ops",
}

# training is a package that can be called, however it was imported
_ROOMS = ("audio", "blocks", "checkpoints", "engine", "models", "noise", "ops", "train")

__all__ = [
    "Autoencoder",
    "CodeDecoder",
    "Instrument",
    "Vocoder",
    "Voice",
    "__version__",
    "accelerate",
    "audio",
    "blocks",
    "checkpoints",
    "engine",
    "explain",
    "load_config",
    "models",
    "noise",
    "open",
    "ops",
    "train",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("fastvoc")
    if name in _ROOMS:
        return import_module(f"fastvoc.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastvoc' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

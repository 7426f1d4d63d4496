"""Fetches a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

UNWANTED = [
    "*.onnx",
    "*model*.h5",
    "*generator*.h5",
    "*weights*.h5",
    "*checkpoint*.h5",
    "*.msgpack",
    "*.tflite",
    "*.wav",
    "*.flac",
    "*.mp3",
    "optimizer*",
    "*.py",
]
"""Files that no format needs; a repository may hold gigabytes of them. ParallelWaveGAN's stats.h5 is not one."""


def is_name(path: str | Path) -> bool:
    """Whether this is ``owner/name`` and neither a path nor below a folder that exists."""
    text = str(path)
    return bool(_NAME.fullmatch(text)) and not Path(text).exists() and not Path(text).parent.exists()


def fetch(name: str) -> Path:
    """Fetch a repository, or find it where it was fetched before, and return its folder.

    Raises
    ------
    FileNotFoundError
        One sentence, if huggingface_hub is not installed, or the repository cannot be had.
    """
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        raise FileNotFoundError(
            f"{name}: no such file or folder; if it is a name on the Hugging Face hub, run: pip install 'fastvoc[hub]'"
        ) from None
    try:
        return Path(hub.snapshot_download(name, ignore_patterns=UNWANTED))
    except (OSError, ValueError) as error:  # both the hub's own errors and those of the network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"{name}: is no path, and was not to be had from the Hugging Face hub: {reason}"
        ) from None

"""Finds the file of weights that a path means, and the settings that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints import _safe
from fastvoc.config import read_plain

WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl")


@dataclass(frozen=True, eq=False)
class Source:
    """A file of weights, opened but not yet understood.

    Attributes
    ----------
    file : Path
    config : Path or None
        Settings that were named explicitly, which go before any file beside the weights.
    content : object
        What `_safe.load` returned.
    """

    file: Path
    config: Path | None
    content: Any

    @classmethod
    def find(cls, path: Path, config: Path | None, patterns: Sequence[str]) -> Source:
        """Open the file at a path, or the file in a folder that matches the first of the patterns that any does.

        Of several matches the last in the order of names counts, which is the newest where names end in steps.
        """
        if config is not None and not config.is_file():
            raise FileNotFoundError(f"{config}: no such file; config= names the settings of the checkpoint")
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        file = _choose(path, patterns) if path.is_dir() else path
        return cls(file, config, _safe.load(file))

    def settings_path(self, name: str) -> Path | None:
        """Return the explicit settings, or the file of this name beside the weights, or None."""
        beside = self.file.parent / name
        return self.config or (beside if beside.is_file() else None)

    def settings(self, name: str = "config.json") -> dict[str, Any]:
        """Read the settings as plain objects; an empty dictionary where there are none."""
        path = self.settings_path(name)
        values = {} if path is None else read_plain(path)
        return values if isinstance(values, dict) else {}

    def state(self, *places: str) -> dict[str, Tensor]:
        """Return the first dictionary of tensors among the places of the content; ``""`` is the content itself.

        A place such as ``"generator.model"`` lies two levels deep. Names lose the ``module.`` of data-parallel
        training. The result is empty where no place holds tensors.
        """
        for place in places:
            found = self.content
            for name in filter(None, place.split(".")):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping):
                tensors = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, Tensor)}
                if tensors:
                    return tensors
        return {}


def _choose(folder: Path, patterns: Sequence[str]) -> Path:
    for pattern in patterns:
        matches = sorted(path for path in folder.glob(pattern) if path.is_file())
        if matches:
            return matches[-1]
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_ENDINGS and path.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(path.name for path in others)
        raise ValueError(f"{folder}: holds several files of weights ({names}); name the one to open")
    training = sorted(folder.glob("do_????????"))
    if training:
        raise ValueError(
            f"{folder}: holds {training[-1].name}, the discriminators and optimizers of a HiFi-GAN run, "
            "but no generator; put the g_ file of the same step beside it"
        )
    raise FileNotFoundError(f"{folder}: holds no weights; expected one of {', '.join(patterns)}")

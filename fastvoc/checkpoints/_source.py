"""Finds the file of weights that a path means, and the settings that belong to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from fastvoc.checkpoints import _plain, _safe

WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".nemo")
OTHER_ENDINGS = (".h5", ".onnx", ".tflite", ".gguf")
"""Of files that hold weights that fastvoc can only name."""


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
    _parsed: dict[Path, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def find(cls, path: Path, config: Path | None, patterns: Sequence[str]) -> Source:
        """Open the file at a path, or the file in a folder that matches the first of the patterns that any does.

        Of several matches the last counts, with numbers in names in the order of their values: the newest step.
        """
        if config is not None and not config.is_file():
            raise FileNotFoundError(f"{config}: no such file; config= names the settings of the checkpoint")
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        file = _choose(path, patterns) if path.is_dir() else path
        return cls(file, config, _safe.load(file))

    def settings_path(self, *names: str) -> Path | None:
        """Return the explicit settings, or the first file of these names beside the weights, or None."""
        if self.config:
            return self.config
        return next((path for name in names if (path := self.file.parent / name).is_file()), None)

    def settings(self, *names: str) -> dict[str, Any]:
        """Read the settings as plain objects; an empty dictionary where there are none."""
        path = self.settings_path(*(names or ("config.json",)))
        return {} if path is None else self._read(path)

    def required(self, what: str, *names: str) -> tuple[dict[str, Any], Path]:
        """Read the settings and return where they were, or raise one sentence where there are none."""
        path = self.settings_path(*names)
        if path is None:
            raise ValueError(
                f"{self.file}: is a {what}, but there is no {names[0]} beside it; "
                "name the settings that it was trained with as config="
            )
        return self._read(path), path

    def _read(self, path: Path) -> dict[str, Any]:
        """Read settings once, though several formats ask for them."""
        if path not in self._parsed:
            self._parsed[path] = _plain.read(path)
        return self._parsed[path]

    def state(self, *places: str) -> dict[str, Tensor]:
        """Return the first dictionary of tensors among the places of the content; ``""`` is the content itself.

        A place such as ``"generator/model"`` lies two levels deep. Names lose the ``module.`` of data-parallel
        training. The result is empty where no place holds tensors.
        """
        for place in places:
            found = self.content
            for name in filter(None, place.split("/")):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping):
                tensors = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, Tensor)}
                if tensors:
                    return tensors
        return {}

    @property
    def top(self) -> set[str]:
        """Names at the top of the content."""
        return {str(name) for name in self.content} if isinstance(self.content, Mapping) else set()


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def layers(state: Mapping[str, Tensor]) -> set[str]:
    """Names of the layers that have a weight, in whichever spelling."""
    return {name.rsplit(".weight", 1)[0].removesuffix(".parametrizations") for name in state}


def _choose(folder: Path, patterns: Sequence[str]) -> Path:
    for pattern in patterns:
        matches = sorted((path for path in folder.glob(pattern) if path.is_file()), key=_by_number)
        if matches:
            return matches[-1]
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("stats."))
    for endings in (WEIGHT_ENDINGS, OTHER_ENDINGS):
        others = [path for path in found if path.suffix in endings]
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


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]

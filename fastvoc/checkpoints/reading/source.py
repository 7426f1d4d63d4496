"""Finds the file of weights that a path means, and the settings that belong to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.networks import Network, networks, tensors_of
from fastvoc.checkpoints.reading import safe_loading, tensorflow_bundle

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
        Settings that were named explicitly, a file or a preset, which go before any file beside the weights.
    content : object
        What `safe_loading.load` returned.
    places : tuple of str
        Where in the content `state` and `network` look by themselves.
    """

    file: Path
    config: Path | None
    content: Any
    places: tuple[str, ...] = ("",)
    _parsed: dict[Path, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def find(
        cls,
        path: Path,
        config: Path | None,
        patterns: Sequence[str],
        presets: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    ) -> Source:
        """Open the file at a path, or the file in a folder that matches the first of the patterns that any does.

        Of several matches the last counts, with numbers in names in the order of their values: the newest step. A file
        of settings goes before a preset of its name.
        """
        parsed = {}
        if config is not None and not config.is_file():
            if str(config) not in presets:
                raise FileNotFoundError(
                    f"{config}: no such file; config= names the settings of the checkpoint: a file, or one of "
                    f"{', '.join(presets)}"
                )
            parsed[config] = presets[str(config)]
        path = tensorflow_bundle.index_of(path)
        if path.is_symlink() and not path.exists():
            raise FileNotFoundError(f"{path}: is a link to {path.readlink()}, where there is nothing")
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        if not path.is_dir() and not path.is_file():
            raise ValueError(f"{path}: is a pipe or a device; expected a file or a folder")
        file = _choose(path, patterns) if path.is_dir() else path
        return cls(file, config, safe_loading.load(file), _parsed=parsed)

    def settings_path(self, *names: str) -> Path | None:
        """Return the explicit settings, or the first file of these names beside the weights, or None."""
        if self.config:
            return self.config
        return self.beside(*names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the file, and of that which it is a link to."""
        return tuple(dict.fromkeys((self.file.name, self.file.resolve().name)))

    def beside(self, *names: str) -> Path | None:
        """Return the first file of these names beside the weights or, where they are a link, beside its target."""
        folders = dict.fromkeys((self.file.parent, self.file.resolve().parent))
        return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)

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
            self._parsed[path] = foreign_settings.read(path)
        return self._parsed[path]

    def state(self, *places: str) -> dict[str, Tensor]:
        """Return the first dictionary of tensors among these places of the content, or among `places`.

        ``""`` is the content itself. A place such as ``"generator/model"`` lies two levels deep. Names lose what
        data-parallel training and torch.compile put into them. The result is empty where no place holds tensors.
        """
        return dict(self.network(*places).state)

    def network(self, *places: str) -> Network:
        """Return the same as a network that knows its place."""
        for place in places or self.places:
            found = self.content
            for name in filter(None, place.split("/")):
                found = found.get(name) if isinstance(found, Mapping) else None
            if isinstance(found, Mapping) and (tensors := tensors_of(found, str(self.file))):
                return Network(place, tensors)
        return Network("", {})

    def networks(self) -> list[Network]:
        """List the dictionaries of tensors inside, wherever they lie; moving averages come last."""
        return networks(self.content, str(self.file))

    def of(self, network: Network) -> Source:
        """Return the same file, as if it held nothing but this network."""
        return replace(self, content=network.state)

    @property
    def top(self) -> set[str]:
        """Names at the top of the content."""
        return {str(name) for name in self.content} if isinstance(self.content, Mapping) else set()


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def layers_of(state: Mapping[str, Tensor]) -> set[str]:
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

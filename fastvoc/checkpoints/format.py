"""What a checkpoint format is, and the list of them in which a file's own is found by its content."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastvoc.audio import MelConfig
from fastvoc.audio.mels.convention import as_mel_config
from fastvoc.checkpoints.checkpoint import Checkpoint, InferenceFrames, VocoderConfig
from fastvoc.checkpoints.modules import Live
from fastvoc.checkpoints.reading.source import Source, layers_of, under
from fastvoc.config import nearest
from fastvoc.writing import complete_file


class Seen(NamedTuple):
    """What tells files apart that are not opened."""

    top: set[str]
    """Names at the top of the content."""
    names: set[str]
    """Names of tensors, as they are and without those of the modules around them."""
    settings: Mapping[str, Any]
    """What lies beside the file as ``config.json``; empty where nothing does."""


Clue = Callable[[Seen], bool]
"""Whether a file seems to be of a kind."""


def names_begin(*starts: str) -> Clue:
    """Return the clue that the name of some tensor begins with one of these."""
    return lambda seen: any(name.startswith(starts) for name in seen.names)


def top_has(*names: str) -> Clue:
    """Return the clue that all of these names are at the top."""
    return lambda seen: set(names) <= seen.top


def each(*names: str) -> tuple[frozenset[str], ...]:
    """Return `Format.layers` of which every file has each."""
    return tuple(frozenset({name}) for name in names)


Writer = Callable[[Path, VocoderConfig, dict[str, Tensor]], None]
"""Writes a vocoder into a folder, which it makes if it is absent, or raises one `ValueError` if the format has no place
for something. Weights come as the generator's `state_dict` names them."""


def refuse_unsaid(name: str, config: VocoderConfig, mel: MelConfig) -> None:
    """Raise one sentence if the settings of a format that is written cannot express what is done around a network.

    Parameters
    ----------
    name : str
        Of the format.
    config : VocoderConfig
    mel : MelConfig
        The convention that the format's settings express, which that of `config` has to be. The original's inference
        adds no frames to a mel.
    """
    expressed = as_mel_config(config.mel, name)
    for what, ours, theirs in (("mel", expressed, mel), ("inference", config.inference, InferenceFrames())):
        for one in fields(ours):
            if (value := getattr(ours, one.name)) != getattr(theirs, one.name):
                raise ValueError(f"{name}: the original has no setting for the {what}'s {one.name}, which is {value!r}")


def write_torch(folder: Path, weights: str, content: Any, settings: str, text: str) -> None:
    """Write a file of PyTorch and one of settings into a folder, which appear when both are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = io.BytesIO()
    torch.save(content, whole)  # in memory, since of a full disk it would raise no OSError
    with complete_file(folder / weights) as partial, complete_file(folder / settings) as partial_settings:
        partial.write_bytes(whole.getbuffer())
        partial_settings.write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """A kind of checkpoint: how its files are found, recognised, read and, for some, written.

    Attributes
    ----------
    name : str
        For command lines, such as ``"hifigan"``.
    title : str
        For sentences, such as ``"MelGAN (descriptinc)"``.
    read : callable
        Translates the content of a `Source` into a `Checkpoint`, or raises one sentence.
    recognises : callable, optional
        Whether the content of a `Source` is of this format; by default, whether it has the `layers`.
    write : Writer, optional
        Absent where the format is only read.
    half : bool
        Whether what is written may be in half precision.
    files : tuple of str
        Patterns of the names that its weights have in a folder, best first.
    places : tuple of str
        Where in a file its generator lies, best first; ``""`` is the top. `Source.state` looks there.
    layers : tuple of frozenset of str
        What a file has to hold: of each set one layer. The absent ones are named where a part of a file is found.
    prefix : str
        What stands before the names of its layers, in a model of which it is a part.
    clue : callable, optional
        What a part of its file is known by, in which `layers` are absent.
    presets : mapping of str to dict
        Settings that many of its files have, and that do not lie beside them, by the name that `config` takes.
    live : callable, optional
        What the modules of a network say that the project's own code has built, or None where it is none of them.
    """

    name: str
    title: str
    read: Callable[[Source], Checkpoint]
    recognises: Callable[[Source], bool] | None = None
    write: Writer | None = None
    half: bool = False
    files: tuple[str, ...] = ()
    places: tuple[str, ...] = ("",)
    layers: tuple[frozenset[str], ...] = ()
    prefix: str = ""
    clue: Clue | None = None
    presets: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    live: Callable[[nn.Module], Live | None] | None = None

    def at(self, source: Source) -> Source | None:
        """Return a source that looks where this format has its generator, or None if it is of another format."""
        there = replace(source, places=self.places)
        if self.recognises is not None:
            return there if self.recognises(there) else None
        found = layers_of(there.state())
        return there if self.layers and all(names & found for names in self.layers) else None

    def absent(self, source: Source) -> list[str]:
        """Name the layers that are not there, where most of them are; the first of several of which one is needed."""
        states = [network.state for network in source.networks()]
        states += [under(state, self.prefix) for state in states if self.prefix]
        absent = ([min(names) for names in self.layers if not names & layers_of(state)] for state in states)
        return min(absent, key=len, default=[])


class Formats:
    """Formats in the order in which they are asked for a file, the particular before the general.

    Parameters
    ----------
    *formats : Format
    """

    def __init__(self, *formats: Format) -> None:
        self._formats: list[Format] = []
        for one in formats:
            self._insert(len(self._formats), one)

    def __iter__(self) -> Iterator[Format]:
        return iter(tuple(self._formats))

    def __getitem__(self, name: str) -> Format:
        for one in self._formats:
            if one.name == name:
                return one
        raise ValueError(f"{name!r} is no format; {nearest(name, [one.name for one in self._formats])}")

    def add(self, one: Format, *, before: str | None = None) -> Format:
        """Add a format and return it.

        Parameters
        ----------
        one : Format
        before : str, optional
            Name of the format that it goes before; by default it goes before all.

        Raises
        ------
        ValueError
            If there is a format of its name already, or none that is called `before`.
        """
        self._insert(0 if before is None else self._formats.index(self[before]), one)
        return one

    def remove(self, name: str) -> None:
        """Take out the format of a name."""
        self._formats.remove(self[name])

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of the names of weights, in order and each once."""
        return tuple(dict.fromkeys(pattern for one in self._formats for pattern in one.files))

    @property
    def presets(self) -> dict[str, dict[str, Any]]:
        """Presets of all formats, by name."""
        return dict(sorted((name, settings) for one in self._formats for name, settings in one.presets.items()))

    def _insert(self, place: int, one: Format) -> None:
        if any(other.name == one.name for other in self._formats):
            raise ValueError(f"a format {one.name!r} is there already; remove it first, or choose another name")
        self._formats.insert(place, one)

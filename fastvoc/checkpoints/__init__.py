"""Any checkpoint on disk → a configuration and weights under our own names.

A `Format` says how its files are found, recognised, read and written; `FORMATS` lists them, and takes more. They are
recognised by content, never by name, and no pickled code is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints import unrecognised
from fastvoc.checkpoints.checkpoint import (
    AutoencoderConfig,
    Checkpoint,
    CodeDecoderConfig,
    InferenceFrames,
    InstrumentConfig,
    Int8Layer,
    VocoderConfig,
    chosen_layers,
    int8_layers,
    settings_of_run,
)
from fastvoc.checkpoints.comparison import open_module
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import FORMATS
from fastvoc.checkpoints.formats.native import save_native
from fastvoc.checkpoints.live import held, state_source
from fastvoc.checkpoints.networks import choice
from fastvoc.checkpoints.reading import hub
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import account, in_own_memory, refuse_broken

__all__ = [
    "FORMATS",
    "AutoencoderConfig",
    "Checkpoint",
    "CodeDecoderConfig",
    "Format",
    "InferenceFrames",
    "InstrumentConfig",
    "Int8Layer",
    "Source",
    "VocoderConfig",
    "chosen_layers",
    "int8_layers",
    "open_checkpoint",
    "open_module",
    "open_state",
    "save_native",
    "settings_of_run",
]


_LONGEST = 800
"""Characters of an error message, which may quote what a file holds."""


def open_checkpoint(path: str | Path, *, config: str | Path | None = None) -> Checkpoint:
    """Open a vocoder of any known format.

    Parameters
    ----------
    path : str or Path
        A file of weights, a folder that holds one, or ``"owner/name"`` of a repository on the Hugging Face hub, which
        needs ``huggingface_hub``.
    config : str or Path, optional
        The settings of the original project, for weights that do not have them beside them: a file, or the name of a
        preset, such as ``"hifigan-v1"``.

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no weights in the folder.
    ValueError
        If the file is broken or unsafe, or of a format that is not known: the sentence says what it seems to be.
    """
    return _in_sentences(lambda: _open(path, config))


def open_state(
    state: Mapping[str, Tensor], config: VocoderConfig | Mapping[str, Any] | str | Path, where: str = "state_dict"
) -> Checkpoint:
    """Open a dictionary of tensors in memory as `open_checkpoint` opens a file that holds it.

    Parameters
    ----------
    state : mapping of str to Tensor
        Under the names of any known format, or with a `VocoderConfig` under those of its generator.
    config : VocoderConfig, mapping, str or Path
        The settings: ours; those of the original project as plain values or as a file; or the name of a preset, such
        as ``"hifigan-v1"``.
    where : str
        What error messages begin with.

    Returns
    -------
    Checkpoint

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As `open_checkpoint`, and if `state` is no dictionary of tensors, or `config` nothing that settings can be.
    """
    if not isinstance(config, VocoderConfig):
        source = state_source(state, config, where)
        return _in_sentences(lambda: _read(source))
    weights = held(state, where)
    if other := next((name for name, value in weights.items() if not isinstance(value, Tensor)), None):
        raise TypeError(f"{where}: {other} is a {type(weights[other]).__name__}; it must be a tensor")
    refuse_broken(weights, where)
    account(weights, config.generator, where)
    return Checkpoint(config, in_own_memory(weights), "fastvoc's own tensors")


def _in_sentences(read: Callable[[], Checkpoint]) -> Checkpoint:
    """Read, and make one line of whatever error and note comes of it."""
    try:
        with torch.device("cpu"):  # where files are read, whatever device is the default
            checkpoint = read()
    except ValueError as error:
        raise ValueError(_sentence(str(error))) from None
    return replace(checkpoint, notes=tuple(map(_sentence, checkpoint.notes)))


def _sentence(text: str) -> str:
    """Make one line of a message that quotes what a file holds, and cut it where the quotation is endless."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _open(path: str | Path, config: str | Path | None) -> Checkpoint:
    where = hub.fetch(str(path)) if hub.is_name(path) else Path(path)
    source = Source.find(where, None if config is None else Path(config), FORMATS.files, FORMATS.presets)
    checkpoint = _read(source)
    if source.config is None or source.config.is_file():
        return checkpoint
    return replace(checkpoint, notes=(*checkpoint.notes, f"the settings are those of {source.config}"))


def _read(source: Source) -> Checkpoint:
    """Read what a file holds where one of the formats has it, or wherever else in it."""
    if checkpoint := _as_it_is(source):
        return checkpoint
    for network in source.networks():
        if checkpoint := _as_it_is(source.of(network)):
            beside = f"; left aside: {', '.join(network.beside[:5])}" if network.beside else ""
            notes = choice(network, source.networks()) or f"the weights are those under {network.place}"
            return replace(checkpoint, notes=(*checkpoint.notes, f"{notes}{beside}"))
    raise ValueError(f"{source.file}: {unrecognised.describe(source)}")


def _as_it_is(source: Source) -> Checkpoint | None:
    """Read what lies where one of the formats has it."""
    for one in FORMATS:
        if there := one.at(source):
            checkpoint = one.read(there)
            refuse_broken(checkpoint.weights, str(source.file))
            chosen = choice(there.network(), there.networks())
            return checkpoint if chosen is None else replace(checkpoint, notes=(*checkpoint.notes, chosen))
    return None

"""Any checkpoint on disk → a configuration and weights under our own names.

A format is a file: what it holds, a two-way table of names, a map of its settings, a map of its mel convention.
Formats are recognised by content, never by name, and no pickled code is ever run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastvoc.checkpoints import (
    _hub,
    _sniff,
    bshall,
    coqui,
    deep_learning_examples,
    espnet,
    hifigan,
    istftnet,
    melgan,
    native,
    nemo,
    parallel_wavegan,
    seungwonpark,
    speechbrain,
    transformers,
)
from fastvoc.checkpoints._keys import refuse_broken
from fastvoc.checkpoints._source import Source
from fastvoc.checkpoints.checkpoint import Checkpoint, InferenceHabit, Int8Layer, VocoderConfig
from fastvoc.checkpoints.native import save_native

__all__ = ["FORMATS", "Checkpoint", "InferenceHabit", "Int8Layer", "VocoderConfig", "open_checkpoint", "save_native"]


class Format(Protocol):
    """What a module of a format offers."""

    @property
    def FILES(self) -> tuple[str, ...]:
        """Patterns of the names that its weights have in a folder, best first."""

    def recognises(self, source: Source) -> bool:
        """Whether the content is of this format."""

    def read(self, source: Source) -> Checkpoint:
        """Translate the content, or raise one sentence."""


FORMATS: tuple[Format, ...] = (
    native,
    deep_learning_examples,
    nemo,
    seungwonpark,
    espnet,
    parallel_wavegan,
    coqui,
    speechbrain,
    transformers,
    bshall,
    istftnet,
    hifigan,
    melgan,
)
"""The particular before the general: several have the names of HiFi-GAN's tensors, and something more."""


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
        The settings of the original project, for weights that do not have them beside them.

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
    try:
        return _open(path, config)
    except ValueError as error:
        raise ValueError(_sentence(str(error))) from None


def _sentence(text: str) -> str:
    """Make one line of a message that quotes what a file holds, and cut it where the quotation is endless."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _open(path: str | Path, config: str | Path | None) -> Checkpoint:
    patterns = list(dict.fromkeys(pattern for kind in FORMATS for pattern in kind.FILES))
    where = _hub.fetch(str(path)) if _hub.is_name(path) else Path(path)
    source = Source.find(where, None if config is None else Path(config), patterns)
    for kind in FORMATS:
        if kind.recognises(source):
            checkpoint = kind.read(source)
            refuse_broken(checkpoint.weights, str(source.file))
            return checkpoint
    raise ValueError(f"{source.file}: {_sniff.describe(source)}")

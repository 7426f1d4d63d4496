"""Opens a file as whatever it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import fastvoc.faces.autoencoder
import fastvoc.faces.code_decoder
import fastvoc.faces.instrument
import fastvoc.faces.voice  # noqa: F401 (faces that register themselves)
from fastvoc.checkpoints import open_checkpoint
from fastvoc.faces.face import DEFAULT, Face, face_for, face_of, locate
from fastvoc.faces.vocoder import Vocoder


def open(
    path: str | Path = DEFAULT,
    *,
    config: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    backend: str | None = None,
) -> Face[Any]:
    """Open a trained network as the face that it has.

    A `Vocoder` makes waves of mels, an `Autoencoder` codes of waves and waves of codes, an `Instrument` notes of
    pitches, a `CodeDecoder` waves of the codes of a codec, and a `Voice` speaks.

    Parameters
    ----------
    path, config, device, dtype, backend
        As in `Vocoder.from_pretrained`.

    Returns
    -------
    Vocoder, Autoencoder, Instrument, CodeDecoder, Voice, or another `fastvoc.faces.Face`
        Which one, the `kind` of its network says; `fastvoc.faces.register` has the list. A file whose name ends in
        ``.onnx`` is a voice.

    Raises
    ------
    FileNotFoundError, ValueError
        As `Vocoder.from_pretrained`.
    """
    where = locate(path)
    face = face_of(where, None if config is None else Path(config))
    if face is not None:
        return face.from_pretrained(where, config=config, device=device, dtype=dtype, backend=backend)
    checkpoint = open_checkpoint(where, config=config)
    return (face_for(checkpoint) or Vocoder)(checkpoint, device=device, dtype=dtype, backend=backend)

"""A file of a voice on disk → what makes its latents, and its decoder as a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from fastvoc.audio import FeatureConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.faces.voice.decoder import find_decoder
from fastvoc.faces.voice.front import Front
from fastvoc.faces.voice.program import Program, read_program
from fastvoc.faces.voice.settings import Input, VoiceConfig, read_inputs, read_settings

ENDING = ".onnx"
"""Of the names of voices."""


@dataclass(frozen=True, eq=False)
class VoiceCheckpoint(Checkpoint):
    """An opened voice: beside the decoder's settings and weights, what makes its latents."""

    voice: VoiceConfig = field(kw_only=True)
    front: Front = field(kw_only=True)
    inputs: dict[str, Input] = field(kw_only=True)
    path: Path = field(kw_only=True)
    settings: Path | None = field(kw_only=True, default=None)


def open_voice(path: str | Path, *, config: str | Path | None = None) -> VoiceCheckpoint:
    """Open a voice, of which the decoder alone is a checkpoint like any other.

    Parameters
    ----------
    path, config
        As in `Voice.from_pretrained`, which says what is raised.
    """
    path, config = Path(path), None if config is None else Path(config)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    file = file_of(path)
    if file is None:
        raise ValueError(f"{path}: is no voice; expected a file whose name ends in {ENDING}, or a folder with one")
    program = Program(read_program(file), str(file))
    decoder, inputs = find_decoder(program), read_inputs(program)
    voice = read_settings(file, config, program, decoder.config)
    latents = FeatureConfig(
        sample_rate=voice.sample_rate, hop=decoder.config.hop, bands=decoder.config.mel_bands, meaning="latents"
    )
    results = [decoder.latents] if decoder.condition is None else [decoder.latents, decoder.condition]
    return VoiceCheckpoint(
        VocoderConfig(generator=decoder.config, mel=latents),
        decoder.weights,
        "VITS in ONNX",
        voice=voice,
        front=Front(program, results, threads=torch.get_num_threads()),
        inputs=inputs,
        path=file,
        settings=config,
    )


def file_of(path: Path) -> Path | None:
    """Return the file of a voice that a path means, or None."""
    if path.is_dir():
        found = sorted(path.glob(f"*{ENDING}"))
        return found[0] if len(found) == 1 and not (path / "config.json").exists() else None
    return path if path.suffix.lower() == ENDING else None

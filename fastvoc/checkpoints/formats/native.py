"""fastvoc's own folder: ``config.json`` and ``model.safetensors`` (plain weights and biases).

The settings are a `VocoderConfig`, or those of another face: an `AutoencoderConfig`, an `InstrumentConfig` or a
`CodeDecoderConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import (
    FORMAT_NUMBER,
    AutoencoderConfig,
    Checkpoint,
    CodeDecoderConfig,
    InstrumentConfig,
    VocoderConfig,
)
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import account, in_own_memory, needed_tensors
from fastvoc.config import from_dict, write_json
from fastvoc.models import AUTOENCODERS, CODE_DECODERS, INSTRUMENTS
from fastvoc.writing import complete_file


def recognises(source: Source) -> bool:
    """Whether the settings are ours, and so are the weights: by a tensor of the settings' network, or by their name."""
    path = source.settings_path("config.json")
    if path is None:
        return False
    try:
        settings = source.settings("config.json")
    except (ValueError, OSError):  # as another project may have them, which then reads no settings or others
        return False
    named = source.file.name in FORMAT.files
    if not _is_ours(path, settings):
        return named and not isinstance(settings.get("generator", {}), Mapping)
    try:
        config = from_dict(_class_of(settings), settings, str(path))
        names = needed_tensors(config.generator, str(path)).keys()
    except ValueError:
        return True  # `read` says what is wrong
    # weights that are called as ours and have none of its tensors may have something around them
    return not names.isdisjoint(source.state()) or (
        named and all(names.isdisjoint(network.state) for network in source.networks())
    )


SOURCE = "fastvoc"
"""What says that a checkpoint is native, and its weights in memory of their own."""


def open_native(path: Path, config: Path | None = None, *, kind: Any = VocoderConfig) -> Checkpoint:
    """Open a native checkpoint whose settings are of another class than a vocoder's.

    Parameters
    ----------
    path : Path
        Its folder, or the file of weights in it.
    config : Path, optional
        The settings, where they do not lie beside the weights.
    kind : type
        The class of the settings, made by `fastvoc.config.config`, with a field `generator`.
    """
    return read(Source.find(path, config, FORMAT.files), kind)


def settings_of(path: Path, config: Path | None = None) -> dict[str, Any]:
    """Return the settings in a folder, or beside a file of weights; empty where there are none that can be read."""
    folders = [path] if path.is_dir() else [path.parent, path.resolve().parent]
    for where in [folder / "config.json" for folder in folders] if config is None else [config]:
        if where.is_file():
            try:
                return foreign_settings.read(where)
            except (OSError, ValueError):
                return {}
    return {}


def read(source: Source, kind: Any = None) -> Checkpoint:
    """Read a native checkpoint with settings of a class; by default of the class that they say."""
    settings, path = source.required("vocoder of fastvoc", "config.json")
    number = settings.get("format")
    if isinstance(number, int) and number > FORMAT_NUMBER:
        raise ValueError(
            f"{path}: is of format {number}, but this version of fastvoc reads up to {FORMAT_NUMBER}; upgrade fastvoc"
        )
    config = from_dict(kind or _class_of(settings), settings, str(path))
    weights = source.state()
    account(weights, config.generator, str(source.file))
    return Checkpoint(config, in_own_memory(weights), SOURCE)


def _class_of(settings: Mapping[str, Any]) -> Any:
    """Return the class of settings, by what their generator is."""
    generator = settings.get("generator")
    kind = str(generator.get("kind")) if isinstance(generator, Mapping) else None
    of = ((AUTOENCODERS, AutoencoderConfig), (INSTRUMENTS, InstrumentConfig), (CODE_DECODERS, CodeDecoderConfig))
    return next((settings for kinds, settings in of if kind in kinds), VocoderConfig)


def save_native(folder: str | Path, config: Any, weights: dict[str, Tensor], *, half: bool = False) -> None:
    """Write a native checkpoint; a reader never sees half a file.

    Parameters
    ----------
    folder : str or Path
        Made if absent; an earlier checkpoint in it is replaced.
    config : VocoderConfig, or another class of settings with a field `generator`
    weights : dict of str to Tensor
        As the generator's `state_dict` names them, without weight norm; the dtype is kept.
    half : bool
        Store what was learned in half precision. What was computed from the convention, as filter banks and
        statistics, stays exact: it is small, and so are the numbers that triangles end in.

    Raises
    ------
    ValueError
        If the folder has a ``config.json`` of another project; if a weight is missing, unknown or of another shape
        than the generator's, or too large for half precision.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    account(weights, config.generator, "save_native")
    if half:
        weights = in_half(config, weights)
    folder.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with complete_file(folder / "model.safetensors") as partial:
        partial.write_bytes(save(plain, metadata={"format": "pt"}))
        write_json(config, folder / "config.json")


def refuse_foreign(folder: Path) -> None:
    """Raise if a folder holds the settings of another project, which `save_native` would replace."""
    foreign_settings.refuse_other(folder / "config.json", _is_ours, "a vocoder of fastvoc")


def _is_ours(_: Path, settings: Mapping[str, Any]) -> bool:
    generator = settings.get("generator")
    return isinstance(generator, Mapping) and "kind" in generator


def in_half(config: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of which what was learned is in half precision, or raise one sentence if a value is too large."""
    with torch.device("meta"):
        learned = dict(config.generator.build().named_parameters())
    halved = {name: tensor.half() if name in learned else tensor for name, tensor in weights.items()}
    broken = [name for name, tensor in halved.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ValueError(f"save_native: {broken[0]} holds values beyond 65504; leave out half precision")
    return halved


FORMAT = Format(
    name="native",
    title="fastvoc",
    files=("model.safetensors",),
    recognises=recognises,
    read=read,
    write=save_native,
    half=True,
)

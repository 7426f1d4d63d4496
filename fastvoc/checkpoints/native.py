"""fastvoc's own folder: ``config.json`` (a `VocoderConfig`) and ``model.safetensors`` (plain weights and biases)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from fastvoc.checkpoints._keys import account
from fastvoc.checkpoints._source import Source
from fastvoc.checkpoints.checkpoint import FORMAT, Checkpoint, VocoderConfig
from fastvoc.config import from_dict, write_json

FILES = ("model.safetensors",)


def recognises(source: Source) -> bool:
    """Whether the names of the tensors are ours: every generator has a trunk, but the one that corrects a prior."""
    return any(name.startswith(("trunk.", "correction.")) for name in source.state(""))


def read(source: Source) -> Checkpoint:
    """Read a native checkpoint."""
    path = source.settings_path("config.json")
    if path is None:
        raise ValueError(f"{source.file}: these are weights of fastvoc, but config.json is not beside them; name it")
    settings = source.settings("config.json")
    number = settings.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise ValueError(
            f"{path}: is of format {number}, but this version of fastvoc reads up to {FORMAT}; upgrade fastvoc"
        )
    config: VocoderConfig = from_dict(VocoderConfig, settings, str(path))
    weights = source.state("")
    account(weights, config.generator, str(source.file))
    return Checkpoint(config, weights, "fastvoc")


def save_native(folder: str | Path, config: VocoderConfig, weights: dict[str, Tensor], *, half: bool = False) -> None:
    """Write a native checkpoint; a reader never sees half a file.

    Parameters
    ----------
    folder : str or Path
        Made if absent; an earlier checkpoint in it is replaced.
    config : VocoderConfig
    weights : dict of str to Tensor
        As the generator's `state_dict` names them, without weight norm; the dtype is kept.
    half : bool
        Store what was learned in half precision. What was computed from the convention, as filter banks and
        statistics, stays exact: it is small, and so are the numbers that triangles end in.

    Raises
    ------
    ValueError
        If a weight is missing, unknown or of another shape than the generator's, or too large for half precision.
    """
    folder = Path(folder)
    account(weights, config.generator, "save_native")
    if half:
        weights = _halved(config, weights)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    partial.write_bytes(save(plain, metadata={"format": "pt"}))
    write_json(config, folder / "config.json")
    partial.replace(folder / "model.safetensors")


def _halved(config: VocoderConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        learned = dict(config.generator.build().named_parameters())
    halved = {name: tensor.half() if name in learned else tensor for name, tensor in weights.items()}
    broken = [name for name, tensor in halved.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ValueError(f"save_native: {broken[0]} holds values beyond 65504; leave out half precision")
    return halved

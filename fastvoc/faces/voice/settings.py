"""What a voice is told beside its text, and what the file beside it says: the settings of Piper, or of sherpa-onnx."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fastvoc.config import config, from_dict, read_plain
from fastvoc.faces.voice.program import Program
from fastvoc.models import HiFiGANConfig

ROLES = {
    "ids": ("input", "x", "tokens", "text", "input_ids"),
    "lengths": ("input_lengths", "x_length", "x_lengths", "tokens_lens", "text_lengths"),
    "scales": ("scales",),
    "noise_scale": ("noise_scale",),
    "length_scale": ("length_scale", "alpha"),
    "noise_w": ("noise_scale_w", "noise_scale_dur"),
    "speaker": ("sid", "speaker", "speaker_id"),
}
"""What the inputs of voices are called: first by Piper, then by the exporters of sherpa-onnx, icefall and ESPnet."""


@config
class VoiceConfig:
    """Everything about a voice but its graph and weights."""

    generator: HiFiGANConfig
    """The decoder."""

    sample_rate: int = Field(gt=0, le=1 << 20)
    """Samples per second, in Hz."""

    noise_scale: float = Field(0.667, ge=0)
    """Standard deviation of the noise in the latents, which makes the pronunciation vary."""

    length_scale: float = Field(1.0, gt=0)
    """Factor of all durations."""

    noise_w: float = Field(0.8, ge=0)
    """Standard deviation of the noise in the durations."""

    speakers: int = Field(1, ge=1)
    """How many the voice knows."""

    speaker_names: dict[str, int] = Field(default_factory=dict)
    """Their numbers by name."""


def read_settings(path: Path, beside: Path | None, program: Program, generator: HiFiGANConfig) -> VoiceConfig:
    """Read what Piper's file of settings or the metadata that sherpa-onnx wants say.

    Parameters
    ----------
    path : Path
        Of the voice.
    beside : Path, optional
        Piper's settings; by default those called as the voice, with ``.json`` behind it, where there are any.
    program : Program
    generator : HiFiGANConfig
        Of its decoder.

    Raises
    ------
    ValueError
        If the settings are not such a file, or nothing says the sample rate.
    """
    told = piper_settings(path, beside)
    metadata = {entry.key: entry.value for entry in program.model.metadata_props}
    audio, inference = _table(told, "audio"), _table(told, "inference")
    given = {
        "sample_rate": audio.get("sample_rate", metadata.get("sample_rate")),
        "noise_scale": inference.get("noise_scale"),
        "length_scale": inference.get("length_scale"),
        "noise_w": inference.get("noise_w"),
        "speakers": told.get("num_speakers", metadata.get("n_speakers")) or 1,
        "speaker_names": told.get("speaker_id_map"),
    }
    if given["sample_rate"] is None:
        raise ValueError(
            f"{path}: nothing says its sample rate; name Piper's settings as config=, a file such as {path.name}.json"
        )
    values = {name: value for name, value in given.items() if value is not None}
    where = str(_beside(path, beside) or path)
    settings: VoiceConfig = from_dict(VoiceConfig, values | {"generator": generator}, where)
    return settings


def piper_settings(path: Path, beside: Path | None) -> dict[str, Any]:
    """Return Piper's file of settings, or an empty dictionary where there is none."""
    where = _beside(path, beside)
    if where is None:
        return {}
    told = read_plain(where)
    if not isinstance(told, dict):
        raise ValueError(f"{where}: holds a {type(told).__name__}; Piper's settings are a dictionary")
    return told


def _beside(path: Path, beside: Path | None) -> Path | None:
    found = path.with_name(f"{path.name}.json")
    return beside if beside is not None else found if found.is_file() else None


def _table(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = told.get(name)
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Input:
    """An input of the graph.

    Attributes
    ----------
    name : str
    role : str
        What it is for, or its name where fastvoc does not know that.
    shape : tuple of (int or None)
        None where any size fits.
    dtype : dtype
    """

    name: str
    role: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    def read(self, value: Any, where: str) -> NDArray[Any]:
        """Return a value of any kind as this input takes it, or raise one sentence."""
        array = np.asarray(value)
        whole = self.dtype.kind in "iu"
        if array.dtype.kind not in ("iu" if whole else "iuf"):
            raise TypeError(f"{where}: {self.role} is {value!r}; it must be {'an integer' if whole else 'a number'}")
        if not np.isfinite(array).all():
            raise ValueError(f"{where}: {self.role} is {value!r}; it must be finite")
        if not array.ndim and len(self.shape) == 1 and self.shape[0] in (None, 1):
            array = array[None]
        fits = len(array.shape) == len(self.shape) and all(
            size is None or size == given for size, given in zip(self.shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in self.shape)
            raise ValueError(f"{where}: {self.role} has shape {array.shape}; it must be ({wanted})")
        return array.astype(self.dtype)


def read_inputs(program: Program) -> dict[str, Input]:
    """Return the inputs of a voice by their roles, or raise one sentence if it is told no text."""
    from onnx import helper

    found: dict[str, Input] = {}
    for value in program.graph.input:
        if value.name not in program.inputs:
            continue
        role = next((role for role, names in ROLES.items() if value.name in names), value.name)
        tensor = value.type.tensor_type
        shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except Exception:
            raise ValueError(f"{program.where}: its input {value.name!r} is no tensor of numbers") from None
        found[role] = Input(value.name, role, shape, dtype)
    if "ids" not in found or len(found["ids"].shape) != 2 or found["ids"].dtype.kind != "i":
        inputs = ", ".join(program.inputs) or "none"
        raise ValueError(
            f"{program.where}: takes no text that fastvoc knows; its inputs are {inputs}, and one of "
            f"{', '.join(ROLES['ids'])} must hold numbers of symbols, (1, any)"
        )
    return found


def read_scale(value: float | None, usual: float, name: str, where: str) -> float:
    """Return a scale, or raise one sentence if it is none."""
    chosen = usual if value is None else value
    number = float(chosen) if isinstance(chosen, int | float | np.number) and not isinstance(chosen, bool) else math.nan
    if not (math.isfinite(number) and number >= 0 and (number > 0 or name != "length_scale")):
        least = "positive" if name == "length_scale" else "not negative"
        raise ValueError(f"{where}: {name} is {value!r}; it must be a finite number that is {least}")
    return number

"""Vocos as gemelo-ai/vocos c859e3b saves it, and WaveNeXt as wetdog/wavenext_pytorch d45d544 does.

Files
    ``pytorch_model.bin`` holds the tensors without an outer name, ``config.yaml`` the settings: a class and its
    arguments for each of ``feature_extractor``, ``backbone`` and ``head``. A training has a checkpoint of Lightning
    (``*.ckpt``), where the tensors lie under ``state_dict`` beside those of losses and discriminators, and the settings
    of its command line, where the same lies under ``model`` and ``init_args``.
Mel
    torchaudio's: ln of magnitudes, floor 1e-7, peaks of 1 on HTK's scale, centred frames or ``padding: same``. Forks
    add torchaudio's ``f_min``, ``f_max``, ``norm`` and ``mel_scale``, and ``clip_val`` for the floor.
Oddities
    WaveNeXt ends in two products with nothing between them, which become one; so it is read only. What reads EnCodec's
    codes instead of mels, and backbones and heads other than the published ones, are named and not opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.audio.mels.convention import as_mel_config
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin, refuse_unsaid, write_torch
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, from_native, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import VocosConfig

SETTINGS = ("config.yaml", "config.yml", "vocos.yaml")

PARTS = ("backbone.", "head.")
"""Of the network; beside them lie filter banks, losses and discriminators."""

CONSTANTS = ("head.istft.window",)
"""What the settings tell."""


@config
class Part:
    """A class and its arguments."""

    class_path: str
    init_args: dict[str, Any]

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.class_path.rpartition(".")[2]


@config
class Features:
    """The arguments of ``MelSpectrogramFeatures``, with the defaults of its code."""

    sample_rate: int = 24000
    n_fft: int = 1024
    hop_length: int = 256
    n_mels: int = 100
    padding: Literal["center", "same"] = "center"
    f_min: float = 0.0
    f_max: float | None = None
    norm: Literal["slaney"] | None = None
    mel_scale: Literal["htk", "slaney"] = "htk"
    clip_val: float = 1e-7


@config
class Backbone:
    """The arguments of ``VocosBackbone``."""

    input_channels: int
    dim: int
    intermediate_dim: int
    num_layers: int
    adanorm_num_embeddings: int | None = None


@config
class Head:
    """The arguments of ``ISTFTHead`` and of ``WaveNextHead``, with the defaults of their code."""

    dim: int
    n_fft: int
    hop_length: int
    padding: Literal["center", "same"] = "same"


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    values, path = source.required("Vocos", *SETTINGS)
    where = str(path)
    features, backbone, head = (_part(values, name, where) for name in ("feature_extractor", "backbone", "head"))
    if features.name == "EncodecFeatures":
        raise ValueError(f"{where}: is a Vocos of the codes of EnCodec; fastvoc opens those of mels")
    for part, known in ((features, ("MelSpectrogramFeatures",)), (backbone, ("VocosBackbone",)), (head, HEADS)):
        if part.name not in known:
            raise ValueError(f"{where}: is made of {part.name}; fastvoc opens a Vocos made of {' or '.join(known)}")
    convention = foreign_settings.pick(Features, features.init_args, where)
    ends = foreign_settings.pick(Head, head.init_args, where)
    generator = network(foreign_settings.pick(Backbone, backbone.init_args, where), ends, HEADS[head.name], where)
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel_of(convention)}, where)
    state = {
        name: tensor for name, tensor in source.state().items() if name.startswith(PARTS) and name not in CONSTANTS
    }
    state = _as_one(state, str(source.file)) if generator.head == "samples" else state
    state = {name: _with_a_tap(name, tensor) for name, tensor in state.items()}
    weights = to_native(state, table(generator), generator, str(source.file))
    return Checkpoint(vocoder, weights, "WaveNeXt" if generator.head == "samples" else "Vocos")


HEADS: dict[str, Literal["spectral", "samples"]] = {"ISTFTHead": "spectral", "WaveNextHead": "samples"}
"""Classes of heads, and what `VocosConfig` calls them."""


def _part(values: dict[str, Any], name: str, where: str) -> Part:
    """Return what the settings say of a part, at the top or under those of Lightning's command line."""
    model = values.get("model")
    arguments = model.get("init_args") if isinstance(model, dict) else None
    found = arguments if name not in values and isinstance(arguments, dict) else values
    if name not in found:
        raise ValueError(f"{where}: does not say the {name} of a Vocos; it belongs to other weights")
    return foreign_settings.pick(Part, {"init_args": {}} | _mapping(found[name], name, where), where)


def _mapping(value: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {name} is {type(value).__name__}; expected a class_path and init_args")
    return value


def network(backbone: Backbone, head: Head, kind: Literal["spectral", "samples"], where: str) -> VocosConfig:
    """Return our settings of a backbone and a head."""
    if head.dim != backbone.dim:
        raise ValueError(f"{where}: head.dim is {head.dim} but backbone.dim is {backbone.dim}; they are equal")
    values: dict[str, Any] = {
        "mel_bands": backbone.input_channels,
        "channels": backbone.dim,
        "hidden": backbone.intermediate_dim,
        "blocks": backbone.num_layers,
        "bandwidths": backbone.adanorm_num_embeddings or 0,
        "head": kind,
        "hop": head.hop_length,
    }
    if kind == "spectral":
        values |= {"fft_size": head.n_fft, "padding": _PADDINGS[head.padding]}
    made: VocosConfig = from_dict(VocosConfig, values, where)
    return made


_PADDINGS = {"center": "centre", "same": "same"}


def mel_of(features: Features) -> dict[str, Any]:
    """Return the convention that a feature extractor computes."""
    values: dict[str, Any] = to_dict(CONVENTIONS["vocos"]) | {
        "sample_rate": features.sample_rate,
        "fft_size": features.n_fft,
        "window_size": features.n_fft,
        "hop": features.hop_length,
        "bands": features.n_mels,
        "padding": _PADDINGS[features.padding],
        "low": features.f_min,
        "high": features.f_max if features.f_max is not None else float(features.sample_rate // 2),
        "area_normalized": features.norm == "slaney",
        "scale": features.mel_scale,
        "floor": features.clip_val,
    }
    return values


def table(config: VocosConfig) -> Table:
    """List the pairs (original layer or tensor, native one)."""
    pairs = [("backbone.embed", "stem"), ("backbone.final_layer_norm", "last_norm"), ("head.out", "head.conv")]
    norm = ("scale.weight", "shift.weight") if config.bandwidths else ("weight", "bias")
    pairs += [(f"backbone.norm.{theirs}", f"first_norm.{ours}") for theirs, ours in zip(norm, _AFFINE, strict=True)]
    for number in range(config.blocks):
        theirs, ours = f"backbone.convnext.{number}", f"blocks.{number}"
        pairs += [(f"{theirs}.norm.{norm[0]}", f"{ours}.norm"), (f"{theirs}.norm.{norm[1]}", f"{ours}.norm_bias")]
        pairs.append((f"{theirs}.gamma", f"{ours}.scale"))
        for layer, name in (("dwconv", "depthwise"), ("pwconv1", "expand"), ("pwconv2", "contract")):
            pairs += [(f"{theirs}.{layer}.weight", f"{ours}.{name}"), (f"{theirs}.{layer}.bias", f"{ours}.{name}_bias")]
    return pairs


_AFFINE = ("weight", "bias")


def _with_a_tap(name: str, tensor: Tensor) -> Tensor:
    """Return the product of the head as a convolution of one tap."""
    return tensor[..., None] if name == "head.out.weight" and tensor.ndim == 2 else tensor


def _as_one(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return weights in which WaveNeXt's two last products are one, made in float64."""
    names = ("head.linear_1.weight", "head.linear_1.bias", "head.linear_2.weight")
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"{where}: has no {', '.join(missing)}; the settings belong to other weights")
    first, bias, second = (state.pop(name) for name in names)
    if first.ndim != 2 or second.ndim != 2 or bias.shape != first.shape[:1] or second.shape[1] != first.shape[0]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (first, bias, second))
        raise ValueError(f"{where}: {', '.join(names)} have shapes {shapes}, which do not follow one another")
    product = (second.double() @ first.double()).to(first.dtype)
    return state | {"head.out.weight": product, "head.out.bias": (second.double() @ bias.double()).to(bias.dtype)}


def write(folder: Path, config: VocoderConfig, weights: dict[str, Tensor]) -> None:
    """Write a folder that the original code opens: ``pytorch_model.bin`` and ``config.yaml``.

    Raises
    ------
    ValueError
        If the generator or the mel does something that the original has no setting for, or the folder has a
        ``config.yaml`` that belongs to other weights.
    """
    generator, mel = config.generator, as_mel_config(config.mel, "vocos")
    if not isinstance(generator, VocosConfig) or generator.head != "spectral" or generator.bandwidths:
        what = generator.kind if not isinstance(generator, VocosConfig) else "Vocos with another head or norm"
        raise ValueError(f"vocos: the original is a Vocos of mels with an inverse transform, not a {what}")
    if (generator.stem_kernel_size, generator.kernel_size) != (7, 7):
        raise ValueError("vocos: the original has no setting for taps; all of its kernels have 7")
    features = Features(
        sample_rate=mel.sample_rate, n_fft=mel.fft_size, hop_length=mel.hop, n_mels=mel.bands,
        padding="center" if mel.padding == "centre" else "same",
    )  # fmt: skip
    expected: MelConfig = from_dict(MelConfig, mel_of(features), "vocos")
    refuse_unsaid("vocos", config, expected)
    foreign_settings.refuse_other(folder / "config.yaml", _is_ours, "a folder that was written before")
    settings = {
        "feature_extractor": _class("feature_extractors.MelSpectrogramFeatures", _own(features)),
        "backbone": _class(
            "models.VocosBackbone",
            {
                "input_channels": generator.mel_bands,
                "dim": generator.channels,
                "intermediate_dim": generator.hidden,
                "num_layers": generator.blocks,
            },
        ),
        "head": _class(
            "heads.ISTFTHead",
            {
                "dim": generator.channels,
                "n_fft": generator.fft_size,
                "hop_length": generator.hop,
                "padding": "center" if generator.padding == "centre" else "same",
            },
        ),
    }
    content = from_native(weights, table(generator))
    content["head.out.weight"] = content["head.out.weight"][..., 0]
    # what the original registers, and demands
    content["head.istft.window"] = torch.hann_window(generator.fft_size)
    content["feature_extractor.mel_spec.spectrogram.window"] = torch.hann_window(mel.fft_size)
    filters = torch.from_numpy(np.ascontiguousarray(mel_filters(mel).T)).float()
    content["feature_extractor.mel_spec.mel_scale.fb"] = filters
    text = yaml.safe_dump(settings, sort_keys=False)
    write_torch(folder, "pytorch_model.bin", content, "config.yaml", text)


def _own(features: Features) -> dict[str, Any]:
    """Return the arguments that the original's own class has; those that forks added have their defaults."""
    names = ("sample_rate", "n_fft", "hop_length", "n_mels", "padding")
    return {name: getattr(features, name) for name in names}


def _class(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": f"vocos.{name}", "init_args": arguments}


def _is_ours(path: Path, settings: Any) -> bool:
    others = [file for file in path.parent.glob("*.bin") if file.name != "pytorch_model.bin"]
    return {"feature_extractor", "backbone", "head"} <= settings.keys() and not others


FORMAT = Format(
    name="vocos",
    title="Vocos",
    files=("pytorch_model.bin", "vocos*.ckpt"),
    places=("", "state_dict"),
    read=read,
    write=write,
    layers=each("backbone.embed", "backbone.convnext.0.dwconv", "backbone.convnext.0.pwconv1"),
    clue=names_begin("backbone.convnext.", "backbone.embed."),
)

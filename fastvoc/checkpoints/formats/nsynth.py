"""Magenta's NSynth WaveNet autoencoder: ``model.ckpt-200000.index`` with the file of values beside it.

The checkpoint of magenta/magenta 526d3eb, models/nsynth/wavenet (``wavenet-ckpt.tar``, which is to be unpacked). Sizes
are read from the shapes; the hop and the cycle of the dilations leave none, and are those of the one configuration that
there is, h512_bo16. Variables are ``layer/W`` of shape (1, taps, in, out), and ``layer/biases``; an unfinished run has
those of Adam and moving averages beside them, which the original's inference does not look at either.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints.checkpoint import AutoencoderConfig, Checkpoint
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import account
from fastvoc.config import from_dict
from fastvoc.models import NSynthConfig

AVERAGE = "/ExponentialMovingAverage"

_LAYER = re.compile(r"(.+)/(W|biases)")


def recognises(source: Source) -> bool:
    """Whether there are an encoder and a decoder."""
    return {"ae_startconv/W", "ae_bottleneck/W", "skip_start/W", "logits/W"} <= {
        name.removesuffix(AVERAGE) for name in source.state()
    }


def read(source: Source) -> Checkpoint:
    """Read weights of any size."""
    where, state = str(source.file), source.state()
    averages = {name.removesuffix(AVERAGE): value for name, value in state.items() if name.endswith(AVERAGE)}
    notes = []
    if "ae_startconv/W" not in state:
        state = averages
        notes.append("the weights are moving averages, of which alone there is a whole set")
    elif averages:
        notes.append("the moving averages beside the weights are left aside, as by the original's inference")
    layers = {match[1] for name in state if (match := _LAYER.fullmatch(name))}
    config = settings(state, layers, where)
    weights = {}
    for theirs, ours in table(config):
        parts = [_layer(state, name, where) for name in theirs]
        if len({part[0].shape[:2] for part in parts}) > 1:
            raise ValueError(f"{where}: {' and '.join(theirs)} read channels of different numbers")
        # of several layers over one input, the outputs lie one behind the other
        weight, bias = torch.cat([part[0] for part in parts], -1), torch.cat([part[1] for part in parts])
        weights[f"{ours}.weight"] = weight.permute(2, 1, 0) if ours.startswith("encoder.") else weight
        weights[f"{ours}.bias"] = bias
        layers.difference_update(theirs)
    if layers:
        some = ", ".join(sorted(layers)[:3])
        raise ValueError(f"{where}: has {some}, for which there is no place; it is no NSynth autoencoder as published")
    account(weights, config, where)
    vocoder = AutoencoderConfig(generator=config)
    return Checkpoint(
        vocoder, {name: value.clone() for name, value in weights.items()}, "NSynth (Magenta)", tuple(notes)
    )


def settings(state: dict[str, Tensor], layers: set[str], where: str) -> NSynthConfig:
    """Return the configuration that the shapes speak of."""

    def size(name: str, axis: int) -> int:
        return _layer(state, name, where)[0].shape[axis]

    def count(name: str) -> int:
        return sum(bool(re.fullmatch(rf"{name}_\d+", layer)) for layer in layers)

    values: dict[str, Any] = {
        "code_channels": size("ae_bottleneck", 2),
        "encoder_channels": size("ae_startconv", 2),
        "encoder_layers": count("ae_dilatedconv"),
        "channels": size("startconv", 2),
        "skip_channels": size("skip_start", 2),
        "layers": count("dilatedconv"),
        "kernel_size": size("startconv", 0),
    }
    found: NSynthConfig = from_dict(NSynthConfig, values, where)
    return found


def table(config: NSynthConfig) -> list[tuple[tuple[str, ...], str]]:
    """List the pairs (layers of the original, layer of ours): what adds to residual and skip path is one layer here."""
    pairs: list[tuple[tuple[str, ...], str]] = [
        (("ae_startconv",), "encoder.stem"),
        (("ae_bottleneck",), "encoder.narrow"),
        (("startconv",), "decoder.stem"),
        (("skip_start",), "decoder.skip"),
        (("out1",), "decoder.hidden"),
        (("cond_map_out1",), "decoder.condition"),
        (("logits",), "decoder.classes"),
    ]
    for n in range(config.encoder_layers):
        pairs.append(((f"ae_dilatedconv_{n + 1}",), f"encoder.dilated.{n}"))
        pairs.append(((f"ae_res_{n + 1}",), f"encoder.mixed.{n}"))
    for n in range(config.layers):
        ours = f"decoder.layers.{n}"
        pairs.append(((f"dilatedconv_{n + 1}",), f"{ours}.dilated"))
        pairs.append(((f"cond_map_{n + 1}",), f"{ours}.condition"))
        pairs.append(((f"res_{n + 1}", f"skip_{n + 1}"), f"{ours}.out"))
    return pairs


def _layer(state: dict[str, Tensor], name: str, where: str) -> tuple[Tensor, Tensor]:
    """Return the weight, (taps, in, out), and the bias of a layer."""
    for part in (f"{name}/W", f"{name}/biases"):
        if part not in state:
            raise ValueError(f"{where}: has no {part}; it is a part of an NSynth autoencoder")
    weight, bias = state[f"{name}/W"], state[f"{name}/biases"]
    if weight.ndim != 4 or weight.shape[0] != 1 or bias.shape != weight.shape[3:]:
        raise ValueError(
            f"{where}: {name} has a weight of shape {tuple(weight.shape)} and {tuple(bias.shape)} biases; "
            "expected (1, taps, in, out) and as many as out"
        )
    return weight[0], bias


FORMAT = Format(
    name="nsynth",
    title="NSynth (Magenta)",
    files=("model.ckpt-*.index",),
    recognises=recognises,
    read=read,
)

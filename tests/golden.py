"""Deterministic weights and inputs, and the names that other projects give to the layers of our networks.

Two rules fill networks without any file: one draws each tensor from its foreign name, the other from its position
among the sorted foreign names. The expected outputs beside them in the tests were computed by the original projects.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.models import Generator, HiFiGANConfig, ISTFTNetConfig, MelGANConfig

SPELLINGS = {
    "weight norm": ("weight_g", "weight_v"),
    "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    "plain": ("weight",),
}

Shapes = dict[str, tuple[int, ...]]
Layers = Callable[[Any], Table]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def hashed(count: int, seed: int) -> Tensor:
    """Uniform in [-1, 1): a counter, mixed by 32-bit multiplications and shifts."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503 + 12345)
    for shift, factor in ((16, 2246822519), (13, 3266489917), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return torch.from_numpy(x / 2.0**31 - 1)


def named_values(shapes: Shapes) -> dict[str, Tensor]:
    """Fill each tensor with normal numbers that its name seeds."""
    values = {}
    for name, shape in shapes.items():
        noise = draw(zlib.crc32(name.encode()), *shape)
        if name.endswith(("weight_g", "original0")):
            values[name] = 1 + 0.1 * noise
        elif len(shape) >= 2:
            values[name] = noise / np.sqrt(np.prod(shape[1:]))
        elif name.endswith((".weight", "scale")):
            values[name] = 1 + 0.1 * noise
        else:
            values[name] = 0.1 * noise
    return values


def numbered_values(shapes: Shapes) -> dict[str, Tensor]:
    """Fill each tensor with uniform numbers that its place among the sorted names seeds."""
    values = {}
    for place, name in enumerate(sorted(shapes)):
        shape, spectral = shapes[name], name.removesuffix("_v") + "_orig" in shapes
        noise = hashed(int(np.prod(shape)), place).reshape(shape)
        if name.endswith("weight_g"):
            noise = 0.75 + 0.25 * noise
        elif name.endswith("bias"):
            noise = 0.1 * noise
        elif name.endswith("weight_u") or (name.endswith("weight_v") and spectral):
            noise = noise / noise.norm()
        elif name.endswith((".weight", "weight_orig")):
            noise = noise * np.sqrt(3 / np.prod(shape[1:]))
        values[name] = noise
    return values


def foreign_shapes(config: Any, table: Table, spelling: str = "weight norm") -> Shapes:
    """Names and shapes of a foreign state dict of a generator, in one of the three spellings of a weight."""
    with torch.device("meta"):
        native = config.build().state_dict()
    shapes: Shapes = {}
    for theirs, ours in table:
        if ours in native:
            shapes[theirs] = tuple(native[ours].shape)
            continue
        weight = tuple(native[f"{ours}.weight"].shape)
        for ending in SPELLINGS[spelling]:
            magnitude = ending in ("weight_g", "parametrizations.weight.original0")
            shapes[f"{theirs}.{ending}"] = (weight[0], *[1] * (len(weight) - 1)) if magnitude else weight
        shapes[f"{theirs}.bias"] = tuple(native[f"{ours}.bias"].shape)
    return shapes


def filled(config: Any, table: Table, values: Callable[[Shapes], dict[str, Tensor]], spelling: str) -> Generator:
    """Build a generator in float64 from foreign weights."""
    weights = to_native(values(foreign_shapes(config, table, spelling)), table, config, "test")
    network: Generator = config.build().double().eval()
    network.load_state_dict(weights)
    return network


def dressed_shapes(network: nn.Module, table: Table) -> Shapes:
    """Names and shapes of a foreign state dict of a discriminator, in the spelling of older PyTorch."""
    tensors = network.state_dict()
    return {theirs: tuple(tensors[ours].shape) for theirs, ours in dressed_names(network, table).items()}


def dressed_names(network: nn.Module, table: Table) -> dict[str, str]:
    """Foreign names of the tensors of a discriminator, and ours, under weight norm or spectral norm."""
    weight_norm = {"weight_g": "original0", "weight_v": "original1"}
    spectral_norm = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}
    names, tensors = {}, set(network.state_dict())
    for theirs, ours in table:
        spectral = f"{ours}.parametrizations.weight.original" in tensors
        for old, new in (spectral_norm if spectral else weight_norm).items():
            names[f"{theirs}.{old}"] = f"{ours}.parametrizations.weight.{new}"
        names[f"{theirs}.bias"] = f"{ours}.bias"
    return names


def dress(network: nn.Module, table: Table, values: Callable[[Shapes], dict[str, Tensor]]) -> nn.Module:
    """Fill a discriminator from foreign weights, in float64."""
    network = network.double().eval()
    names = dressed_names(network, table)
    tensors = values(dressed_shapes(network, table))
    network.load_state_dict({names[name]: tensor for name, tensor in tensors.items()})
    return network


def renamed(*rules: tuple[str, str]) -> Layers:
    """Derive the layers of a project from those of the official HiFi-GAN."""

    def layers(config: HiFiGANConfig) -> Table:
        table = []
        for theirs, ours in hifigan.table(config):
            for pattern, replacement in rules:
                theirs = re.sub(pattern, replacement, theirs)
            table.append((theirs, ours))
        return table

    return layers


def pwg_hifigan(config: HiFiGANConfig) -> Table:
    conv, deconv = (".conv", ".deconv") if config.causal else ("", "")
    return renamed(
        ("^conv_pre$", f"input_conv{conv}"),
        (r"^ups\.(\d+)$", rf"upsamples.\1.1{deconv}"),
        (r"^resblocks(.*)$", rf"blocks\1.1{conv}"),
        ("^conv_post$", f"output_conv.1{conv}"),
    )(config)


def transformers_hifigan(config: HiFiGANConfig) -> Table:
    return [*renamed(("^ups", "upsampler"))(config), ("mean", "mean"), ("scale", "scale")]


def nemo_hifigan(config: HiFiGANConfig) -> Table:
    blocks = len(config.kernel_sizes)
    return [
        (re.sub(r"resblocks\.(\d+)", lambda m: "resblocks.{}.{}".format(*divmod(int(m[1]), blocks)), theirs), ours)
        for theirs, ours in hifigan.table(config)
    ]


speechbrain_hifigan = renamed(("$", ".conv"))


def pwg_melgan(config: MelGANConfig) -> Table:
    """A sequence in which activations and, unless causal, paddings count."""
    conv, deconv = (".conv", ".deconv") if config.causal else ("", "")
    first, second = ("stack.1.conv", "stack.3") if config.causal else ("stack.2", "stack.4")
    number = 0 if config.causal else 1
    table = [(f"melgan.{number}{conv}", "trunk.stem")]
    for stage in range(len(config.rates)):
        number += 2
        table.append((f"melgan.{number}{deconv}", f"trunk.up.{stage}"))
        for unit in range(config.units):
            number += 1
            ours = f"trunk.residual.{stage}.branches.0.{unit}"
            names = (first, second, "skip_layer")
            table += [(f"melgan.{number}.{name}", f"{ours}.{n}") for n, name in enumerate(names)]
    return [*table, (f"melgan.{number + (2 if config.causal else 3)}{conv}", "head.conv")]


def stacked_melgan(prefix: str) -> Layers:
    """Layers of seungwonpark/melgan and of Coqui, whose residual units share a module per stage."""

    def layers(config: MelGANConfig) -> Table:
        table = [(f"{prefix}.1", "trunk.stem")]
        for stage in range(len(config.rates)):
            up = 3 + 3 * stage
            table.append((f"{prefix}.{up}", f"trunk.up.{stage}"))
            for unit in range(config.units):
                ours = f"trunk.residual.{stage}.branches.0.{unit}"
                names = (f"blocks.{unit}.2", f"blocks.{unit}.4", f"shortcuts.{unit}")
                table += [(f"{prefix}.{up + 1}.{name}", f"{ours}.{n}") for n, name in enumerate(names)]
        return [*table, (f"{prefix}.{4 + 3 * len(config.rates)}", "head.conv")]

    return layers


seungwonpark_melgan = stacked_melgan("generator")
coqui_melgan = stacked_melgan("layers")


def istftnet(config: ISTFTNetConfig) -> Table:
    return hifigan.table(config.trunk)


def descript_discriminator(scales: int = 3) -> Table:
    layers = [("layer_0.1", 0), *((f"layer_{n}.0", n) for n in range(1, 6)), ("layer_6", 6)]
    return [(f"model.disc_{s}.model.{name}", f"scales.{s}.convs.{n}") for s in range(scales) for name, n in layers]


def period_discriminator(periods: int = 5) -> Table:
    layers = [*((f"convs.{n}", n) for n in range(5)), ("conv_post", 5)]
    return [(f"discriminators.{p}.{name}", f"networks.{p}.convs.{n}") for p in range(periods) for name, n in layers]


def scale_discriminator(scales: int = 3) -> Table:
    layers = [*((f"convs.{n}", n) for n in range(7)), ("conv_post", 7)]
    return [(f"discriminators.{s}.{name}", f"scales.{s}.convs.{n}") for s in range(scales) for name, n in layers]


def samples(y: Tensor, places: tuple[int, ...]) -> list[float]:
    flat = y.flatten()
    return [float(flat[place]) for place in places]


def ends_and_middle(y: Tensor) -> list[float]:
    """The samples that the named rule lists: the first three, two in the middle, the last two."""
    half = y.numel() // 2
    return samples(y, (0, 1, 2, half, half + 1, -2, -1))


def keras_values(shape: tuple[int, ...], layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel, magnitude and bias of a layer of the Keras tutorial, whose kernels have the reversed order of axes."""
    kernel = hashed(int(np.prod(shape)), 3 * layer).reshape(shape[::-1]).permute(*reversed(range(len(shape))))
    return kernel, 0.75 + 0.25 * hashed(shape[0], 3 * layer + 1), 0.1 * hashed(shape[0], 3 * layer + 2)


MEL = draw(0, 1, 80, 12)
"""Of the named rule: (1, bands, frames)."""

WAVE = draw(2, 1, 1, 4001)

NUMBERED_MEL = 2 * hashed(1280, 999).reshape(1, 80, 16)
"""Of the numbered rule."""

NUMBERED_WAVE = 0.5 * hashed(8192, 998).reshape(1, 1, 8192)

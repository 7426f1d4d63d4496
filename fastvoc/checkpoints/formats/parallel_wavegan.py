"""MelGAN, multi-band MelGAN and HiFi-GAN as kan-bayashi/ParallelWaveGAN 8674037 saves them.

Files
    ``checkpoint-2500000steps.pkl`` holds ``{"model": {"generator", "discriminator"}, "optimizer", "scheduler"}``;
    ``config.yml`` beside it the settings, ``stats.h5`` or ``stats.npy`` the mean and scale of each mel band over the
    training data. Newer files have these two as tensors of the generator, which go first.
Mel
    log10 of magnitudes, floor 1e-10, centred frames, ``(x - mean) / scale`` per band. The bands are those of the
    settings; ``eps`` and ``log_base`` are settings that the original's preprocessing does not read.
Oddities
    A multi-band model does not say the cutoff of its filter bank: it is 0.15 in runs of version 0.4.2 and before, and
    in those without a version, and 0.142 since. Causal models of versions before 0.5.4 differ in their first hop.
    Layers of MelGAN are numbered through one sequence in which activations and, unless causal, paddings count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from fastvoc.audio import CONVENTIONS, Normalization, PqmfConfig
from fastvoc.checkpoints import foreign_settings, statistics
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, names_begin
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.modules import Live, fitting_mel, hifigan_sizes, layers_in, slope_of
from fastvoc.checkpoints.reading.source import Source, layers_of
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import HiFiGANConfig, MelGANConfig

STEMS = frozenset({"melgan.0.conv", "melgan.1", "input_conv", "input_conv.conv"})
"""First layers, by one of which the format is known."""

PADDING = {"ReflectionPad1d": "reflect", "ReplicationPad1d": "replicate", "ConstantPad1d": "zero"}
"""Classes of PyTorch that the settings name, and our padding modes."""


@config
class Slope:
    """Arguments of an activation."""

    negative_slope: float = 0.01
    """Of a leaky ReLU."""


@config
class HiFiGANParameters:
    """``generator_params`` of ``HiFiGANGenerator``, with the defaults of its code."""

    in_channels: int = 80
    out_channels: Literal[1] = 1
    channels: int = 512
    kernel_size: Literal[7] = 7
    upsample_scales: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    use_additional_convs: bool = True
    bias: bool = True
    nonlinear_activation: Literal["LeakyReLU"] = "LeakyReLU"
    nonlinear_activation_params: dict[str, float] = Field(default_factory=lambda: {"negative_slope": 0.1})
    use_causal_conv: bool = False
    use_weight_norm: bool = True
    global_channels: Literal[-1, 0, None] = None
    """Of ESPnet: a speaker embedding, which is not opened."""


@config
class MelGANParameters:
    """``generator_params`` of ``MelGANGenerator``, with the defaults of its code."""

    in_channels: int = 80
    out_channels: int = Field(1, ge=1)
    kernel_size: Literal[7] = 7
    channels: int = 512
    bias: bool = True
    upsample_scales: tuple[int, ...] = (8, 8, 2, 2)
    stack_kernel_size: Literal[3] = 3
    stacks: int = 3
    nonlinear_activation: Literal["LeakyReLU"] = "LeakyReLU"
    nonlinear_activation_params: dict[str, float] = Field(default_factory=lambda: {"negative_slope": 0.2})
    pad: Literal["ReflectionPad1d", "ReplicationPad1d", "ConstantPad1d"] = "ReflectionPad1d"
    pad_params: dict[str, Literal[0]] = Field(default_factory=dict)
    use_final_nonlinear_activation: Literal[True] = True
    use_causal_conv: bool = False
    use_weight_norm: bool = True


@config
class Features:
    """The settings of the mel."""

    sampling_rate: int
    fft_size: int
    hop_size: int
    win_length: int | None = None
    window: Literal["hann"] = "hann"
    num_mels: int = 80
    fmin: float | None = None
    fmax: float | None = None
    sampling_rate_for_feats: None = None
    """Another rate for the mel than for the wave, which is not opened."""


GENERATORS: dict[str, type[HiFiGANParameters] | type[MelGANParameters]] = {
    "HiFiGANGenerator": HiFiGANParameters,
    "MelGANGenerator": MelGANParameters,
}


def recognises(source: Source) -> bool:
    """Whether the generator has the names of one of the two classes."""
    return is_layout(source.state())


def is_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of HiFiGANGenerator or MelGANGenerator, causal or not."""
    return bool(STEMS & layers_of(state)) and not any(name.startswith(("emb.", "global_conv")) for name in state)


def read(source: Source) -> Checkpoint:
    """Read a generator, the settings beside it and the statistics of its mel."""
    settings, path = source.required("ParallelWaveGAN checkpoint", "config.yml", "config.yaml")
    where = str(path)
    kind = str(settings.get("generator_type", "ParallelWaveGANGenerator"))
    generator, notes = generator_config(kind, settings.get("generator_params"), where, settings.get("version", "0.1.0"))
    features = foreign_settings.pick(Features, settings, where)
    state = source.state()
    inside = {name: state.pop(name) for name in statistics.NAMES if name in state}
    normalization = statistics.of_tensors(inside, str(source.file))
    if normalization is None and (file := source.beside(*statistics.FILES)):
        normalization = statistics.read(file)
    if normalization is None:
        normalization = Normalization(unknown=True)
        notes += (
            "neither stats.h5 nor stats.npy is beside it, so it takes mels that are standardised already: log10, minus "
            "the mean of each band and over its scale in the training data",
        )
    mel = to_dict(CONVENTIONS["parallel-wavegan"]) | {
        "sample_rate": features.sampling_rate,
        "fft_size": features.fft_size,
        "hop": features.hop_size,
        "window_size": features.win_length or features.fft_size,
        "bands": features.num_mels,
        "low": features.fmin or 0,
        "high": features.fmax,
        "normalization": normalization,
    }
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    weights = translate(state, generator, str(source.file), settings["generator_params"])
    family = "MelGAN" if isinstance(generator, MelGANConfig) else "HiFi-GAN"
    return Checkpoint(vocoder, weights, f"{family} (ParallelWaveGAN) generator", notes)


def generator_config(
    kind: str, parameters: Any, where: str, version: Any = None
) -> tuple[HiFiGANConfig | MelGANConfig, tuple[str, ...]]:
    """Translate ``generator_type`` and ``generator_params``; a version decides about a filter bank."""
    if kind not in GENERATORS:
        raise ValueError(
            f"{where}: generator_type is {kind}; of ParallelWaveGAN fastvoc opens {' and '.join(GENERATORS)}"
        )
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{where}: generator_params is {type(parameters).__name__}; expected names and values")
    parameters = dict(parameters)
    if "upsample_kernal_sizes" in parameters:  # as the original spelled it at first
        parameters["upsample_kernel_sizes"] = parameters.pop("upsample_kernal_sizes")
    known = {field.name for field in fields(GENERATORS[kind])}
    notes = [f"{name} is not a setting of {kind}; it was ignored" for name in sorted(map(str, set(parameters) - known))]
    values = foreign_settings.pick(GENERATORS[kind], parameters, f"{where}: generator_params")
    slope = foreign_settings.pick(Slope, values.nonlinear_activation_params, where).negative_slope
    number = _version(version, where) if version is not None else None
    if values.use_causal_conv and number is not None and number < (0, 5, 4):
        notes.append("a causal model of a version before 0.5.4: its first hop differs from the original's")
    shared = {
        "mel_bands": values.in_channels,
        "channels": values.channels,
        "rates": values.upsample_scales,
        "slope": slope,
        "causal": values.use_causal_conv,
        "crop_rule": "output-padded",
    }
    if isinstance(values, HiFiGANParameters):
        own: dict[str, Any] = {
            "rate_kernel_sizes": values.upsample_kernel_sizes,
            "block": "1" if values.use_additional_convs else "2",
            "kernel_sizes": values.resblock_kernel_sizes,
            "dilations": values.resblock_dilations,
        }
        return from_dict(HiFiGANConfig, shared | own, where), tuple(notes)
    own = {
        "rate_kernel_sizes": [2 * rate for rate in values.upsample_scales],
        "units": values.stacks,
        "padding_mode": PADDING[values.pad],
    }
    if values.out_channels > 1:
        if number is None:
            raise ValueError(f"{where}: a model of {values.out_channels} bands needs the version that trained it")
        cutoff = 0.142 if number > (0, 4, 2) else 0.15
        own["pqmf"] = from_dict(PqmfConfig, {"bands": values.out_channels, "cutoff": cutoff}, where)
        notes.append(f"trained with version {version}, so the cutoff of the filter bank is {cutoff}")
    return from_dict(MelGANConfig, shared | own, where), tuple(notes)


def translate(
    state: Mapping[str, Tensor], generator: HiFiGANConfig | MelGANConfig, where: str, parameters: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Translate the generator's tensors; ``bias`` in ``generator_params`` says whether its layers have biases."""
    pairs = melgan_table(generator) if isinstance(generator, MelGANConfig) else hifigan_table(generator)
    bias_free = () if parameters.get("bias", True) else [theirs for theirs, _ in pairs]
    return to_native(state, pairs, generator, where, bias_free=bias_free)


def hifigan_table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer, native layer) of HiFiGANGenerator."""
    conv, deconv = (".conv", ".deconv") if config.causal else ("", "")
    pairs = [(f"input_conv{conv}", "trunk.stem"), (f"output_conv.1{conv}", "head.conv")]
    pairs += [(f"upsamples.{stage}.1{deconv}", f"trunk.up.{stage}") for stage in range(len(config.rates))]
    for stage, branch, layer, ours in hifigan.residual_layers(config):
        pairs.append((f"blocks.{stage * len(config.kernel_sizes) + branch}.{layer}.1{conv}", ours))
    return pairs


def melgan_table(config: MelGANConfig) -> Table:
    """List the pairs (original layer, native layer) of MelGANGenerator."""
    conv, deconv = (".conv", ".deconv") if config.causal else ("", "")
    unit_layers = ("stack.1.conv", "stack.3", "skip_layer") if config.causal else ("stack.2", "stack.4", "skip_layer")
    number = 0 if config.causal else 1
    pairs = [(f"melgan.{number}{conv}", "trunk.stem")]
    for stage in range(len(config.rates)):
        number += 2
        pairs.append((f"melgan.{number}{deconv}", f"trunk.up.{stage}"))
        for unit in range(config.units):
            number += 1
            ours = f"trunk.residual.{stage}.branches.0.{unit}"
            pairs += [(f"melgan.{number}.{name}", f"{ours}.{place}") for place, name in enumerate(unit_layers)]
    return [*pairs, (f"melgan.{number + (2 if config.causal else 3)}{conv}", "head.conv")]


def _version(value: Any, where: str) -> tuple[int, ...]:
    numbers = re.match(r"\d{1,4}(\.\d{1,4})*", str(value))
    if numbers is None:
        raise ValueError(f"{where}: version is {value!r}; expected numbers such as 0.5.4")
    return tuple(int(part) for part in numbers[0].split("."))


def live(module: nn.Module) -> Live | None:
    """Read a ``HiFiGANGenerator``, ESPnet's too, or the sequence of layers inside a ``MelGANGenerator``.

    It is that sequence which both its `forward` and its ``inference`` run; of a multi-band one it makes the sub-bands.
    """
    layers = layers_in(module)
    if isinstance(module, nn.Sequential) and any(name.endswith(".skip_layer") for name in layers):
        return _live_melgan(module)
    sizes = hifigan_sizes(module) if {"input_conv", "input_conv.conv"} & layers.keys() else None
    if sizes is None:
        return None
    parameters = _parameters(module) | {
        "upsample_kernel_sizes": sizes["rate_kernel_sizes"],
        "resblock_kernel_sizes": sizes["kernel_sizes"],
        "resblock_dilations": sizes["dilations"],
        "use_additional_convs": sizes["block"] == "1",
    }
    return Live(settings=_live_settings("HiFiGANGenerator", parameters))


def _live_melgan(module: nn.Sequential) -> Live:
    layers, parameters = layers_in(module), _parameters(module)
    skips = sum(name.endswith(".skip_layer") for name in layers)
    pads = [type(one).__name__ for one in module.modules() if type(one).__name__ in PADDING]
    bands = list(layers.values())[-1].out_channels
    parameters |= {
        "stacks": skips // max(len(parameters["upsample_scales"]), 1),
        "pad": pads[0] if pads else "ReflectionPad1d",
        "out_channels": bands,
    }
    settings = _live_settings("MelGANGenerator", parameters, bands)
    return Live(settings=settings, prefix="melgan.", subbands=bands > 1)


def _parameters(module: nn.Module) -> dict[str, Any]:
    """Return what both classes have in ``generator_params``."""
    layers = layers_in(module)
    stem = next(iter(layers.values()))
    return {
        "in_channels": stem.in_channels,
        "channels": stem.out_channels,
        "upsample_scales": [one.stride[0] for one in layers.values() if isinstance(one, nn.ConvTranspose1d)],
        "bias": stem.bias is not None,
        "nonlinear_activation_params": {"negative_slope": slope_of(module)},
        "use_causal_conv": any(name.endswith(".deconv") for name in layers),
    }


def _live_settings(kind: str, parameters: dict[str, Any], bands: int = 1) -> dict[str, Any]:
    mel = fitting_mel(bands * math.prod(parameters["upsample_scales"]))
    return {
        "generator_type": kind,
        "generator_params": parameters,
        "sampling_rate": mel["sample_rate"],
        "fft_size": mel["fft_size"],
        "hop_size": mel["hop"],
        "num_mels": parameters["in_channels"],
        "version": "0.5.4",  # decides about a filter bank, which is not in the sequence of layers
    }


FORMAT = Format(
    name="parallel-wavegan",
    title="ParallelWaveGAN",
    files=("checkpoint-*steps.pkl",),
    places=("model/generator", "generator", ""),
    recognises=recognises,
    read=read,
    live=live,
    layers=(STEMS,),
    clue=names_begin("melgan.", "input_conv."),
)

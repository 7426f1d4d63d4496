"""HiFi-GAN as its authors save it (jik876/hifi-gan 4769534), and as many projects that began from it do.

Files
    ``g_02500000`` holds ``{"generator": tensors}`` under weight norm, ``do_02500000`` the discriminators and
    optimizers, ``config.json`` the settings of both. Re-savings without the outer name, under ``model``, without
    weight norm or with ``module.`` in front are opened too (bshall/hifigan, ming024/FastSpeech2, Matcha-TTS).
Mel
    ln of magnitudes, floor 1e-5, reflected padding of half of what the transform exceeds the hop; bands from ``fmin``
    to ``fmax``. ``fmax_for_loss`` belongs to training.
Oddities
    ``resblock`` is a string, but the number 1 in a hand-written file is meant as "1" although the original takes all
    that is not "1" for "2". Its configuration of transposed convolutions may not multiply the length exactly, which
    `HiFiGANConfig` refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints._keys import Table, from_native, to_native
from fastvoc.checkpoints._source import Source, layers
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.config import from_dict, to_dict
from fastvoc.models import GeneratorConfig, HiFiGANConfig

FILES = ("g_????????", "generator_v?", "g_*", "hifigan_*v?")

PLACES = ("generator", "generator/model", "model", "")
"""Where in a file the generator's tensors have been seen."""

GENERATOR = {
    "num_mels": "mel_bands",
    "upsample_initial_channel": "channels",
    "upsample_rates": "rates",
    "upsample_kernel_sizes": "rate_kernel_sizes",
    "resblock": "block",
    "resblock_kernel_sizes": "kernel_sizes",
    "resblock_dilation_sizes": "dilations",
}
"""The original's names of settings, and those of `HiFiGANConfig`."""

MEL = {
    "sampling_rate": "sample_rate",
    "n_fft": "fft_size",
    "hop_size": "hop",
    "win_size": "window_size",
    "num_mels": "bands",
    "fmin": "low",
    "fmax": "high",
}
"""The original's names of settings, and those of `MelConfig`."""

TRAINING: dict[str, Any] = {
    "num_freq": 1025,
    "fmax_for_loss": None,
    "segment_size": 8192,
    "num_gpus": 0,
    "batch_size": 16,
    "learning_rate": 0.0002,
    "adam_b1": 0.8,
    "adam_b2": 0.99,
    "lr_decay": 0.999,
    "seed": 1234,
    "num_workers": 4,
    "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
}
"""Settings of training, which say nothing about a vocoder, and the values that the original's code needs to start."""

BANDS = 80
"""Of the mel, which are written in the original's code, whatever ``num_mels`` says."""


def recognises(source: Source) -> bool:
    """Whether the tensors have the original's names, and the settings ask for no other head."""
    return is_layout(source.state(*PLACES)) and "gen_istft_n_fft" not in source.settings(*names(source))


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, notes = checked_settings(source)
    where = str(source.settings_path(*names(source)))
    generator: HiFiGANConfig = from_dict(HiFiGANConfig, generator_settings(settings), where)
    config = vocoder_config(generator, settings, where)
    state = source.state(*PLACES)
    weights = to_native(state, table(generator), generator, str(source.file), bias_free=("conv_post",))
    return Checkpoint(config, weights, "HiFi-GAN (jik876) generator", (*notes, *missing_bias(state)))


def names(source: Source) -> tuple[str, ...]:
    """Return what the settings beside a file may be called."""
    return "config.json", f"{source.file.name}.json", f"{source.file.stem}.json"


def missing_bias(state: Mapping[str, Tensor], layer: str = "conv_post") -> tuple[str, ...]:
    """Note that the last convolution has no bias, as the variants of VITS and Coqui allow."""
    return () if f"{layer}.bias" in state else (f"{layer} has no bias; ours is zero",)


def write(config: HiFiGANConfig, weights: Mapping[str, Tensor], *, weight_norm: bool = True) -> dict[str, Any]:
    """Return what ``torch.save`` writes as a ``g_`` file for the original code.

    Parameters
    ----------
    config : HiFiGANConfig
    weights : mapping of str to Tensor
        Native weights.
    weight_norm : bool
        The original loads weights under weight norm, before it removes it.

    Raises
    ------
    ValueError
        If the generator does something that the original has no setting for.
    """
    plain = HiFiGANConfig(**{ours: getattr(config, ours) for ours in GENERATOR.values()})
    for name in ("slope", "last_slope", "padding_mode", "causal", "standardised", "condition_channels"):
        if getattr(config, name) != getattr(plain, name):
            raise ValueError(f"hifigan: the original has no setting for {name} {getattr(config, name)!r}")
    if config.crop_rule != plain.crop_rule and any(rate % 2 for rate in config.rates):
        raise ValueError(f"hifigan: the original cuts the transposed convolutions of rates {config.rates} elsewhere")
    if config.mel_bands != BANDS:
        raise ValueError(f"hifigan: the original takes mels of {BANDS} bands, not of {config.mel_bands}")
    return {"generator": from_native(weights, table(config), weight_norm=weight_norm)}


def save(folder: Path, config: VocoderConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a folder that the original code and what began from it opens: ``g_00000000`` and ``config.json``.

    Raises
    ------
    ValueError
        If the generator or the mel does something that the original has no setting for.
    """
    if not isinstance(config.generator, HiFiGANConfig):
        raise ValueError(f"hifigan: the original is a HiFi-GAN, not a {config.generator.kind}")
    expected = replace(CONVENTIONS["hifigan"], **{ours: getattr(config.mel, ours) for ours in MEL.values()})
    for field in fields(config.mel):
        if getattr(config.mel, field.name) != getattr(expected, field.name):
            value = getattr(config.mel, field.name)
            raise ValueError(f"hifigan: the original has no setting for the mel's {field.name}, which is {value!r}")
    content = write(config.generator, weights)
    network, mel = to_dict(config.generator), to_dict(config.mel)
    settings = {theirs: network[ours] for theirs, ours in GENERATOR.items()}
    settings |= {theirs: mel[ours] for theirs, ours in MEL.items()} | TRAINING
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "g_00000000.partial"
    torch.save(content, partial)
    (folder / "config.json").write_text(json.dumps(settings, indent=4) + "\n", encoding="utf-8")
    partial.replace(folder / "g_00000000")


def table(config: HiFiGANConfig, *, nested: bool = False) -> Table:
    """List the pairs (original layer, native layer).

    Blocks are numbered through all stages in the original; `nested` numbers stages and blocks, as NVIDIA's code does.
    """
    pairs = [("conv_pre", "trunk.stem"), ("conv_post", "head.conv")]
    pairs += [(f"ups.{stage}", f"trunk.up.{stage}") for stage in range(len(config.rates))]
    for stage, branch, layer, ours in residual_layers(config):
        block = f"{stage}.{branch}" if nested else stage * len(config.kernel_sizes) + branch
        pairs.append((f"resblocks.{block}.{layer}", ours))
    return pairs


def residual_layers(config: HiFiGANConfig) -> Iterator[tuple[int, int, str, str]]:
    """Yield stage, branch, the name that all projects give to a convolution in a block, and its native layer."""
    names = ("convs1", "convs2") if config.block == "1" else ("convs",)
    for stage in range(len(config.rates)):
        for branch, dilations in enumerate(config.dilations):
            for unit in range(len(dilations)):
                for conv, name in enumerate(names):
                    yield stage, branch, f"{name}.{unit}", f"trunk.residual.{stage}.branches.{branch}.{unit}.{conv}"


def is_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the original's names, and none of those that BigVGAN and HiFTNet add."""
    return (
        {"conv_pre", "ups.0", "conv_post"} <= layers(state)
        and bool({"resblocks.0.convs1.0", "resblocks.0.convs.0"} & layers(state))
        and not any("alpha" in name or name.startswith(("noise_", "m_source", "cond")) for name in state)
    )


def checked_settings(source: Source, extra: frozenset[str] = frozenset()) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings, and a note for each that is not known; raise one sentence if some are missing."""
    settings, path = source.required("HiFi-GAN generator", *names(source))
    missing = sorted((set(GENERATOR) | set(MEL) | extra) - set(settings))
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; these are not the settings of a HiFi-GAN")
    unknown = sorted(set(settings) - set(GENERATOR) - set(MEL) - set(TRAINING) - extra)
    return settings, tuple(f"{path.name}: {name} is not a setting of HiFi-GAN; it was ignored" for name in unknown)


def generator_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the settings of the network."""
    values = {ours: settings[theirs] for theirs, ours in GENERATOR.items()}
    return values | {"block": str(values["block"])}


def vocoder_config(generator: GeneratorConfig, settings: Mapping[str, Any], where: str) -> VocoderConfig:
    """Join a generator with the mel convention of the settings."""
    mel = to_dict(CONVENTIONS["hifigan"]) | {ours: settings[theirs] for theirs, ours in MEL.items()}
    config: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    return config

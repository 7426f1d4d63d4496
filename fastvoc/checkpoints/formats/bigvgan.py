"""BigVGAN as NVIDIA/BigVGAN 7d2b454 saves it, versions 1 and 2, and BigVSAN (sony/bigvsan 04df88c).

Files
    ``bigvgan_generator.pt`` on the Hugging Face hub and ``g_05000000`` of a run hold ``{"generator": tensors}``, under
    weight norm or without, ``config.json`` the settings of network, mel and training.
    ``bigvgan_discriminator_optimizer.pt`` and ``do_05000000`` are for training alone.
Mel
    HiFi-GAN's at other sizes: ln of magnitudes, floor 1e-5, 80 to 128 bands. The ``fmax`` null of version 2 is half the
    sample rate.
Oddities
    A transposed convolution is ``ups.0.0``. Files hold the filters of each activation, 12 numbers that are always the
    same; a file with others is refused. Version 2 has no ``conv_post.bias``, which ``use_bias_at_final`` says, and no
    tanh, which ``use_tanh_at_final`` says; both are true where they are left out. ``resblock`` is a string. The
    generator of BigVSAN is BigVGAN's under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.audio.mels.convention import as_mel_config
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.foreign_settings import refuse_other
from fastvoc.checkpoints.format import Format, Seen, each, refuse_unsaid, write_torch
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.source import Source, layers_of
from fastvoc.checkpoints.tensor_names import Table, from_native, to_native
from fastvoc.config import from_dict, to_dict
from fastvoc.models import BigVGANConfig
from fastvoc.models.bigvgan import (
    BASE_22K,
    BASE_24K,
    LARGE_22K,
    LARGE_24K,
    V2_22K,
    V2_22K_8K,
    V2_24K,
    V2_44K,
    V2_44K_512,
)
from fastvoc.ops.smooth_snake.call import FILTER

LAYERS = frozenset({"conv_pre", "ups.0.0", "conv_post"})
"""By which the format is known, beside its activations."""

GENERATOR = hifigan.GENERATOR | {"activation": "activation", "snake_logscale": "logarithmic"}
"""The original's names of settings, and those of `BigVGANConfig`."""

BIAS, TANH = "use_bias_at_final", "use_tanh_at_final"
"""Settings that are true where they are left out."""

TRAINING: dict[str, Any] = hifigan.TRAINING | {
    "batch_size": 32,
    "learning_rate": 0.0001,
    "lr_decay": 0.9999996,
    "mpd_reshapes": [2, 3, 5, 7, 11],
    "resolutions": [[1024, 120, 600], [2048, 240, 1200], [512, 50, 240]],
    "use_spectral_norm": False,
    "discriminator_channel_mult": 1,
}
"""Settings of training, which say nothing about a vocoder, and the values that the original's code needs to start."""

_OF_TRAINING = frozenset(
    {"use_cuda_kernel", "use_cqtd_instead_of_mrd", "use_multiscale_melloss", "lambda_melloss", "clip_grad_norm"}
    | {"use_wav2spec_mel", "normalize_volume", "padding_mode", "prefetch_factor"}
)

FILTERS = (".upsample.filter", ".downsample.lowpass.filter")
"""How the names of filters end."""

CONDITIONED = ("cond_layer.", "conds.", "speaker_encoder.")
"""How names of IndexTTS's network begin, which reads no mel."""


def recognises(source: Source) -> bool:
    """Whether the tensors have the original's names, and none of those that IndexTTS adds."""
    state = source.state()
    return (
        layers_of(state) >= LAYERS
        and any(name.endswith(".act.alpha") for name in state)
        and not any(name.startswith(CONDITIONED) for name in state)
    )


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, path = source.required("BigVGAN generator", *hifigan.names(source))
    missing = sorted((set(GENERATOR) | set(hifigan.MEL)) - set(settings))
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; these are not the settings of a BigVGAN")
    known = {*GENERATOR, *hifigan.MEL, *TRAINING, *_OF_TRAINING, BIAS, TANH}
    notes = [
        f"{path.name}: {name} is not a setting of BigVGAN; it was ignored"
        for name in sorted(set(settings) - known)
        if not name.startswith("cqtd_")
    ]
    values = {ours: settings[theirs] for theirs, ours in GENERATOR.items()}
    tanh = settings.get(TANH, True)
    if not isinstance(tanh, bool):
        raise ValueError(f"{path}: {TANH} is {tanh!r}; expected true or false")
    values |= {"block": str(values["block"]), "final": "tanh" if tanh else "clamp"}
    generator: BigVGANConfig = from_dict(BigVGANConfig, values, str(path))
    config = hifigan.vocoder_config(generator, settings, str(path))
    state, where = source.state(), str(source.file)
    bias_free = hifigan.layers_without_bias(state, settings.get(BIAS, True), where, str(path), setting=BIAS)
    weights = to_native(_without_filters(state, where), table(generator), generator, where, bias_free=bias_free)
    return Checkpoint(config, weights, "BigVGAN (NVIDIA) generator", (*notes, *hifigan.missing_bias(state)))


def save(folder: Path, config: VocoderConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a folder that the original's ``from_pretrained`` opens: ``bigvgan_generator.pt`` and ``config.json``.

    A last bias that is zero is left out, as in version 2.

    Raises
    ------
    ValueError
        If the generator or the mel does something that the original has no setting for, or the folder has a
        ``config.json`` that belongs to other weights.
    """
    generator = config.generator
    if not isinstance(generator, BigVGANConfig):
        raise ValueError(f"bigvgan: the original is a BigVGAN, not a {generator.kind}")
    mel = as_mel_config(config.mel, "bigvgan")
    expected = replace(CONVENTIONS["hifigan"], **{ours: getattr(mel, ours) for ours in hifigan.MEL.values()})
    refuse_unsaid("bigvgan", config, expected)
    refuse_other(folder / "config.json", _is_own_result, "a folder that was written before")
    state = from_native(weights, table(generator), weight_norm=True)
    taps = torch.tensor(FILTER, dtype=torch.float32).view(1, 1, -1)
    for name in [name for name in state if name.endswith(".act.alpha")]:
        state |= {name.removesuffix(".act.alpha") + ending: taps.clone() for ending in FILTERS}
    bias = bool(state["conv_post.bias"].count_nonzero())
    if not bias:
        del state["conv_post.bias"]
    settings = settings_of(generator, mel, bias=bias)
    write_torch(
        folder, "bigvgan_generator.pt", {"generator": state}, "config.json", json.dumps(settings, indent=4) + "\n"
    )


def settings_of(generator: BigVGANConfig, mel: MelConfig, *, bias: bool) -> dict[str, Any]:
    """Return what the original's ``config.json`` says about a generator and its mel."""
    network, convention = to_dict(generator), to_dict(mel)
    settings = {theirs: network[ours] for theirs, ours in GENERATOR.items()}
    settings |= {TANH: generator.final == "tanh", BIAS: bias}
    return settings | {theirs: convention[ours] for theirs, ours in hifigan.MEL.items()} | TRAINING


def table(config: BigVGANConfig) -> Table:
    """List the pairs (original layer or tensor, native one)."""
    parameters = ("alpha", "beta") if config.activation == "snakebeta" else ("alpha",)
    pairs = []
    for theirs, ours in hifigan.table(config.shape):
        pairs.append((f"{theirs}.0" if theirs.startswith("ups.") else theirs, ours))
    per_unit = 2 if config.block == "1" else 1
    for stage in range(len(config.rates)):
        for branch, dilations in enumerate(config.dilations):
            block = f"resblocks.{stage * len(config.kernel_sizes) + branch}"
            for number in range(per_unit * len(dilations)):
                for name in parameters:
                    ours = f"trunk.residual.{stage}.activations.{branch}.{number}.{name}"
                    pairs.append((f"{block}.activations.{number}.act.{name}", ours))
    return pairs + [(f"activation_post.act.{name}", f"head.activation.{name}") for name in parameters]


def _without_filters(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return what is learned; raise one sentence if a filter is another than all files hold."""
    expected = torch.tensor(FILTER, dtype=torch.float64)
    for name, tensor in state.items():
        if not name.endswith(FILTERS):
            continue
        plain = tensor.layout is torch.strided and tensor.is_floating_point() and tensor.device.type == "cpu"
        # what 16 bits leave of the largest tap
        if (
            not plain
            or tensor.shape != (1, 1, 12)
            or not torch.allclose(tensor.double().view(-1), expected, rtol=0, atol=2e-3)
        ):
            raise ValueError(
                f"{where}: {name} is not the filter of 12 taps that BigVGAN's activations have; networks with others "
                "are not opened"
            )
    return {name: tensor for name, tensor in state.items() if not name.endswith(FILTERS)}


def _is_own_result(path: Path, settings: Mapping[str, Any]) -> bool:
    return GENERATOR.keys() <= settings.keys() and not [*path.parent.glob("g_????????")]


def _seems(seen: Seen) -> bool:
    """Whether a part of a file is of this format: an activation, or settings of one beside it."""
    conditioned = any(name.startswith(CONDITIONED) for name in seen.names)
    activations = any(name.endswith(".act.alpha") for name in seen.names)
    return (activations and not conditioned) or "snake_logscale" in seen.settings


_HIFIGAN, _24K = CONVENTIONS["hifigan"], CONVENTIONS["bigvgan-24k"]
_PUBLISHED = {
    "bigvgan_base_22khz_80band": (BASE_22K, _HIFIGAN),
    "bigvgan_base_24khz_100band": (BASE_24K, _24K),
    "bigvgan_22khz_80band": (LARGE_22K, _HIFIGAN),
    "bigvgan_24khz_100band": (LARGE_24K, _24K),
    "bigvgan_v2_22khz_80band_256x": (V2_22K, CONVENTIONS["hifigan-loss"]),
    "bigvgan_v2_22khz_80band_fmax8k_256x": (V2_22K_8K, _HIFIGAN),
    "bigvgan_v2_24khz_100band_256x": (V2_24K, replace(_24K, high=None)),
    "bigvgan_v2_44khz_128band_256x": (V2_44K, CONVENTIONS["bigvgan-44k-256x"]),
    "bigvgan_v2_44khz_128band_512x": (V2_44K_512, CONVENTIONS["bigvgan-44k"]),
}

FORMAT = Format(
    name="bigvgan",
    title="BigVGAN",
    files=("bigvgan_generator.pt", "g_????????"),
    places=hifigan.PLACES,
    recognises=recognises,
    read=read,
    write=save,
    layers=(*each(*sorted(LAYERS)), frozenset({"activation_post.act.alpha"})),
    clue=_seems,
    presets={
        name: settings_of(generator, mel, bias=generator.final == "tanh")
        for name, (generator, mel) in _PUBLISHED.items()
    },
)

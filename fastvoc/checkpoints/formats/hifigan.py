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
    that is not "1" for "2". Where the taps of a transposed convolution minus its rate are odd, the code makes a
    sample too many in its stage, and cannot be trained. With twice as many taps as the rate it was MockingBird's code
    that trained the weights, which pads the output instead; with others (AudioLDM) the samples too many are kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.audio.mels.convention import as_mel_config
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.foreign_settings import refuse_other
from fastvoc.checkpoints.format import Format, each, names_begin, refuse_unsaid, write_torch
from fastvoc.checkpoints.modules import Live, attributes_of, fitting_mel, hifigan_sizes, layers_in
from fastvoc.checkpoints.reading.source import Source, layers_of
from fastvoc.checkpoints.tensor_names import Table, from_native, to_native
from fastvoc.config import from_dict, to_dict
from fastvoc.models import GeneratorConfig, HiFiGANConfig, ISTFTNetConfig
from fastvoc.models.hifigan import V1, V2, V3
from fastvoc.writing import PARTIAL

PLACES = ("generator", "generator/model", "model", "")
"""Where in a file the generator's tensors have been seen."""

LAYERS = frozenset({"conv_pre", "ups.0", "conv_post"})
BLOCKS = frozenset({"resblocks.0.convs1.0", "resblocks.0.convs.0"})
"""By which the format is known: all of the former, and one of the latter."""

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

BIAS = "conv_post_bias"
"""A setting of the projects that began from this code: whether the last convolution has a bias, as it has here."""

OUTPUT_PADDED = (
    "upsample_rates {rates} are odd: the transposed convolutions are padded at their output, as in MockingBird, where "
    "a frame is {hop} samples; the original's code makes a few more, and cannot be trained so"
)

BANDS = 80
"""Of the mel, which are written in the original's code, whatever ``num_mels`` says."""


def recognises(source: Source) -> bool:
    """Whether the tensors have the original's names, and the settings ask for no other head and are not Coqui's."""
    others = {"gen_istft_n_fft", "generator_model"}
    return is_layout(source.state()) and others.isdisjoint(source.settings(*names(source)))


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, notes = checked_settings(source)
    where = str(source.settings_path(*names(source)))
    generator = network(generator_settings(settings), where)
    if generator.extra_samples and all(
        taps == 2 * rate for rate, taps in zip(generator.rates, generator.rate_kernel_sizes, strict=True)
    ):
        notes = (*notes, OUTPUT_PADDED.format(rates=list(generator.rates), hop=generator.hop))
        generator = replace(generator, crop_rule="output-padded")
    notes = (*notes, *longer(generator))
    config = vocoder_config(generator, settings, where)
    state = source.state()
    bias_free = layers_without_bias(state, settings.get(BIAS, True), f"{source.file}", where)
    weights = to_native(state, table(generator), generator, str(source.file), bias_free=bias_free)
    return Checkpoint(config, weights, "HiFi-GAN (jik876) generator", (*notes, *missing_bias(state)))


def network(values: Mapping[str, Any], where: str) -> HiFiGANConfig:
    """Build the configuration of a network that is cut as the original's code cuts it."""
    symmetric: HiFiGANConfig = from_dict(HiFiGANConfig, {**values, "crop_rule": "symmetric"}, where)
    return symmetric if symmetric.extra_samples else replace(symmetric, crop_rule="centred")


def longer(generator: HiFiGANConfig | ISTFTNetConfig) -> tuple[str, ...]:
    """Note that waves are longer than their mels."""
    extra = generator.extra_samples
    return (f"a wave of T frames has T · {generator.hop} + {extra} samples, as the original's",) if extra else ()


def names(source: Source) -> tuple[str, ...]:
    """Return what the settings beside a file may be called."""
    own = [f"{stem}.json" for name in source.names for stem in dict.fromkeys((name, Path(name).stem))]
    return "config.json", *own


def layers_without_bias(
    state: Mapping[str, Tensor],
    bias: Any,
    where: str,
    settings: str,
    layer: str = "conv_post",
    *,
    setting: str = BIAS,
) -> tuple[str, ...]:
    """Return the last convolution if the settings say that it has no bias, or raise one sentence if it only lacks it.

    Parameters
    ----------
    state : mapping of str to Tensor
    bias : object
        What the settings say.
    where, settings : str
        What error messages call the weights and the settings.
    layer : str
    setting : str
        Under which name they say it.
    """
    if not isinstance(bias, bool):
        raise ValueError(f"{settings}: {setting} is {bias!r}; expected true or false")
    if bias and layer in layers_of(state) and f"{layer}.bias" not in state:
        raise ValueError(
            f"{where}: has no {layer}.bias; the file is incomplete, or the network was built without it, which "
            f'{settings} has to say with "{setting}": false'
        )
    return () if bias else (layer,)


def missing_bias(state: Mapping[str, Tensor], layer: str = "conv_post") -> tuple[str, ...]:
    """Note that the last convolution has no bias."""
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
    kept = (*GENERATOR.values(), "crop_rule")
    plain = HiFiGANConfig(**{ours: getattr(config, ours) for ours in kept})
    for name in ("slope", "last_slope", "padding_mode", "causal", "standardised", "condition_channels"):
        if getattr(config, name) != getattr(plain, name):
            raise ValueError(f"hifigan: the original has no setting for {name} {getattr(config, name)!r}")
    if config.crop_rule == "output-padded" and any(rate % 2 for rate in config.rates):
        raise ValueError(f"hifigan: the original cuts the transposed convolutions of rates {config.rates} elsewhere")
    if config.mel_bands != BANDS:
        raise ValueError(f"hifigan: the original takes mels of {BANDS} bands, not of {config.mel_bands}")
    return {"generator": from_native(weights, table(config), weight_norm=weight_norm)}


def save(folder: Path, config: VocoderConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a folder that the original code and what began from it opens: ``g_00000000`` and ``config.json``.

    Raises
    ------
    ValueError
        If the generator or the mel does something that the original has no setting for, or the folder has a
        ``config.json`` that belongs to other weights.
    """
    if not isinstance(config.generator, HiFiGANConfig):
        raise ValueError(f"hifigan: the original is a HiFi-GAN, not a {config.generator.kind}")
    mel = as_mel_config(config.mel, "hifigan")
    expected = replace(CONVENTIONS["hifigan"], **{ours: getattr(mel, ours) for ours in MEL.values()})
    refuse_unsaid("hifigan", config, expected)
    refuse_other(folder / "config.json", _is_own_result, "a folder that was written before")
    content = write(config.generator, weights)
    settings = settings_of(config.generator, mel)
    write_torch(folder, "g_00000000", content, "config.json", json.dumps(settings, indent=4) + "\n")


def settings_of(generator: HiFiGANConfig, mel: MelConfig) -> dict[str, Any]:
    """Return what the original's ``config.json`` says about a generator and its mel."""
    network, convention = to_dict(generator), to_dict(mel)
    settings = {theirs: network[ours] for theirs, ours in GENERATOR.items()}
    return settings | {theirs: convention[ours] for theirs, ours in MEL.items()} | TRAINING


def _is_own_result(path: Path, settings: Mapping[str, Any]) -> bool:
    others = [file for file in path.parent.glob("g_*") if file.name != "g_00000000" and file.suffix != PARTIAL]
    return GENERATOR.keys() <= settings.keys() and not others


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
        layers_of(state) >= LAYERS
        and bool(BLOCKS & layers_of(state))
        and not any("alpha" in name or name.startswith(("noise_", "m_source", "cond")) for name in state)
    )


def checked_settings(source: Source, extra: frozenset[str] = frozenset()) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings, and a note for each that is not known; raise one sentence if some are missing."""
    settings, path = source.required("HiFi-GAN generator", *names(source))
    missing = sorted((set(GENERATOR) | set(MEL) | extra) - set(settings))
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; these are not the settings of a HiFi-GAN")
    unknown = sorted(set(settings) - set(GENERATOR) - set(MEL) - set(TRAINING) - {BIAS} - extra)
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


def live(module: nn.Module) -> Live | None:
    """Read a ``Generator``, which may keep its settings as ``h``; one of iSTFTNet makes spectra, and is none."""
    sizes = hifigan_sizes(module) if layers_in(module).keys() >= LAYERS else None
    if sizes is None or hasattr(module, "post_n_fft"):
        return None
    h = attributes_of(getattr(module, "h", None))
    mel = fitting_mel(math.prod(sizes["rates"])) | {"bands": sizes["mel_bands"], "low": 0.0, "high": None}
    settings = {theirs: sizes[ours] for theirs, ours in GENERATOR.items()} | {BIAS: sizes["bias"]}
    settings |= {theirs: mel[ours] for theirs, ours in MEL.items() if theirs != "num_mels"}
    says_mel = set(MEL) <= set(h) and h["hop_size"] == mel["hop"] and h["num_mels"] == sizes["mel_bands"]
    if says_mel:
        settings |= {theirs: h[theirs] for theirs in MEL}
    return Live(settings=settings, says_mel=says_mel)


FORMAT = Format(
    name="hifigan",
    title="HiFi-GAN",
    files=("g_????????", "generator_v?", "g_*", "hifigan_*v?"),
    places=PLACES,
    recognises=recognises,
    read=read,
    live=live,
    write=save,
    layers=(*each(*sorted(LAYERS)), BLOCKS),
    clue=names_begin("conv_pre.", "conv_post.", "resblocks."),
    presets={
        f"hifigan-v{number}": settings_of(config, CONVENTIONS["hifigan"])
        for number, config in enumerate((V1, V2, V3), start=1)
    },
)

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

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints._keys import Table, from_native, to_native
from fastvoc.checkpoints._source import Source
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.config import from_dict, to_dict
from fastvoc.models import GeneratorConfig, HiFiGANConfig

FILES = ("g_????????", "generator_v?", "g_*")

PLACES = ("generator", "generator.model", "model", "")
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

IGNORED = {
    "num_freq",
    "fmax_for_loss",
    "segment_size",
    "num_gpus",
    "batch_size",
    "learning_rate",
    "adam_b1",
    "adam_b2",
    "lr_decay",
    "seed",
    "num_workers",
    "dist_config",
}
"""Settings of training."""


def recognises(source: Source) -> bool:
    """Whether the tensors have the original's names, and the settings ask for no other head."""
    return is_layout(source.state(*PLACES)) and "gen_istft_n_fft" not in source.settings()


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, notes = checked_settings(source)
    where = str(source.settings_path("config.json"))
    generator: HiFiGANConfig = from_dict(HiFiGANConfig, generator_settings(settings), where)
    config = vocoder_config(generator, settings, where)
    weights = to_native(source.state(*PLACES), table(generator), generator, str(source.file))
    return Checkpoint(config, weights, "HiFi-GAN (jik876) generator", notes)


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
    return {"generator": from_native(weights, table(config), weight_norm=weight_norm)}


def table(config: HiFiGANConfig) -> Table:
    """List the pairs (original layer, native layer); blocks are numbered through all stages in the original."""
    pairs = [("conv_pre", "trunk.stem"), ("conv_post", "head.conv")]
    pairs += [(f"ups.{stage}", f"trunk.up.{stage}") for stage in range(len(config.rates))]
    names = ("convs1", "convs2") if config.block == "1" else ("convs",)
    for stage in range(len(config.rates)):
        for branch, dilations in enumerate(config.dilations):
            theirs = f"resblocks.{stage * len(config.kernel_sizes) + branch}"
            ours = f"trunk.residual.{stage}.branches.{branch}"
            pairs += [
                (f"{theirs}.{name}.{unit}", f"{ours}.{unit}.{conv}")
                for unit in range(len(dilations))
                for conv, name in enumerate(names)
            ]
    return pairs


def is_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the original's names, and none of those that BigVGAN and HiFTNet add."""
    layers = {name.rsplit(".weight", 1)[0].removesuffix(".parametrizations") for name in state}
    return (
        {"conv_pre", "ups.0", "conv_post"} <= layers
        and bool({"resblocks.0.convs1.0", "resblocks.0.convs.0"} & layers)
        and not any("alpha" in name or name.startswith(("noise_", "m_source", "cond")) for name in state)
    )


def checked_settings(source: Source, extra: frozenset[str] = frozenset()) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings, and a note for each that is not known; raise one sentence if some are missing."""
    path = source.settings_path("config.json")
    if path is None:
        raise ValueError(
            f"{source.file}: is a HiFi-GAN generator, but there is no config.json beside it; "
            "name the settings that it was trained with as config="
        )
    settings = source.settings()
    missing = sorted((set(GENERATOR) | set(MEL) | extra) - set(settings))
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; these are not the settings of a HiFi-GAN")
    unknown = sorted(set(settings) - set(GENERATOR) - set(MEL) - IGNORED - extra)
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

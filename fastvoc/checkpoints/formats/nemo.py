"""HiFi-GAN as NVIDIA NeMo 8cfedd7 saves it.

Files
    ``NAME.nemo`` is a tar archive, compressed or not, of ``model_config.yaml`` and ``model_weights.ckpt``; an unpacked
    folder of these two is opened too. The weights hold the generator under ``generator.``, and beside it the
    discriminators and the filters of the mel, which are left aside.
Mel
    ``FilterbankFeatures``: ln of magnitudes, floor 1e-5, a symmetric Hann window, and zeros around the wave.
Oddities
    ``resblock`` is a number. Blocks are numbered by stage and branch, in files from before version 1.0 through all
    stages. The mel counts one frame less than it computes, so its last frame is overwritten with ``pad_value``
    (`MelConfig.last_frame`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format, each, names_begin
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.safe_loading import SETTINGS, WEIGHTS
from fastvoc.checkpoints.reading.source import Source, layers_of, under
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.config import config, from_dict, to_dict

LAYERS = {"conv_pre", "ups.0"}
"""By which the format is known, with blocks in two levels or the filters of the mel beside them."""

PREFIX = "generator."

OTHERS = ("mpd.", "msd.", "audio_to_melspec_precessor.", "trg_melspec_fn.", "loss")
"""Beginnings of the names of what is no generator."""


@config
class Network:
    """``generator``, with the defaults of its code."""

    resblock: Literal[1, 2, "1", "2"]
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]


@config
class Features:
    """``preprocessor``: what a vocoder's mel can be."""

    nfilt: int
    lowfreq: float = 0
    highfreq: float | None = None
    n_fft: int
    n_window_size: int
    n_window_stride: int
    sample_rate: int
    window: Literal["hann"] = "hann"
    pad_value: float = 0
    normalize: Literal["", None]
    preemph: Literal[0, None]
    log: Literal[True] = True
    log_zero_guard_type: Literal["clamp", "add"] = "add"
    log_zero_guard_value: float = 2**-24
    mag_power: Literal[1, 2] = 2
    exact_pad: Literal[True]
    frame_splicing: Literal[1] = 1
    mel_norm: Literal["slaney"] = "slaney"


def recognises(source: Source) -> bool:
    """Whether it is the archive, or has the generator's names among others or in two levels."""
    return WEIGHTS in source.top or is_layout(source.state("state_dict", ""))


def is_layout(state: Mapping[str, Tensor]) -> bool:
    """Whether blocks are numbered by stage and branch, or the generator lies beside the filters of the mel."""
    found = layers_of(under(state, PREFIX)) or layers_of(state)
    nested = bool({"resblocks.0.0.convs1.0", "resblocks.0.0.convs.0"} & found)
    beside_mel = any(name.startswith(OTHERS[2:4]) for name in state)
    return found >= LAYERS and (nested or beside_mel) and not any("alpha" in name for name in state)


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings of its archive, or beside it."""
    if SETTINGS in source.top and source.config is None:
        settings, where = source.content[SETTINGS], f"{source.file}: {SETTINGS}"
    else:
        settings, path = source.required("NeMo checkpoint", SETTINGS)
        where = str(path)
    settings = settings.get("model", settings)
    settings = settings if isinstance(settings, dict) else {}
    network = foreign_settings.pick(Network, settings.get("generator"), f"{where}: generator")
    features = foreign_settings.pick(Features, settings.get("preprocessor"), f"{where}: preprocessor")
    generator = hifigan.network(
        {
            "mel_bands": features.nfilt,
            "channels": network.upsample_initial_channel,
            "rates": network.upsample_rates,
            "rate_kernel_sizes": network.upsample_kernel_sizes,
            "block": str(network.resblock),
            "kernel_sizes": network.resblock_kernel_sizes,
            "dilations": network.resblock_dilation_sizes,
        },
        where,
    )
    mel = to_dict(CONVENTIONS["nemo"]) | {
        "sample_rate": features.sample_rate,
        "fft_size": features.n_fft,
        "hop": features.n_window_stride,
        "window_size": features.n_window_size,
        "bands": features.nfilt,
        "low": features.lowfreq,
        "high": features.highfreq,
        "power": features.mag_power,
        "floor": features.log_zero_guard_value,
        "floor_mode": features.log_zero_guard_type,
        "last_frame": features.pad_value,
    }
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    state = generator_state(source.state(), str(source.file))
    pairs = hifigan.table(generator, nested=is_nested(state))
    weights = to_native(state, pairs, generator, str(source.file))
    notes = (
        "the original's mel overwrites its last frame with silence: vocoder.config.mel.last_frame",
        *hifigan.longer(generator),
    )
    return Checkpoint(vocoder, weights, "HiFi-GAN (NeMo) generator", notes)


def is_nested(state: Mapping[str, Tensor]) -> bool:
    """Whether blocks are numbered by stage and branch, not through all stages."""
    return any(name.startswith("resblocks.0.0.") for name in state)


def generator_state(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the generator's tensors, and raise where some belong neither to it nor to a part that is known."""
    inner = under(state, PREFIX)
    if not inner:
        return state
    unknown: list[Any] = [name for name in state if not name.startswith((PREFIX, *OTHERS))]
    if unknown:
        raise ValueError(f"{where}: has {', '.join(unknown[:3])}, for which there is no place in a HiFi-GAN of NeMo")
    return inner


FORMAT = Format(
    name="nemo",
    title="NeMo HiFi-GAN",
    files=("*.nemo", WEIGHTS),
    places=(WEIGHTS, "state_dict", ""),
    recognises=recognises,
    read=read,
    layers=each(*sorted(LAYERS)),
    clue=names_begin("resblocks.0.0."),
)

"""MelGAN as seungwonpark/melgan aca5990 saves it.

Files
    ``NAME_GITHASH_EPOCH.pt`` holds ``model_g``, ``model_d``, the optimizers, and ``hp_str``, the text of the YAML file
    of settings.
Mel
    Tacotron 2's: ln of magnitudes, floor 1e-5, centred frames, bands from ``mel_fmin`` to ``mel_fmax``.
Oddities
    The network is the original MelGAN, but its input is first mapped to ``(x + 5) / 5``. The map is folded into the
    stem, which is exact because the padding reflects: a constant is the same outside the signal. The inference code
    appends 10 frames of ln 1e-5 and cuts their samples off again, which is kept as the vocoder's `InferenceFrames`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, InferenceFrames, VocoderConfig
from fastvoc.checkpoints.format import Format, each, top_has
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import config, from_dict, to_dict
from fastvoc.models import MelGANConfig

CENTRE, SPREAD = 5.0, 5.0
"""Of the map ``(x + CENTRE) / SPREAD`` inside the network."""

APPENDED = InferenceFrames(appended_frames=10, appended_value=-11.5129, trimmed=True)


@config
class Audio:
    """The settings of the mel."""

    n_mel_channels: int
    """Bands."""
    filter_length: int
    """Samples of the transform."""
    hop_length: int
    """Samples between frames."""
    win_length: int
    """Samples of the window."""
    sampling_rate: int
    """Hz."""
    mel_fmin: float
    """Hz."""
    mel_fmax: float | None
    """Hz; None is half the sample rate."""


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings in the same file."""
    settings, where = _settings(source)
    audio = foreign_settings.pick(Audio, settings.get("audio"), f"{where}: audio")
    mel = to_dict(CONVENTIONS["tacotron2"]) | {
        "bands": audio.n_mel_channels,
        "fft_size": audio.filter_length,
        "hop": audio.hop_length,
        "window_size": audio.win_length,
        "sample_rate": audio.sampling_rate,
        "low": audio.mel_fmin,
        "high": audio.mel_fmax,
    }
    generator: MelGANConfig = from_dict(MelGANConfig, {"mel_bands": audio.n_mel_channels}, where)
    vocoder: VocoderConfig = from_dict(
        VocoderConfig, {"generator": generator, "mel": mel, "inference": APPENDED}, where
    )
    weights = to_native(source.state(), table(generator), generator, str(source.file))
    fold_map(weights)
    notes = (
        "the map of the mel inside the network, (x + 5) / 5, is folded into the stem",
        "the original appends 10 frames of silence and cuts them off again: vocoder.config.inference",
    )
    return Checkpoint(vocoder, weights, "MelGAN (seungwonpark) generator", notes)


def _settings(source: Source) -> tuple[dict[str, Any], str]:
    if source.config is not None:
        return source.settings(), str(source.config)
    text, where = source.content.get("hp_str"), f"{source.file}: hp_str"
    if text is None:
        raise ValueError(
            f"{source.file}: is a MelGAN of seungwonpark/melgan without hp_str, its settings; name them as config="
        )
    if not isinstance(text, str):
        raise ValueError(f"{where}: is {type(text).__name__}; expected the text of the settings")
    return foreign_settings.parse(text, where), where


def fold_map(weights: dict[str, Tensor]) -> None:
    """Make the stem do what it did behind the map: scale its weight, and add what the constant contributes."""
    weight, bias = weights["trunk.stem.weight"], weights["trunk.stem.bias"]
    constant = weight.double().sum(dim=(1, 2)) * (CENTRE / SPREAD)
    weights["trunk.stem.weight"] = (weight.double() / SPREAD).to(weight.dtype)
    weights["trunk.stem.bias"] = (bias.double() + constant).to(bias.dtype)


def table(config: Any, prefix: str = "generator") -> Table:
    """List the pairs (original layer, native layer): the residual units of a stage share a module."""
    pairs = [(f"{prefix}.1", "trunk.stem")]
    for stage in range(len(config.rates)):
        up = 3 + 3 * stage
        pairs.append((f"{prefix}.{up}", f"trunk.up.{stage}"))
        for unit in range(config.units):
            ours = f"trunk.residual.{stage}.branches.0.{unit}"
            names = (f"blocks.{unit}.2", f"blocks.{unit}.4", f"shortcuts.{unit}")
            pairs += [(f"{prefix}.{up + 1}.{name}", f"{ours}.{place}") for place, name in enumerate(names)]
    return [*pairs, (f"{prefix}.{4 + 3 * len(config.rates)}", "head.conv")]


FORMAT = Format(
    name="seungwonpark",
    title="MelGAN (seungwonpark)",
    places=("model_g", ""),
    read=read,
    layers=each("generator.1", "generator.3", "generator.4.blocks.0.2"),
    clue=top_has("model_g", "hp_str"),
)

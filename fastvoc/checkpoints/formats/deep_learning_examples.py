"""HiFi-GAN as NVIDIA/DeepLearningExamples 729963d saves it (torch hub's nvidia_hifigan).

Files
    ``hifigan_gen_checkpoint_6500.pt`` holds ``generator``, ``gen_ema`` (its moving average, or None), ``config`` (the
    network), ``train_setup`` (all arguments of the run) and ``train_state``.
Mel
    HiFi-GAN's; names of its settings are those of Tacotron 2.
Oddities
    The moving average is preferred. The default order of the residual blocks is 11, 7, 3 taps, reversed: only the
    stored settings tell. Blocks are numbered by stage and branch, in older files through all stages. Weights may have
    one dimension of size 1 more at their end, from two-dimensional convolutions.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.formats.nemo import is_nested
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.config import config, from_dict, to_dict


@config
class Settings:
    """What the file says about itself, with the defaults of the code for the mel."""

    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock: Literal["1", "2", 1, 2]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    sampling_rate: int = 22050
    filter_length: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    num_mels: int = 80
    mel_fmin: float = 0
    mel_fmax: float | None = 8000


def recognises(source: Source) -> bool:
    """Whether the generator lies beside the arguments of its run."""
    return {"generator", "train_setup"} <= source.top


def read(source: Source) -> Checkpoint:
    """Read the moving average of a generator, or the generator, and the settings in the same file.

    Settings that are named explicitly go before those in the file.
    """
    where = f"{source.file}: train_setup"
    values: dict[str, Any] = {}
    for name in ("train_setup", "config"):  # the network as it was built goes last
        part = source.content.get(name)
        values |= {str(key): value for key, value in part.items()} if isinstance(part, dict) else {}
    if source.config is not None:
        values, where = values | source.settings(), str(source.config)
    foreign_settings.check_size(values, where)
    settings = foreign_settings.pick(Settings, values, where)
    generator = hifigan.network(
        {
            "mel_bands": settings.num_mels,
            "channels": settings.upsample_initial_channel,
            "rates": settings.upsample_rates,
            "rate_kernel_sizes": settings.upsample_kernel_sizes,
            "block": str(settings.resblock),
            "kernel_sizes": settings.resblock_kernel_sizes,
            "dilations": settings.resblock_dilation_sizes,
        },
        where,
    )
    mel = to_dict(CONVENTIONS["hifigan"]) | {
        "sample_rate": settings.sampling_rate,
        "fft_size": settings.filter_length,
        "hop": settings.hop_length,
        "window_size": settings.win_length,
        "bands": settings.num_mels,
        "low": settings.mel_fmin,
        "high": settings.mel_fmax,
    }
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": mel}, where)
    state = {name: squeezed(name, tensor) for name, tensor in source.state().items()}
    weights = to_native(state, hifigan.table(generator, nested=is_nested(state)), generator, str(source.file))
    notes = hifigan.longer(generator)
    return Checkpoint(vocoder, weights, "HiFi-GAN (NVIDIA DeepLearningExamples) generator", notes)


def squeezed(name: str, tensor: Tensor) -> Tensor:
    """Drop the fourth dimension that a weight has from a two-dimensional convolution."""
    is_weight = name.endswith(("weight", "weight_g", "weight_v", "original0", "original1"))
    return tensor.squeeze(-1) if is_weight and tensor.dim() == 4 else tensor


FORMAT = Format(
    name="deep-learning-examples",
    title="NVIDIA DeepLearningExamples HiFi-GAN",
    files=("hifigan_gen_checkpoint_*.pt",),
    places=("gen_ema", "generator"),
    recognises=recognises,
    read=read,
)

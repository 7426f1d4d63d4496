"""The networks that are measured: the published sizes, with seeded weights that keep signals at the scale of speech.

There is no need of trained weights to know how fast a network is, but there is of activations that neither vanish nor
overflow, so that the distance to double precision means something.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import Generator, bigvgan, hifigan, melgan

NETWORKS: dict[str, Any] = {
    "hifigan-v1": hifigan.V1,
    "hifigan-v2": hifigan.V2,
    "hifigan-v3": hifigan.V3,
    "melgan": melgan.DESCRIPT,
    "mb-melgan": melgan.MULTI_BAND,
    "bigvgan-base": bigvgan.BASE_22K,
    "bigvgan": bigvgan.LARGE_22K,
    "bigvgan-24k": bigvgan.LARGE_24K,
}
"""Name → configuration. All take 80 bands at 22050 Hz but the last, 100 at 24 kHz; the hop is 256."""

POWERS = {"stem": 1 / 30, ".residual.": 0.5, "head": 0.05}
"""Variance of the weights of a part, times its fan-in."""

MEL = CONVENTIONS["hifigan"]


def mel_of(config: Any) -> MelConfig:
    """Return the convention of a network."""
    return MEL if config.mel_bands == MEL.bands else CONVENTIONS["bigvgan-24k"]


def seeded(config: Any, *, seed: int = 0) -> Generator:
    """Build a generator in which signals have a power of about 1, and the wave that of speech.

    A leaky ReLU halves the power of what is symmetric, so weights have the variance 2 / fan-in; in residual branches,
    whose sums would grow, less. A mel in natural logarithms has a power of about 30.
    """
    torch.manual_seed(seed)
    generator: Generator = config.build().eval().requires_grad_(False)
    for name, weight in generator.named_parameters():
        if weight.ndim == 3:
            power = next((power for part, power in POWERS.items() if part in name), 2.0)
            power = 1.0 if ".residual." in name and weight.shape[2] == 1 else power  # shortcuts, which must not fade
            # each output of a transposed convolution meets the taps of one phase only
            inputs = weight.shape[0] * 2 if ".up." in name else weight.shape[1] * weight.shape[2]
            weight.normal_(std=(power / inputs) ** 0.5)
    return generator


def seeded_vocoder(
    config: Any, *, device: str = "cpu", dtype: torch.dtype = torch.float32, backend: str | None = None
) -> Vocoder:
    """Return a vocoder around `seeded`, as a user holds it."""
    checkpoint = Checkpoint(VocoderConfig(generator=config, mel=mel_of(config)), seeded(config).state_dict(), "seeded")
    return Vocoder(checkpoint, device=device, dtype=dtype, backend=backend)


def runs_on(vocoder: Vocoder) -> str:
    """Return what runs a vocoder: ``"plan"``, or the backend of its operators."""
    return next(name for name, reason in vocoder.explain().items() if reason is None)


def some_mel(frames: int, *, batch: int = 1, device: str = "cpu", mel: MelConfig = MEL) -> Tensor:
    """Return log-mels with the mean and spread of speech, shape (batch, bands, frames)."""
    values = torch.randn(batch, mel.bands, frames, generator=torch.Generator().manual_seed(1))
    return (2 * values - 5).clamp(-11, 1).to(device)


def frames_of(seconds: float, mel: MelConfig = MEL) -> int:
    """Return how many frames are nearest to a length of sound."""
    return max(1, round(seconds * mel.sample_rate / mel.hop))

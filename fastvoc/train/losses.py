"""The losses of GAN vocoders, each by its name in the recipes.

Adversarial: Lim and Ye 2017, arXiv:1705.02894 (hinge); Mao 2017, arXiv:1611.04076 (least squares). Features: Kumar
2019, arXiv:1910.06711, eq. 3, and Kong 2020, arXiv:2010.05646, eq. 6. Spectra: `fastvoc.audio.metrics`, and Kumar
2023, arXiv:2306.06546, § 3.5, for mels at several scales. Magnitudes, without a wave: Arik 2018, arXiv:1808.06719,
eqs. 3 and 4.

Notes
-----
Whether the recording's feature maps are detached (MelGAN, ParallelWaveGAN) or not (HiFi-GAN, Keras) changes no
update: they do not depend on the generator, and its loss moves nothing but the generator. So they carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio import MelConfig, mel_l1, multi_resolution_stft
from fastvoc.audio.mel import frame_window, mel_filters

Objective = Literal["hinge", "least-squares"]
Across = Literal["sum", "mean"]
Scale = Literal["sum", "mean", "descript"]
Maps = Sequence[Tensor]

SCALES = ((5, 32), (10, 64), (20, 128), (40, 256), (80, 512), (160, 1024), (320, 2048))
"""Mel bands and window, in samples, of each scale of `multi_scale_mel` (Kumar 2023, table 1)."""


def discriminator_loss(
    real: Sequence[Tensor], fake: Sequence[Tensor], *, objective: Objective, across: Across
) -> Tensor:
    """Return what the discriminators minimise.

    Parameters
    ----------
    real, fake : sequence of Tensor
        Scores of recordings and of generated waves, of each sub-discriminator.
    objective : {"hinge", "least-squares"}
        ``relu(1 - D(x)) + relu(1 + D(G))`` or ``(1 - D(x))² + D(G)²``, averaged over a score map.
    across : {"sum", "mean"}
        Over the sub-discriminators: HiFi-GAN and descript's MelGAN add, Keras and ParallelWaveGAN average.

    Returns
    -------
    Tensor, scalar
    """
    if objective == "hinge":
        losses = [_mean(F.relu(1 - x)) + _mean(F.relu(1 + y)) for x, y in zip(real, fake, strict=True)]
    else:
        losses = [_mean((1 - x).square()) + _mean(y.square()) for x, y in zip(real, fake, strict=True)]
    return _combine(losses, across)


def adversarial_loss(fake: Sequence[Tensor], *, objective: Objective, across: Across) -> Tensor:
    """Return what the generator minimises to be taken for a recording: ``-D(G)`` or ``(1 - D(G))²``.

    Parameters
    ----------
    fake : sequence of Tensor
        Scores of generated waves, of each sub-discriminator.
    objective, across
        As in `discriminator_loss`.
    """
    losses = [_mean(-y) if objective == "hinge" else _mean((1 - y).square()) for y in fake]
    return _combine(losses, across)


def feature_matching(real: Sequence[Maps], fake: Sequence[Maps], *, score: bool, scale: Scale) -> Tensor:
    """Mean absolute difference of feature maps.

    Parameters
    ----------
    real, fake : sequence of (sequence of Tensor)
        Of each sub-discriminator, its feature maps, the last of which is the score.
    score : bool
        Compare the score too, as HiFi-GAN does; MelGAN and Keras do not.
    scale : {"sum", "mean", "descript"}
        ``"sum"`` of the means of all maps (HiFi-GAN), their ``"mean"`` (Keras, ParallelWaveGAN), or ``"descript"``:
        ``4 / (n + 1) / discriminators`` times the sum, where ``n`` strided layers make ``n + 3`` maps.
    """
    losses = []
    for real_maps, fake_maps in zip(real, fake, strict=True):
        count = len(fake_maps) if score else len(fake_maps) - 1
        factor = 4 / (len(fake_maps) - 2) / len(fake) if scale == "descript" else 1.0
        pairs = zip(real_maps[:count], fake_maps[:count], strict=True)
        losses += [factor * _mean((x.detach() - y).abs()) for x, y in pairs]
    return _combine(losses, "mean" if scale == "mean" else "sum")


def stft(fake: Tensor, wave: Tensor, resolutions: Sequence[tuple[int, int, int]]) -> Tensor:
    """Multi-resolution STFT loss: spectral convergence plus log-magnitude distance.

    Parameters
    ----------
    fake, wave : Tensor, shape (B, T) or (B, bands, T), float32 or float64
    resolutions : sequence of (fft_size, hop, window_size)
        In samples.

    Notes
    -----
    The convergence is one ratio for the waves of a process: over several processes the mean of their ratios is near
    that of the whole batch, not equal to it.
    """
    convergence, log_magnitude = multi_resolution_stft(fake, wave, resolutions)
    return convergence + log_magnitude


def multi_scale_mel(fake: Tensor, wave: Tensor, *, sample_rate: int) -> Tensor:
    """Sum over `SCALES` of the distance of decimal log-mels of the whole band, hop a quarter of the window.

    Parameters
    ----------
    fake, wave : Tensor, shape (B, T), float32 or float64
    sample_rate : int
        In Hz.
    """
    return torch.stack([mel_l1(fake, wave, config) for config in _scales(sample_rate)]).sum()


@lru_cache(maxsize=8)
def _scales(sample_rate: int) -> tuple[MelConfig, ...]:
    return tuple(
        MelConfig(
            sample_rate=sample_rate,
            fft_size=window,
            hop=window // 4,
            window_size=window,
            bands=bands,
            low=0,
            high=None,
            logarithm="decimal",
            root_epsilon=1e-9,
        )
        for bands, window in SCALES
    )


def magnitude(estimate: Tensor, wave: Tensor, mel: MelConfig) -> Tensor:
    """Distance of magnitudes from those of a recording: of their logarithms, spectral convergence, and of two mels.

    The mels count double: that of the convention, and one as fine of all frequencies up to half the sample rate.

    Parameters
    ----------
    estimate : Tensor, shape (B, fft_size // 2 + 1, T / hop), float32 or float64
    wave : Tensor, shape (B, T), same dtype
        T is a multiple of the hop.
    mel : MelConfig
        Logarithms of magnitudes, "same" padding.
    """
    constants: _Spectra = _spectra(mel, wave.device, wave.dtype)
    side = (mel.fft_size - mel.hop) // 2
    padded = F.pad(wave, (side, side), "reflect")
    spectrum = torch.stft(padded, mel.fft_size, mel.hop, window=constants.window, center=False, return_complex=True)
    target = spectrum.abs()
    convergence = torch.linalg.vector_norm(estimate - target) / torch.linalg.vector_norm(target)
    total: Tensor = convergence + _log_distance(estimate, target, mel.floor)
    for filters in constants.filters:
        total = total + 2 * _log_distance(filters @ estimate, filters @ target, mel.floor)
    return total


def _log_distance(x: Tensor, y: Tensor, floor: float) -> Tensor:
    return (x.clamp(min=floor).log() - y.clamp(min=floor).log()).abs().mean()


class _Spectra(NamedTuple):
    window: Tensor  # (fft_size,)
    filters: tuple[Tensor, Tensor]  # (bands, fft_size // 2 + 1), of the mel and of all frequencies


@lru_cache(maxsize=8)
def _spectra(mel: MelConfig, device: torch.device, dtype: torch.dtype) -> _Spectra:
    shown, whole = (
        torch.from_numpy(mel_filters(bank)).to(device, dtype) for bank in (mel, replace(mel, low=0, high=None))
    )
    return _Spectra(frame_window(mel, device, dtype), (shown, whole))


def _mean(x: Tensor) -> Tensor:
    """Average in single precision at least, without a copy of a map in half precision."""
    return x.mean(dtype=torch.promote_types(x.dtype, torch.float32))


def _combine(losses: Sequence[Tensor], across: Across) -> Tensor:
    reduce: Callable[[Tensor], Tensor] = torch.sum if across == "sum" else torch.mean
    return reduce(torch.stack(list(losses)))

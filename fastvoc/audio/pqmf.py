"""Pseudo-quadrature mirror filters: a wave as several bands of lower rate, and back.

Nguyen 1994, *Near-perfect-reconstruction pseudo-QMF banks*, with the windowed-sinc prototype of Lin and
Vaidyanathan 1998. The filters are not in the checkpoints of multi-band models: whoever loads one needs the
cutoff that it was trained with.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.audio.inputs import Signal, as_given, as_tensor, as_wave
from fastvoc.config import config
from fastvoc.constants import kept


@config
class PqmfConfig:
    """A filter bank; the defaults are those of ParallelWaveGAN since its version 0.4.3."""

    bands: int = Field(4, ge=2, le=64)
    """Number of bands, each at the sample rate divided by it."""

    taps: int = Field(62, ge=2, le=4096, multiple_of=2)
    """Order of the filters, which have one coefficient more; even."""

    cutoff: float = Field(0.142, gt=0, lt=1)
    """Cutoff of the prototype as a fraction of half the sample rate; models before version 0.4.3 have 0.15.

    Both are for four bands: each number of bands and taps has a best cutoff of its own.
    """

    beta: PositiveFloat = 9.0
    """Shape of the Kaiser window."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.taps // 2 < self.bands - 1:
            raise ValueError(f"taps {self.taps} are too few for {self.bands} bands; needs {2 * (self.bands - 1)}")
        return self

    @property
    def crop(self) -> tuple[int, int]:
        """Samples that the transposed convolution of the synthesis drops at its start and at its end."""
        return self.taps // 2, self.taps // 2 - (self.bands - 1)


FOUR_BANDS = PqmfConfig()
"""The bank of multi-band MelGAN (Yang 2020, arXiv 2005.05106)."""


@lru_cache(maxsize=16)
def analysis_filters(config: PqmfConfig = FOUR_BANDS) -> NDArray[np.float64]:
    """Return the filters of the analysis, shape (bands, taps + 1); those of the synthesis are their mirror image."""
    offset = np.arange(config.taps + 1) - config.taps / 2
    # sin(pi c n) / (pi n), which is c at the centre
    prototype = config.cutoff * np.sinc(config.cutoff * offset) * np.kaiser(config.taps + 1, config.beta)
    band = np.arange(config.bands)[:, None]
    angle = (2 * band + 1) * np.pi / (2 * config.bands) * offset + (-1.0) ** band * np.pi / 4
    return np.asarray(2 * prototype * np.cos(angle), dtype=np.float64)


def synthesis_weight(config: PqmfConfig = FOUR_BANDS, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the synthesis as the weight of one transposed convolution.

    Mirrored twice, by the synthesis and by the transposed convolution, the filters of the analysis come back.

    Returns
    -------
    Tensor, shape (bands, 1, taps + 1)
        For a transposed convolution with stride `config.bands` that drops `config.crop` samples at its ends.
    """
    return torch.from_numpy(config.bands * analysis_filters(config)).to(dtype).unsqueeze(1)


def pqmf_analysis(wave: Signal, config: PqmfConfig = FOUR_BANDS) -> Signal:
    """Split a wave into bands.

    Parameters
    ----------
    wave : Tensor or ndarray, shape (T,) or (B, T), floating point
        Samples; T is a multiple of the number of bands.
    config : PqmfConfig
        The filter bank.

    Returns
    -------
    Tensor or ndarray, as given, shape (bands, T / bands) or (B, bands, T / bands)
        The bands from low to high; every second one runs from high to low within itself.

    Raises
    ------
    TypeError
        If the wave is neither a tensor nor an array, or not floating point.
    ValueError
        If the wave has another shape, or a length that is not a multiple.
    """
    samples = as_wave(wave, "pqmf_analysis")
    if samples.ndim not in (1, 2):
        raise ValueError(f"pqmf_analysis: wave has shape {tuple(samples.shape)}; needs (samples,) or (batch, samples)")
    if samples.shape[-1] == 0 or samples.shape[-1] % config.bands:
        raise ValueError(f"pqmf_analysis: wave has {samples.shape[-1]} samples; needs a multiple of {config.bands}")
    weight = _analysis_weight(config, samples.device, samples.dtype)
    # One wave keeps its shape under a convolution whose channel is its only one: (1, T) -> (bands, T / bands).
    bands = F.conv1d(samples.unsqueeze(-2), weight, stride=config.bands, padding=config.taps // 2)
    return as_given(bands, wave)


@kept(16)
def _analysis_weight(config: PqmfConfig, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(analysis_filters(config)).to(device, dtype).unsqueeze(1)


def pqmf_synthesis(subbands: Signal, config: PqmfConfig = FOUR_BANDS) -> Signal:
    """Join bands into a wave.

    Parameters
    ----------
    subbands : Tensor or ndarray, shape (bands, T) or (B, bands, T), floating point
        The bands as `pqmf_analysis` returns them.
    config : PqmfConfig
        The filter bank.

    Returns
    -------
    Tensor or ndarray, as given, shape (T * bands,) or (B, T * bands)
        The wave; at a cutoff of 0.142 it differs from the one that was split by -64 dB, but for `taps` samples at
        either end, whose bands are cut off.

    Raises
    ------
    TypeError
        If the bands are neither a tensor nor an array, or not floating point.
    ValueError
        If there is another number of bands.
    """
    bands = as_tensor(subbands, "subbands", "pqmf_synthesis")
    if not bands.is_floating_point():
        raise TypeError(f"pqmf_synthesis: subbands are {bands.dtype}; they must be floating point")
    if bands.ndim not in (2, 3) or bands.shape[-2] != config.bands:
        raise ValueError(
            f"pqmf_synthesis: subbands have shape {tuple(bands.shape)}; needs ({config.bands}, samples) "
            f"or (batch, {config.bands}, samples)"
        )
    left, right = config.crop
    weight = synthesis_weight(config, bands.dtype).to(bands.device)
    wave = F.conv_transpose1d(bands, weight, stride=config.bands, padding=left, output_padding=left - right)
    return as_given(wave.squeeze(-2), subbands)

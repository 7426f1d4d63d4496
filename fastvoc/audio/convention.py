"""Mel conventions: every choice between a wave and the mel spectrogram that a network was trained on.

No two projects agree on all of them, and a vocoder that is fed another project's mel answers with noise, so
the convention is a value that is stored with the weights.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.config import config


@config
class Normalization:
    """What some projects do to a log-mel afterwards: ``(x - mean) / scale``, then a clip."""

    mean: float | tuple[float, ...] = 0.0
    """Subtracted from the log-mel, in its units: one number, or one for each band."""

    scale: float | tuple[float, ...] = 1.0
    """Divides the difference: one number, or one for each band."""

    clip: tuple[float, float] | None = None
    """Lowest and highest value that is kept, after the division; None keeps all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(math.isfinite(scale) and scale != 0 for scale in scales):
            raise ValueError("scale holds a zero or a value that is not finite; every band needs one to divide by")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {self.clip} is empty; the first value is the lower one")
        return self


@config
class MelConfig:
    """How a wave becomes a mel spectrogram; what has a default is what most projects do."""

    sample_rate: PositiveInt
    """Samples per second of the wave, in Hz."""

    fft_size: int = Field(ge=2)
    """Length of the Fourier transform, in samples."""

    hop: PositiveInt
    """Distance between the starts of two frames, in samples."""

    window_size: PositiveInt
    """Length of the Hann window, in samples; a shorter one than the transform stands at its centre."""

    bands: PositiveInt
    """Number of mel bands."""

    low: float = Field(ge=0)
    """Lower edge of the lowest band, in Hz."""

    high: PositiveFloat | None
    """Upper edge of the highest band, in Hz; None is half the sample rate."""

    scale: Literal["slaney", "htk"] = "slaney"
    """Mel scale: Slaney's (linear below 1 kHz) or the formula of HTK."""

    area_normalized: bool = True
    """Whether each triangle has unit area over Hz (Slaney), not a peak of 1."""

    straight_in: Literal["hertz", "mel"] = "hertz"
    """Axis on which the sides of the triangles are straight lines: Hz (librosa) or mel (TensorFlow)."""

    window: Literal["periodic", "symmetric"] = "periodic"
    """Kind of Hann window."""

    padding: Literal["centre", "same", "end"] = "same"
    """What is padded: half a transform on both sides, ``(fft_size - hop) / 2`` on both sides, or the end only."""

    padding_mode: Literal["reflect", "zero"] = "reflect"
    """What the padding consists of: the mirrored wave, or zeros."""

    power: Literal[1, 2] = 1
    """Exponent of the spectrum's magnitude under the filter bank."""

    root_epsilon: float = Field(0.0, ge=0)
    """Added to the squared magnitude before the root is taken."""

    root_floor: float = Field(0.0, ge=0)
    """Smallest squared magnitude before the root is taken."""

    logarithm: Literal["natural", "decimal"] = "natural"
    """Base of the logarithm."""

    gain: PositiveFloat = 1.0
    """Factor of the logarithm: 20 makes decibels of a magnitude."""

    floor: PositiveFloat = 1e-5
    """Smallest mel value under the logarithm, before it."""

    floor_mode: Literal["clamp", "add"] = "clamp"
    """Whether smaller values are raised to the floor, or the floor is added to all."""

    dynamic_range: PositiveFloat | None = None
    """Values further than this below the largest value of the whole batch are raised, in units of the log-mel."""

    last_frame: float | None = None
    """Value that overwrites the last frame: NeMo counts one frame less than it computes."""

    normalization: Normalization = Normalization()
    """What follows the logarithm."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window_size > self.fft_size:
            raise ValueError(f"window_size {self.window_size} exceeds fft_size {self.fft_size}; make it at most that")
        if self.padding == "same" and self.hop > self.fft_size:
            raise ValueError(f"hop {self.hop} exceeds fft_size {self.fft_size}; padding 'same' needs it at most that")
        if self.padding == "end" and self.padding_mode != "zero":
            raise ValueError("padding 'end' with mode 'reflect' is nowhere in use; its padding_mode is 'zero'")
        if not self.low < self.highest <= self.sample_rate / 2:
            raise ValueError(
                f"bands from {self.low} to {self.high} Hz do not fit under half of sample_rate {self.sample_rate} Hz"
            )
        for name in ("mean", "scale"):
            values = getattr(self.normalization, name)
            if isinstance(values, tuple) and len(values) != self.bands:
                raise ValueError(f"normalization.{name} has {len(values)} values for {self.bands} bands; give one each")
        return self

    @property
    def highest(self) -> float:
        """Upper edge of the highest band, in Hz."""
        return self.sample_rate / 2 if self.high is None else self.high

    def frames(self, samples: int) -> int:
        """Return the number of frames that a wave of this many samples has; 0 where it is too short for one."""
        if self.padding == "end":
            return -(-samples // self.hop)
        side = self.fft_size // 2 if self.padding == "centre" else (self.fft_size - self.hop) // 2
        return max(0, 1 + (samples + 2 * side - self.fft_size) // self.hop)

    def plausible_range(self) -> tuple[float, float]:
        """Return the values that a mel of this convention lies between: of silence, and of a full-scale sine.

        With a `dynamic_range`, the lower value is that of a batch whose loudest sound is one step of 16 bits.
        """
        return _plausible_range(self)

    def describe(self) -> str:
        """Return one line for messages and reports."""
        name = "natural log" if self.logarithm == "natural" else "log10"
        gain = "" if self.gain == 1 else f"{self.gain:g} x "
        spectrum = "magnitude" if self.power == 1 else "power"
        normalized = ", normalized" if self.normalization != Normalization() else ""
        return (
            f"{self.bands} bands, {self.low:g}-{self.highest:g} Hz, {gain}{name} of {spectrum}{normalized}, "
            f"hop {self.hop} at {self.sample_rate} Hz"
        )

    def suspicion(self, mel: Tensor) -> str | None:
        """Say why a mel is hardly one of this convention, or None where nothing speaks against it.

        Parameters
        ----------
        mel : Tensor, shape (bands, frames) or (B, bands, frames)
            What is about to be fed to a network of this convention.

        Returns
        -------
        str or None
            One sentence for a warning: a mel may be unusual and right.
        """
        from fastvoc.audio.suspicion import suspicion  # which knows the conventions of others, made of this class

        return suspicion(mel, self)

    def _logarithm(self, value: float) -> float:
        return self.gain * (math.log(value) if self.logarithm == "natural" else math.log10(value))


def mel_of_hertz(hertz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Map frequencies to mel: Slaney 1998, *Auditory Toolbox*, or the HTK book, § 5.6.

    librosa has the mel scales too, but takes a second to load, which a vocoder that only makes sound need not wait for.
    """
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / _STEP
    return np.where(hertz < 1000, 3 * hertz / 200, above)


def hertz_of_mel(mel: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Map mel to frequencies, the inverse of `mel_of_hertz`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(_STEP * (mel - 15)))


_STEP = math.log(6.4) / 27
"""Slaney's scale has 200/3 Hz per mel up to 1000 Hz, and from there 27 mel per factor of 6.4."""


def band_edges(config: MelConfig) -> NDArray[np.float64]:
    """Return where bands begin, peak and end: (bands + 2,) frequencies in Hz, equally far in mel."""
    low, high = mel_of_hertz(np.array([config.low, config.highest]), config.scale)
    return hertz_of_mel(np.linspace(low, high, config.bands + 2), config.scale)


@lru_cache(maxsize=64)
def _plausible_range(config: MelConfig) -> tuple[float, float]:
    edges = band_edges(config)
    peak = 2 / np.min(edges[2:] - edges[:-2]) if config.area_normalized else 1.0
    # A Hann window spreads a sine over three bins of its own length, in the ratio 1 : 2 : 1.
    spread = (2.0 if config.power == 1 else 1.5) * config.fft_size / config.window_size
    sine = peak * spread * (config.window_size / 4) ** config.power
    low, high = config._logarithm(config.floor), config._logarithm(sine)
    if config.dynamic_range is not None:
        low = config._logarithm(sine * 2.0 ** (-15 * config.power)) - config.dynamic_range
    if config.last_frame is not None:
        low = min(low, config.last_frame)
    mean, scale = np.asarray(config.normalization.mean), np.asarray(config.normalization.scale)
    ends = np.stack([(low - mean) / scale, (high - mean) / scale])
    if config.normalization.clip is not None:
        ends = np.clip(ends, *config.normalization.clip)
    return float(ends.min()), float(ends.max())

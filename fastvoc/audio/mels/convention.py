"""Conventions: every choice between a wave and what a network was trained on, which is a mel spectrogram or features.

No two projects agree on all of them, and a vocoder that is fed another project's mel answers with noise, so
the convention is a value that is stored with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, PositiveFloat, TypeAdapter, model_validator
from typing_extensions import Self

from fastvoc.audio.mels.scale import hertz_of_mel, mel_of_hertz
from fastvoc.config import config, to_dict


@config
class Normalization:
    """What some projects do to a log-mel afterwards: ``(x - mean) / scale``, then a clip."""

    mean: float | tuple[float, ...] = 0.0
    """Subtracted from the log-mel, in its units: one number, or one for each band."""

    scale: float | tuple[float, ...] = 1.0
    """Divides the difference: one number, or one for each band."""

    clip: tuple[float, float] | None = None
    """Lowest and highest value that is kept, after the division; None keeps all."""

    unknown: bool = False
    """Whether mean and scale are those of a training that nothing says any more: a mel that is standardised already is
    of this convention, and none can be computed or converted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(math.isfinite(scale) and scale != 0 for scale in scales):
            raise ValueError("scale holds a zero or a value that is not finite; every band needs one to divide by")
        if self.clip is not None and self.clip[0] >= self.clip[1]:
            raise ValueError(f"clip {self.clip} is empty; the first value is the lower one")
        if self.unknown and (self.mean, self.scale, self.clip) != (0.0, 1.0, None):
            raise ValueError("mean, scale or clip is given, but unknown is true; leave out one of them")
        return self


@config
class MelConfig:
    """How a wave becomes a mel spectrogram; what has a default is what most projects do."""

    sample_rate: int = Field(gt=0, le=1 << 20)
    """Samples per second of the wave, in Hz."""

    fft_size: int = Field(ge=2, le=1 << 20)
    """Length of the Fourier transform, in samples."""

    hop: int = Field(gt=0, le=1 << 20)
    """Distance between the starts of two frames, in samples."""

    window_size: int = Field(gt=0)
    """Length of the window, in samples; a shorter one than the transform stands at its centre."""

    bands: int = Field(gt=0, le=8192)
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

    window: Literal["periodic", "symmetric", "sine"] = "periodic"
    """Kind of Hann window, or the root of one: ``sin(π (n + ½) / window_size)``."""

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

    @property
    def band_edges(self) -> NDArray[np.float64]:
        """Where bands begin, peak and end: (bands + 2,) frequencies in Hz, equally far in mel."""
        low, high = mel_of_hertz(np.array([self.low, self.highest]), self.scale)
        return hertz_of_mel(np.linspace(low, high, self.bands + 2), self.scale)

    def describe(self) -> str:
        """Return one line for messages and reports."""
        name = "natural log" if self.logarithm == "natural" else "log10"
        gain = "" if self.gain == 1 else f"{self.gain:g} x "
        spectrum = "magnitude" if self.power == 1 else "power"
        normalized = ", normalized" if self.normalization != Normalization() else ""
        if self.normalization.unknown:
            normalized = ", standardised by statistics that are not known"
        return (
            f"{self.bands} bands, {self.low:g}-{self.highest:g} Hz, {gain}{name} of {spectrum}{normalized}, "
            f"hop {self.hop} at {self.sample_rate} Hz"
        )


@config
class FeatureConfig:
    """What a network takes that is no mel: latents, linguistic features or whatever else another network makes.

    There is no way to it from a wave, no other convention that it could be converted from, and nothing that its values
    could be compared with, so that only their number is checked, and that they are finite.
    """

    kind: Literal["features"] = "features"
    """Which tells it from a mel in files."""

    sample_rate: int = Field(gt=0, le=1 << 20)
    """Samples per second of the wave, in Hz."""

    hop: int = Field(gt=0, le=1 << 20)
    """Samples per frame."""

    bands: int = Field(gt=0, le=65536)
    """Numbers in a frame."""

    meaning: str = Field("features", min_length=1, max_length=200)
    """What they are, for messages."""

    def describe(self) -> str:
        """Return one line for messages and reports."""
        return f"{self.meaning} of width {self.bands}, hop {self.hop} at {self.sample_rate} Hz"


def _read_convention(value: Any) -> MelConfig | FeatureConfig:
    if isinstance(value, MelConfig | FeatureConfig):
        return value
    features = isinstance(value, Mapping) and value.get("kind") == "features"
    read: MelConfig | FeatureConfig = TypeAdapter(FeatureConfig if features else MelConfig).validate_python(value)
    return read


Convention = Annotated[MelConfig | FeatureConfig, PlainValidator(_read_convention), PlainSerializer(to_dict)]
"""Either of them, as a field of settings."""


def as_mel_config(convention: MelConfig | FeatureConfig, where: str) -> MelConfig:
    """Return a convention, or raise one sentence where it is not one of mels.

    Parameters
    ----------
    convention : MelConfig or FeatureConfig
    where : str
        What the sentence begins with: who needs mels.
    """
    if isinstance(convention, MelConfig):
        return convention
    raise ValueError(f"{where}: this vocoder takes {convention.describe()}, for which there are no mels")

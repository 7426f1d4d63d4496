"""What a network is on disk: its settings, with the mel convention that a vocoder was trained on, and its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio.instantaneous_frequency import HIGH, NoteSpectrum, Second
from fastvoc.audio.mels.convention import Convention, MelConfig
from fastvoc.config import config, to_dict
from fastvoc.models import (
    AUTOENCODERS,
    AutoencoderNetwork,
    CodeDecoderNetwork,
    GeneratorConfig,
    GeneratorSettings,
    InstrumentNetwork,
)
from fastvoc.ops.network import Quantization

FORMAT_NUMBER: Literal[1] = 1
"""The newest native format that this version reads, and the one that it writes."""

_LARGEST, _LONGEST = 65536, 256
"""Largest number and longest list that a generator's settings may hold where its own fields allow more."""

_LONGEST_NOTE, _LARGEST_PICTURE = 1 << 22, 1 << 23
"""Samples, and pixels of a picture of them, of which two belong to a sample where four windows overlap."""


@config
class InferenceFrames:
    """What the original's inference code puts around a mel before the network, where it does so.

    The network itself is unchanged: these frames give it a past at the first frame and a future at the last, as it
    had in training, where segments were cut out of speech.
    """

    replicated_frames: int = Field(0, ge=0, le=1024)
    """Frames that are added at each end, equal to the first and to the last: 5 in SpeechBrain's and Coqui's HiFi-GAN,
    2 in Coqui's MelGAN."""

    appended_frames: int = Field(0, ge=0, le=1024)
    """Frames of `appended_value` that are added at the end: 10 in seungwonpark/melgan."""

    appended_value: float = 0.0
    """What every band of the appended frames holds, in the units of the mel; ln 1e-5 there, which is silence."""

    trimmed: bool = False
    """Whether the original cuts the samples of the added frames off again. SpeechBrain and Coqui do not, so that their
    waves are longer than the mel; seungwonpark does."""

    def extend(self, mel: Tensor) -> Tensor:
        """Add the frames: (…, bands, T) → (…, bands, replicated + T + replicated + appended)."""
        first, last = mel[..., :1], mel[..., -1:]
        silence = mel.new_full((*mel.shape[:-1], self.appended_frames), self.appended_value)
        added = [first] * self.replicated_frames, [last] * self.replicated_frames
        return torch.cat([*added[0], mel, *added[1], silence], dim=-1)

    def cut(self, wave: Tensor, hop: int) -> Tensor:
        """Keep the samples of the mel that was extended: (…, (T + added)·hop) → (…, T·hop)."""
        first = self.replicated_frames * hop
        last = wave.shape[-1] - (self.replicated_frames + self.appended_frames) * hop
        return wave[..., first:last]


@config
class Int8Layer:
    """A layer that multiplies in 8 bits, on processors that do so: the numbers that its input is rounded to."""

    layer: int = Field(ge=0, lt=512)
    """Its number, in the order in which they run, from the stem."""

    scale: float = Field(gt=1e-30, lt=1e30)
    """Distance of two neighbouring numbers, in the units of the input behind the leaky ReLU."""

    zero_point: int = Field(ge=0, le=255)
    """Which of the 256 numbers is 0."""


def int8_layers(chosen: Mapping[int, Quantization]) -> tuple[Int8Layer, ...]:
    """Write layers that were chosen to multiply in 8 bits as settings."""
    return tuple(Int8Layer(layer=n, scale=step.scale, zero_point=step.zero_point) for n, step in chosen.items())


def chosen_layers(int8: Iterable[Int8Layer]) -> dict[int, Quantization]:
    """Return what was written so."""
    return {layer.layer: Quantization(layer.scale, layer.zero_point) for layer in int8}


@config
class VocoderConfig:
    """Everything about a vocoder but its weights."""

    format: Literal[1] = FORMAT_NUMBER
    """Number of the native format."""

    generator: GeneratorConfig
    """The network."""

    mel: Convention
    """How the mel spectrograms that it was trained on were made, or that it takes features instead."""

    wave_rate: int | None = Field(None, gt=0, le=1 << 20)
    """Samples per second of the waves that are made, in Hz, where it is another than that of the waves whose mels were
    taken: GPT-SoVITS v4 makes 48 kHz of mels of 32 kHz. By default it is the mel's."""

    inference: InferenceFrames = InferenceFrames()
    """What the original's inference code does around the network; nothing by default."""

    int8: tuple[Int8Layer, ...] = ()
    """Layers that multiply in 8 bits; the others then multiply in bfloat16. None by default; `Vocoder.quantise` chooses
    them."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _refuse_absurd(to_dict(self.generator), "generator")
        if self.mel.bands != self.generator.mel_bands:
            raise ValueError(
                f"the mel has {self.mel.bands} bands but the generator takes {self.generator.mel_bands}; "
                "both must be the same"
            )
        if self.wave_rate is None and self.mel.hop != self.generator.hop:
            raise ValueError(
                f"the mel has a frame every {self.mel.hop} samples but the generator makes {self.generator.hop} "
                "of each; both must be the same"
            )
        if self.wave_rate is not None and self.mel.hop * self.wave_rate != self.generator.hop * self.mel.sample_rate:
            raise ValueError(
                f"the mel has a frame every {self.mel.hop} samples of {self.mel.sample_rate} Hz but the generator "
                f"makes {self.generator.hop} of {self.wave_rate} Hz of each; both must last equally long"
            )
        return self

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves that are made, in Hz."""
        return self.mel.sample_rate if self.wave_rate is None else self.wave_rate


@config
class AutoencoderConfig:
    """Everything about an autoencoder but its weights."""

    format: Literal[1] = FORMAT_NUMBER
    """Number of the native format."""

    generator: AutoencoderNetwork
    """Both networks."""

    sample_rate: int = Field(16000, gt=0, le=1 << 20)
    """Samples per second of the waves that it was trained on, in Hz."""

    int8: tuple[Int8Layer, ...] = ()
    """Convolutions of the decoder that multiply in 8 bits; the others then multiply in bfloat16. None by default;
    `Autoencoder.quantise` chooses them."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _refuse_absurd(to_dict(self.generator), "generator")
        return self


@config
class InstrumentConfig:
    """Everything about an instrument but its weights."""

    format: Literal[1] = FORMAT_NUMBER
    """Number of the native format."""

    generator: InstrumentNetwork
    """The network, which makes pictures of notes."""

    spectrum: NoteSpectrum = HIGH
    """What the pictures are of."""

    mel: bool = True
    """Whether their bins are mel bands."""

    second: Second = "frequency"
    """What their second layer holds: instantaneous frequency, or phase."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _refuse_absurd(to_dict(self.generator), "generator")
        made = (self.generator.frames, self.generator.bins)
        expected = (self.spectrum.frames, self.spectrum.bins)
        if made != expected:
            raise ValueError(
                f"the generator makes pictures of {made[0]} frames and {made[1]} bins but the spectrum has "
                f"{expected[0]} and {expected[1]}; both must be the same"
            )
        _refuse_absurd(to_dict(self.spectrum) | {"samples": 0}, "spectrum")
        if self.spectrum.samples > _LONGEST_NOTE:
            raise ValueError(f"a note of {self.spectrum.samples} samples; no instrument has more than {_LONGEST_NOTE}")
        if math.prod(made) > _LARGEST_PICTURE:
            raise ValueError(
                f"a picture of {made[0]} x {made[1]}; no instrument has more than {_LARGEST_PICTURE} pixels"
            )
        return self


@config
class CodeDecoderConfig:
    """Everything about a decoder of codes but its weights."""

    format: Literal[1] = FORMAT_NUMBER
    """Number of the native format."""

    generator: CodeDecoderNetwork
    """The codebooks and the network."""

    sample_rate: int = Field(24000, gt=0, le=1 << 20)
    """Samples per second of the waves, in Hz."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _refuse_absurd(to_dict(self.generator), "generator")
        return self


def settings_of_run(generator: GeneratorSettings, mel: MelConfig) -> VocoderConfig | AutoencoderConfig:
    """Return the settings that a run saves with its weights.

    Parameters
    ----------
    generator : GeneratorSettings
        Of what is trained.
    mel : MelConfig
        What a vocoder is fed; of an autoencoder what its sound is judged by, with a frame for each of its codes.

    Raises
    ------
    ValueError
        If they do not fit each other.
    """
    if generator.kind not in AUTOENCODERS:
        return VocoderConfig(generator=generator, mel=mel)
    if mel.hop != generator.hop:
        raise ValueError(
            f"the mel, which an autoencoder is judged by, has a frame every {mel.hop} samples but a code is of "
            f"{generator.hop}; both must be the same"
        )
    return AutoencoderConfig(generator=generator, sample_rate=mel.sample_rate)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint of any format.

    Attributes
    ----------
    config : VocoderConfig, or the settings of another face
    weights : dict of str to Tensor
        What the generator's `load_state_dict` takes: weight norm folded, on the CPU, in the dtype of the file.
    source : str
        The format that it came from, in one line.
    notes : tuple of str
        What a reader of the original should know: assumptions made, settings ignored, peculiarities of the original.
    owned : bool
        Whether nobody else holds the weights, so that a network may take them for its own instead of copying them.
    """

    config: Any
    weights: dict[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()
    owned: bool = False


def _refuse_absurd(value: Any, name: str) -> None:
    """Raise where building the network would exhaust the machine before anything else could be wrong."""
    if isinstance(value, dict):
        for inner, content in value.items():
            _refuse_absurd(content, inner)
    elif isinstance(value, list | tuple):
        if len(value) > _LONGEST:
            raise ValueError(f"{name} lists {len(value)} values; no vocoder has more than {_LONGEST}")
        for content in value:
            _refuse_absurd(content, name)
    elif isinstance(value, int) and value > _LARGEST:
        raise ValueError(f"{name} is {value}; no vocoder has more than {_LARGEST}")

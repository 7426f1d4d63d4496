"""What a vocoder is on disk: a generator, the mel convention that it was trained on, and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig
from fastvoc.config import config, to_dict
from fastvoc.models import GeneratorConfig

FORMAT: Literal[1] = 1
"""The newest native format that this version reads, and the one that it writes."""

_MOST = {"bands": 64, "taps": 4096, "units": 16, "mel_bands": 8192, "iterations": 1024, "revisions": 1024}
"""Largest numbers that a generator's settings may hold, by name; far beyond any that was published."""

_LARGEST, _LONGEST = 65536, 16
"""Largest number under any other name, and longest list."""


@config
class InferenceHabit:
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


@config
class VocoderConfig:
    """Everything about a vocoder but its weights."""

    format: Literal[1] = FORMAT
    """Number of the native format."""

    generator: GeneratorConfig
    """The network."""

    mel: MelConfig
    """How the mel spectrograms that it was trained on were made."""

    inference: InferenceHabit = InferenceHabit()
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
        if self.mel.hop != self.generator.hop:
            raise ValueError(
                f"the mel has a frame every {self.mel.hop} samples but the generator makes {self.generator.hop} "
                "of each; both must be the same"
            )
        return self


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint of any format.

    Attributes
    ----------
    config : VocoderConfig
    weights : dict of str to Tensor
        What the generator's `load_state_dict` takes: weight norm folded, on the CPU, in the dtype of the file.
    source : str
        The format that it came from, in one line.
    notes : tuple of str
        What a reader of the original should know: assumptions made, settings ignored, habits of the original.
    """

    config: VocoderConfig
    weights: dict[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()


def _refuse_absurd(value: Any, name: str) -> None:
    """Raise where building the network would exhaust the machine before anything else could be wrong."""
    if isinstance(value, dict):
        for inner, content in value.items():
            _refuse_absurd(content, inner)
    elif isinstance(value, list | tuple):
        if not 0 < len(value) <= _LONGEST:
            raise ValueError(f"{name} lists {len(value)} values; every vocoder has between 1 and {_LONGEST}")
        for content in value:
            _refuse_absurd(content, name)
    elif isinstance(value, int) and value > _MOST.get(name, _LARGEST):
        raise ValueError(f"{name} is {value}; no vocoder has more than {_MOST.get(name, _LARGEST)}")

"""What a vocoder is on disk: a generator, the mel convention that it was trained on, and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig
from fastvoc.config import config
from fastvoc.models import GeneratorConfig

FORMAT: Literal[1] = 1
"""The newest native format that this version reads, and the one that it writes."""


@config
class VocoderConfig:
    """Everything about a vocoder but its weights."""

    format: Literal[1] = FORMAT
    """Number of the native format."""

    generator: GeneratorConfig
    """The network."""

    mel: MelConfig
    """How the mel spectrograms that it was trained on were made."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
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
        What a reader of the original should know: assumptions made, settings ignored, habits of the original
        inference code that are not reproduced.
    """

    config: VocoderConfig
    weights: dict[str, Tensor]
    source: str
    notes: tuple[str, ...] = ()

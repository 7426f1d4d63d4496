"""What a run learns from, as values."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator
from typing_extensions import Self

from fastvoc.checkpoints import settings_of_run
from fastvoc.config import config
from fastvoc.models import AUTOENCODERS, INSTRUMENTS
from fastvoc.train.data.kinds import DATA

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig


def _name(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _names(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        value = (value,)
    return tuple(map(_name, value)) if isinstance(value, Iterable) else value


Name = Annotated[str, BeforeValidator(_name)]
"""Of a folder or file; in Python also a Path."""

Sources = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""One or several folders, globs, lists or sound files; a single one may stand without brackets."""


@DATA.add
@config
class DataConfig:
    """What a run learns from, and what is done to it before the first network sees it."""

    kind: Literal["recordings"] = "recordings"

    recordings: Sources
    """To train on: folders (with all below), globs, sound files, lists (`path` or `id|text` lines), Kaldi wav.scp,
    JSON-lines manifests."""

    weights: tuple[PositiveFloat, ...] = ()
    """How many segments of a recording an epoch draws, for each source of `recordings` in turn: of two folders, 1 and
    0.25 draw from a quarter of the second one's recordings, in each epoch from others. Empty is 1 for all."""

    root: Name | None = None
    """Folder that relative paths in lists start from; None is the folder of each list."""

    held_out: int = Field(4, ge=0)
    """Recordings taken out of `recordings`, evenly over their order, to validate on; only where `validation` is
    empty."""

    validation: Sources = ()
    """To validate on, of voices that are also trained on; never trained on themselves."""

    unseen: Sources = ()
    """To validate on, of voices that are not trained on; never trained on themselves."""

    validation_clips: PositiveInt = 8
    """Most recordings of each validation set that are used; of more, that many are taken evenly over their order."""

    trim: PositiveFloat | None = None
    """Silence at both ends that is this far under the loudest frame is cut, in dB; None keeps it."""

    peak: float | None = Field(None, gt=0, le=1)
    """Largest magnitude that each recording is scaled to before `gain`; None keeps its level."""

    gain: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest level of a segment, in dB; drawn uniformly."""

    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field((1.0,), min_length=1)
    """Speeds that segments are played at, pitch included, as if other people had spoken; drawn uniformly, so that one
    that is named twice is drawn twice as often."""

    smoothing: int = Field(0, ge=0, le=16)
    """Most bands and frames on either side that the mel of a segment is smoothed over, as if a text-to-speech model
    had predicted it; drawn uniformly from 0 on, for bands and frames apart. Only the generator hears of it."""

    polarity: bool = False
    """Whether half of the segments are turned upside down, which no ear notices."""

    short: Literal["skip", "pad"] = "skip"
    """What happens to recordings that are shorter than a segment: left out, or followed by silence."""

    mels: Name | None = None
    """Folder of mels of another network, one `name.npy` of shape (bands, frames) for each recording `name.*`, to
    fine-tune on, in folders like theirs where names are equal; a manifest's `mel_filepath` comes first. None computes
    mels from the recordings."""

    mel_tolerance: int = Field(3, ge=0)
    """Frames that a mel of `mels` may be longer or shorter than its recording, which is then padded or cut."""

    workers: int = Field(2, ge=0, le=256)
    """Processes that read ahead; 0 reads in the training process itself. Has no influence on the samples.
    At most 256: each is a process of the whole package."""

    cache: float = Field(1.0, ge=0)
    """Decoded recordings that are kept in memory, in GB, all workers of a process together; 0 keeps none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.recordings:
            raise ValueError("recordings is empty; name a folder, a glob, a list or a sound file")
        named = [*self.recordings, *self.validation, *self.unseen, self.root, self.mels]
        if any(name is not None and not name.strip() for name in named):
            raise ValueError('"" names no folder; the one that a process is in is "."')  # a shell's unset variable
        if self.gain[0] > self.gain[1]:
            raise ValueError(f"gain {self.gain} is empty; the first value is the lower one")
        if self.weights and len(self.weights) != len(self.recordings):
            raise ValueError(
                f"weights are {len(self.weights)}, but recordings names {len(self.recordings)} sources; give each one"
            )
        if self.mels is None:
            return self
        if self.smoothing:
            raise ValueError(f"smoothing is of mels of recordings, and those of {self.mels!r} are smooth; leave it out")
        changed = [name for name in ("trim", "peak") if getattr(self, name) is not None]
        changed += ["gain"] * (self.gain != (0.0, 0.0)) + ["speeds"] * (self.speeds != (1.0,))
        changed += ["short"] * (self.short == "pad")
        if changed:
            raise ValueError(
                f"{', '.join(changed)} would change the recordings and not the mels of {self.mels!r}; leave out either"
            )
        return self

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if a run of recordings has no mel, or another one than its network takes."""
        if run.generator.kind in INSTRUMENTS:
            raise ValueError(
                f"generator {run.generator.kind} learns from notes, not from recordings (data.kind: notes)"
            )
        if self.smoothing and run.generator.kind in AUTOENCODERS:
            raise ValueError(f"data.smoothing: generator {run.generator.kind} is fed waves, not mels; leave it out")
        mel = run.convention
        settings_of_run(run.generator, mel)
        if run.segment % mel.hop:
            lower = max(1, run.segment // mel.hop) * mel.hop
            raise ValueError(f"segment {run.segment} is not a multiple of the hop {mel.hop}; such as {lower}")
        if run.loss_mel is not None and run.loss_mel.sample_rate != mel.sample_rate:
            raise ValueError(
                f"loss_mel is of {run.loss_mel.sample_rate} Hz and mel of {mel.sample_rate} Hz, but both are of "
                f"the same wave; set loss_mel.sample_rate={mel.sample_rate}, or loss_mel=null for the convention "
                "of mel"
            )
        if mel.normalization.unknown and self.mels is None:
            raise ValueError(
                "mel.normalization is not known, so no mel of a recording can be computed; name another convention, or "
                "the folder of mels of another network (data.mels)"
            )
        check_mel = getattr(run.generator, "check_mel", None)  # of a network that takes some conventions only
        if check_mel is not None:
            check_mel(mel)

"""Mels as a vocoder takes them, whole or in chunks: checked, converted, and judged by what has come so far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.inputs import Lengths, as_tensor, read_lengths
from fastvoc.audio.mels.convention import FeatureConfig, MelConfig
from fastvoc.audio.mels.convert import convert_mel, find_convention, why_not
from fastvoc.audio.mels.inputs import check_mel
from fastvoc.audio.mels.plausibility import LONG_ENOUGH, look, suspicion


class Reading(NamedTuple):
    """Mels as the network takes them, and what waits to be said of their values."""

    mels: list[Tensor]
    """(bands, T) each of a padded batch, or what was given, in the network's convention."""
    judge: Callable[[], None]
    """Looks at the values, or waits for the looks that have begun, and warns or raises; called once."""


def read_mels(
    mel: Tensor,
    config: MelConfig | FeatureConfig,
    convention: MelConfig | str | None,
    lengths: Lengths | None,
    *,
    check: bool = True,
    later: bool = False,
) -> Reading:
    """Read a mel or a padded batch of them: type and shape are looked at, and values once that is asked for.

    Parameters
    ----------
    mel : Tensor, shape (bands, T) or (B, bands, T)
    config : MelConfig or FeatureConfig
        The convention that the network was trained on.
    convention : MelConfig or str, optional
        What the mel is instead, or its name.
    lengths : sequence of int, Tensor or ndarray of integers, shape (B,), optional
        Frames of each mel of a padded batch; without them, the mel is returned as the only one.
    check : bool
        Whether to look at the values.
    later : bool
        Whether a network is launched before anybody asks for the judgement: the looks are launched now, then, so that
        they run before it, in one pass over all mels.
    """
    source = _source(config, convention)
    check_mel(mel, config, finite=False)
    mels, counts = [mel], None
    if lengths is not None:
        counts = read_lengths(lengths, mel.shape)
        mels = [row[:, :count] for row, count in zip(mel, counts, strict=True)]
    judge: Callable[[], None] = _nothing
    if check:
        clear = _look(mel, counts, source) if later or counts is not None else None
        judge = partial(_judge, mels, config, source, clear)
    return Reading([_converted(item, source, config) for item in mels], judge)


def _nothing() -> None:
    pass


def _judge(
    mels: list[Tensor],
    config: MelConfig | FeatureConfig,
    source: MelConfig | FeatureConfig,
    clear: Callable[[], bool | list[bool]] | None,
) -> None:
    """Warn of mels that are hardly of a convention, and refuse what is not finite, but for what is clear."""
    known = False if clear is None else clear()
    each = [known] * len(mels) if isinstance(known, bool) else known
    doubtful = [item for item, one in zip(mels, each, strict=True) if not one]
    for item in doubtful:
        check_mel(item, config)
    suspicions = (_suspicion(item, source) for item in doubtful if item.numel())
    if suspected := next(filter(None, suspicions), None):
        warnings.warn(f"Vocoder: {suspected}", stacklevel=4)


def _source(config: MelConfig | FeatureConfig, convention: MelConfig | str | None) -> MelConfig | FeatureConfig:
    """Return the convention that a mel is in, or raise where it does not convert exactly."""
    if convention is None:
        return config
    source = find_convention(convention)
    reason = f"this vocoder takes {config.describe()}" if isinstance(config, FeatureConfig) else why_not(source, config)
    if reason:
        raise ValueError(f"Vocoder: a mel of this convention cannot be converted exactly: {reason}")
    return source


def _converted(mel: Tensor, source: MelConfig | FeatureConfig, target: MelConfig | FeatureConfig) -> Tensor:
    """Convert a mel that `_source` has allowed; features are what they are."""
    if source is target or isinstance(source, FeatureConfig) or isinstance(target, FeatureConfig):
        return mel
    return convert_mel(mel, source, target)


def _suspicion(mel: Tensor, source: MelConfig | FeatureConfig) -> str | None:
    """Say why a mel is hardly one of its convention, or None; of features, nothing is known that could tell."""
    return None if isinstance(source, FeatureConfig) else suspicion(mel, source)


def _look(
    mel: Tensor, lengths: Sequence[int] | None, source: MelConfig | FeatureConfig
) -> Callable[[], bool | list[bool]]:
    """Begin to tell which of the mels of a padded batch need not be looked at alone, or whether all that was given."""
    batch = mel if mel.ndim == 3 else mel[None]
    if isinstance(source, FeatureConfig):
        return lambda: False
    if lengths is not None:
        return look(batch, lengths, source)
    each = look(batch, [batch.shape[-1]] * len(batch), source)
    return lambda: all(each())


class ChunkReader:
    """Read chunks of a mel; if they look like another convention's, warn of it once.

    Parameters
    ----------
    config : MelConfig or FeatureConfig
        The convention that the network was trained on.
    convention : MelConfig or str, optional
        What the chunks are instead, or its name.

    Raises
    ------
    ValueError
        If a mel of that convention cannot be converted exactly, or not chunk by chunk.
    """

    def __init__(self, config: MelConfig | FeatureConfig, convention: MelConfig | str | None = None) -> None:
        self.config = config
        self.source = _source(config, convention)
        if (
            isinstance(config, MelConfig)
            and self.source != config
            and not config.dynamic_range is config.last_frame is None
        ):
            raise ValueError(
                "Vocoder: chunks cannot be converted to this vocoder's convention, whose values depend on the whole "
                "mel; convert it whole, with fastvoc.audio.convert_mel"
            )
        self.begin()

    def begin(self) -> None:
        """Judge anew: another mel begins."""
        self._judged_by: (
            tuple[Tensor, ...] | None
        ) = ()  # None once it has been judged; a copy of the reader has its own

    def __call__(self, chunk: Tensor | NDArray[np.floating]) -> Tensor:
        """(bands, T) or (B, bands, T), T may be 0 → the same in the network's convention.

        Raises
        ------
        TypeError, ValueError
            As `check_mel`, but for a chunk without frames.
        """
        mel = as_tensor(chunk, "mel")
        check_mel(mel, self.config, empty=True)
        if mel.shape[-1]:
            self._judge(mel)
        return _converted(mel, self.source, self.config)

    def _judge(self, mel: Tensor) -> None:
        """Look at the first chunk, which may be impossible, and at all of them once they say how a mel changes."""
        if self._judged_by is None:
            return
        chunk = mel.detach().clone() if mel.ndim == 3 else mel.detach()[None].clone()
        # one that does not fit those before was refused as soon as it had been read, or they were
        fitting = [earlier.to(chunk.device) for earlier in self._judged_by if len(earlier) == len(chunk)]
        self._judged_by = (*fitting, chunk)
        enough = sum(earlier.shape[-1] for earlier in self._judged_by) >= LONG_ENOUGH
        if not enough and len(self._judged_by) > 1:
            return
        suspected = _suspicion(torch.cat(self._judged_by, dim=-1), self.source)
        if suspected:
            warnings.warn(f"Vocoder: {suspected}", stacklevel=5)
        if suspected or enough:
            self._judged_by = None

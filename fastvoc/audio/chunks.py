"""Mels as a vocoder takes them, whole or in chunks: checked, converted, and judged by what has come so far."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.inputs import Lengths, as_tensor, read_lengths
from fastvoc.audio.mels.convention import FeatureConfig, MelConfig
from fastvoc.audio.mels.convert import convert_mel, find_convention, why_not
from fastvoc.audio.mels.inputs import check_mel
from fastvoc.audio.mels.plausibility import LONG_ENOUGH, none_suspected, suspicion


def read_mels(
    mel: Tensor,
    config: MelConfig | FeatureConfig,
    convention: MelConfig | str | None,
    lengths: Lengths | None,
    *,
    check: bool = True,
) -> list[Tensor]:
    """Return the mels of a padded batch, (bands, T) each, or what was given, in the network's convention.

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
    """
    source = _source(config, convention)
    mels, doubtful = [mel], [mel]
    if lengths is not None:
        check_mel(mel, config, finite=False)
        counts = read_lengths(lengths, mel.shape)
        mels = [row[:, :count] for row, count in zip(mel, counts, strict=True)]
        clear = _clear(mel, counts, source) if check else []
        doubtful = [item for item, known in zip(mels, clear, strict=check) if not known]
    for item in doubtful:
        check_mel(item, config, finite=check)
    if not check:
        return [_converted(item, source, config) for item in mels]
    suspicions = (_suspicion(item, source) for item in doubtful if item.numel())
    if suspected := next(filter(None, suspicions), None):
        warnings.warn(f"Vocoder: {suspected}", stacklevel=4)
    return [_converted(item, source, config) for item in mels]


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
    if isinstance(source, FeatureConfig) or isinstance(target, FeatureConfig):
        return mel
    return convert_mel(mel, source, target)


def _suspicion(mel: Tensor, source: MelConfig | FeatureConfig) -> str | None:
    """Say why a mel is hardly one of its convention, or None; of features, nothing is known that could tell."""
    return None if isinstance(source, FeatureConfig) else suspicion(mel, source)


def _clear(mel: Tensor, lengths: Sequence[int], source: MelConfig | FeatureConfig) -> list[bool]:
    """Tell of each mel of a padded batch whether it need not be looked at alone."""
    return [False] * len(mel) if isinstance(source, FeatureConfig) else none_suspected(mel, lengths, source)


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

"""Recordings as an endless supply of equally long segments, the same ones however many processes read them.

The place in the supply is one number, the step: see `fastvoc.train.data.batches`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig
from fastvoc.train.data.batches import Batches
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.predicted_mels import PredictedMels
from fastvoc.train.data.readers import Readers, refuse_unguarded
from fastvoc.train.data.recordings import Recordings, name_changes, pack_names, split_recordings

_logger = logging.getLogger(__name__)

# Skipped recordings that are named one by one; further ones are counted, and all are in `Loader.skipped`.
_NAMED = 20


def make_loader(
    config: DataConfig,
    *,
    sample_rate: int,
    segment: int,
    batch: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    mel: MelConfig | None = None,
) -> Loader:
    """Find the recordings of a run and begin an endless supply of their segments.

    Parameters
    ----------
    config : DataConfig
    sample_rate : int
        Rate that recordings are resampled to, in Hz.
    segment : int
        Samples in a segment.
    batch : int
        Segments in a batch of one rank.
    seed : int
        Equal seeds give equal segments; not negative.
    rank, world_size : int
        Which part of the whole batch to read: ranks `0 … world_size - 1` together read what one rank would with a
        batch of `batch * world_size`, in this order.
    mel : MelConfig, optional
        Needed for fine-tuning (`config.mels`), where the loader gives mels too: the generator's convention.

    Returns
    -------
    Loader

    Raises
    ------
    FileNotFoundError
        If a folder or list does not exist.
    ValueError
        If there are no recordings, or none of those that are tried is usable, or mels do not fit.
    """
    split = split_recordings(config, sample_rate=sample_rate)
    mels = None
    if config.mels is None and split.training.name_mels and rank == 0:
        _logger.warning("the mels that the recordings' list names are not used; to fine-tune on them, set data.mels")
    if config.mels is not None:
        if mel is None:
            raise ValueError("make_loader: data.mels is set, but not mel; pass the generator's convention")
        if segment % mel.hop or sample_rate != mel.sample_rate:
            raise ValueError(
                f"make_loader: segments of {segment} samples at {sample_rate} Hz are not whole frames of "
                f"{mel.hop} samples at {mel.sample_rate} Hz; give a multiple of the hop at that rate"
            )
        mels = PredictedMels(config.mels, mel, tolerance=config.mel_tolerance)
    batches = Batches(
        split.training,
        config,
        sample_rate=sample_rate,
        segment=segment,
        seed=seed,
        rows=range(rank * batch, (rank + 1) * batch),
        whole_batch=batch * world_size,
        mels=mels,
        sizes=split.sizes,
    )
    aside = Recordings(itertools.chain(split.seen, split.unseen))
    loader = Loader(batches, workers=config.workers, aside=aside)
    unusable = batches.try_out()
    if rank == 0:  # every rank has tried the same
        loader.skip(unusable)
    else:
        loader.skipped.update(unusable)
    return loader


class Loader:
    """An endless iterator over batches; made by `make_loader`.

    `next` gives a Tensor of shape (B, segment), float32; for fine-tuning a tuple of that and its mels,
    (B, bands, segment // hop), where mels are smoothed of that and how far, (B, 2), and of notes one of that and their
    pitches and instruments, (B, 2).

    Attributes
    ----------
    steps_per_epoch : int
        Batches in which each recording is drawn once (or as often as `DataConfig.weights` says), but for a rest that
        does not fill a batch; at least 1.
    recordings : int
        How many there are to train on.
    skipped : dict of str to str
        Recordings that could not be used so far, by path, and why.
    """

    def __init__(self, batches: Batches, *, workers: int, aside: Recordings | None = None) -> None:
        self.steps_per_epoch = batches.steps_per_epoch
        self.recordings = len(batches.recordings)
        self.skipped: dict[str, str] = {}
        self._source = batches
        self._workers = workers
        aside = aside or Recordings()
        self._validation = aside.fingerprint
        self._names = pack_names(itertools.chain(batches.recordings, aside))
        self._step = 0
        self._readers: Readers | None = None
        self._pinned = torch.cuda.is_available()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor | tuple[Tensor, Tensor]:
        readers = self._started()
        try:
            batch = self._source[self._step] if readers is None else readers.take()
        except BaseException:
            self.close()  # whose turn it is has become uncertain
            raise
        self.skip(batch.unusable)
        if batch.failure:
            self.close()
            raise ValueError(batch.failure)
        self._step += 1
        waves = self._pin(batch.waves)
        return waves if batch.others is None else (waves, self._pin(batch.others))

    def wait(self, stop: Callable[[], bool]) -> bool:
        """Wait until the next batch can be taken, however long that takes, or until somebody wishes to stop.

        Parameters
        ----------
        stop : callable
            Asked several times a second.

        Returns
        -------
        bool
            Whether there is a batch.
        """
        readers = self._started()
        return not stop() if readers is None else readers.wait(stop)

    @property
    def epoch(self) -> int:
        """Epochs that are complete, which is the number of the epoch that the next batch belongs to."""
        return self._step // self.steps_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the supply, and which supply: batches already read ahead do not count."""
        source = self._source
        return {
            "step": self._step,
            "steps_per_epoch": self.steps_per_epoch,
            "seed": source.seed,
            "batch": source.whole_batch,
            "recordings": len(source.recordings),
            "fingerprint": source.recordings.fingerprint,
            "sources": source.sources,
            "validation": self._validation,
            "names": self._names,
        }

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Continue where a loader was.

        Parameters
        ----------
        state : dict
            What `state_dict` returned.
        strict : bool
            Refuse a place in another supply; otherwise the epoch goes on where it was: with its number, and with the
            share of it that has been drawn.

        Raises
        ------
        ValueError
            If the names of the recordings, their order, the seed or the whole batch are not those of the state.
        """
        now = self.state_dict()
        changed = "; ".join(self._changes(state, now))
        if changed and strict:
            raise ValueError(
                f"the saved run had other data: {changed}; restore it to continue exactly, or go on with what there "
                "is now (--allow-changes, allow_changes=True)"
            )
        self.close()
        before = state.get("steps_per_epoch", self.steps_per_epoch)
        epoch, place = divmod(state["step"], before)
        self._step = epoch * self.steps_per_epoch + place * self.steps_per_epoch // before
        if changed:
            _logger.warning("the data has changed: %s; the run goes on in epoch %d", changed, epoch)

    def _changes(self, state: dict[str, Any], now: dict[str, Any]) -> list[str]:
        changed = [
            f"{name} was {state[name]}, is {now[name]}" for name in ("seed", "batch") if state[name] != now[name]
        ]
        if any(state[name] != now[name] for name in ("recordings", "fingerprint")):
            said = f"recordings were {state['recordings']}, are {now['recordings']}"
            if "names" in state:
                said += f": {name_changes(state['names'], self._names)}"
            changed.append(said)
        elif state.get("sources", now["sources"]) != now["sources"]:
            changed.append(f"recordings of each source (data.weights) were {state['sources']}, are {now['sources']}")
        elif state.get("validation", self._validation) != self._validation:
            changed.append("other recordings are validated on")
        return changed

    def close(self) -> None:
        """End the processes that read; the next batch would start them again."""
        if self._readers is not None:
            self._readers.close()
            self._readers = None

    def skip(self, unusable: dict[str, str]) -> None:
        """Name recordings that cannot be used, each once."""
        for path, reason in unusable.items():
            if path in self.skipped:
                continue
            self.skipped[path] = reason
            if len(self.skipped) <= _NAMED:
                _logger.warning("skipped: %s", reason)
            elif len(self.skipped) == _NAMED + 1:
                _logger.warning("skipped: more than %d recordings; further ones are only counted", _NAMED)

    def _started(self) -> Readers | None:
        if self._workers and self._readers is None:
            refuse_unguarded(self._workers)
            self._readers = Readers(self._source, self._step, self._workers)
        return self._readers

    def _pin(self, part: Tensor) -> Tensor:
        return part.pin_memory() if self._pinned else part

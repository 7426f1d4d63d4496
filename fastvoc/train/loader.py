"""Recordings as an endless supply of equally long segments, the same ones however many processes read them.

The place in the supply is one number, the step: see `fastvoc.train.batches`.
"""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import Self

from fastvoc.audio import MelConfig
from fastvoc.train.batches import Batch, Batches
from fastvoc.train.data import DataConfig
from fastvoc.train.predicted import PredictedMels
from fastvoc.train.recordings import split_recordings

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
    split = split_recordings(config)
    mels = None
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
    loader = Loader(batches, workers=config.workers)
    unusable = batches.try_out()
    if rank == 0:  # every rank has tried the same
        loader.skip(unusable)
    else:
        loader.skipped.update(unusable)
    return loader


class Loader:
    """An endless iterator over batches; made by `make_loader`.

    `next` gives a Tensor of shape (B, segment), float32; for fine-tuning a tuple of that and its mels,
    (B, bands, segment // hop).

    Attributes
    ----------
    steps_per_epoch : int
        Batches in which each recording is drawn once (or as often as `DataConfig.weights` says), but for a rest that
        does not fill a batch; at least 1.
    skipped : dict of str to str
        Recordings that could not be used so far, by path, and why.
    """

    def __init__(self, batches: Batches, *, workers: int) -> None:
        self.steps_per_epoch = batches.steps_per_epoch
        self.skipped: dict[str, str] = {}
        self._source = batches
        self._workers = workers
        self._step = 0
        self._batches: Iterator[Batch] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor | tuple[Tensor, Tensor]:
        if self._batches is None:
            self._batches = self._start()
        batch = next(self._batches)
        self._step += 1
        self.skip(batch.unusable)
        if batch.failure:
            raise ValueError(batch.failure)
        return batch.waves if batch.mels is None else (batch.waves, batch.mels)

    @property
    def epoch(self) -> int:
        """Epochs that are complete, which is the number of the epoch that the next batch belongs to."""
        return self._step // self.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        """Return the place in the supply: batches already read ahead do not count."""
        source = self._source
        return {
            "step": self._step,
            "seed": source.seed,
            "batch": source.whole_batch,
            "recordings": len(source.recordings),
            "fingerprint": source.recordings.fingerprint,
        }

    def load_state_dict(self, state: dict[str, int], *, strict: bool = True) -> None:
        """Continue where a loader was.

        Parameters
        ----------
        state : dict
            What `state_dict` returned.
        strict : bool
            Refuse a place in another supply; otherwise as many segments count as heard.

        Raises
        ------
        ValueError
            If the recordings, their order, the seed or the whole batch are not those of the state.
        """
        now = self.state_dict()
        changed = [name for name in now if name != "step" and state[name] != now[name]]
        if changed and strict:
            raise ValueError(
                "Loader: the saved run had other data: "
                + ", ".join(f"{name} {state[name]}, now {now[name]}" for name in changed)
                + "; restore it to continue exactly"
            )
        self.close()
        self._step = state["step"] * state["batch"] // now["batch"]

    def close(self) -> None:
        """End the worker processes; the next batch would start them again."""
        self._batches = None

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

    def _start(self) -> Iterator[Batch]:
        return iter(
            DataLoader(
                self._source,
                batch_size=None,
                sampler=itertools.count(self._step),
                num_workers=self._workers,
                prefetch_factor=4 if self._workers else None,
                collate_fn=_as_it_is,
                worker_init_fn=_outlast_signals if self._workers else None,
                pin_memory=torch.cuda.is_available(),
                # without one, starting would draw from the global generator and change the run
                generator=torch.Generator(),
            )
        )


def _outlast_signals(worker: int) -> None:
    """Leave Ctrl-C, or a SIGTERM to all processes of a job, to the training process, which has a run to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch

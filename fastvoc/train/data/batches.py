"""Batches of segments by number: a function of seed, number and recordings, whoever calls it and when."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.lists import shown
from fastvoc.train.data.predicted_mels import PredictedMels
from fastvoc.train.data.reading import LONGEST, Unusable, rate_of, read_recording
from fastvoc.train.data.recordings import Recordings

_logger = logging.getLogger(__name__)

# Recordings that are read before a run begins, evenly over the data set: enough to tell a wrong folder or list.
_TRIED = 64

# Unusable recordings in a row that end the search for a usable one.
_PATIENCE = 1000


class Batch(NamedTuple):
    """What one rank trains on in one step."""

    waves: Tensor
    """(B, segment), float32."""
    others: Tensor | None
    """What comes with each wave: mels of another network, (B, bands, segment // hop), float32; how far its mel is
    smoothed over bands and frames, (B, 2), int64; or pitch and instrument of notes, (B, 2),
    int64."""
    unusable: dict[str, str]
    """Recordings that were found unusable on the way, by path, and why."""
    failure: str = ""
    """Why there is no batch. A worker's exception would arrive wrapped in its traceback."""


class Batches(Dataset[Batch]):
    """Batches of one rank by their number.

    Segment `k` of epoch `e` belongs to the `k`-th recording of an order drawn from (seed, e), and is cut from it by a
    generator of its own, drawn from (seed, e, k). The order is a permutation, unless some are drawn more often than
    others. In place of an unusable recording stands the next usable one of the order.

    Parameters
    ----------
    recordings : Recordings
    config : DataConfig
        How they are read and changed.
    sample_rate : int
        In Hz.
    segment : int
        In samples.
    seed : int
        Not negative.
    rows : range
        Segments of the whole batch that are this rank's.
    whole_batch : int
        Segments in the batches of all ranks together.
    mels : PredictedMels, optional
        Gives each segment a mel.
    sizes : sequence of int, optional
        How many of `recordings`, from the first on, come from each source that `config.weights` speaks of.
    """

    def __init__(
        self,
        recordings: Recordings,
        config: DataConfig,
        *,
        sample_rate: int,
        segment: int,
        seed: int,
        rows: range,
        whole_batch: int,
        mels: PredictedMels | None = None,
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.recordings = recordings
        self.seed = seed
        self.whole_batch = whole_batch
        self.sources = list(sizes or ()) if config.weights else []
        """Recordings that come from each source, where one is drawn more often than another."""
        self._draws = _draws(sizes or (len(recordings),), config.weights)
        # As in HiFi-GAN's loader the rest that does not fill a batch is left out, another one in each epoch.
        self.steps_per_epoch = max(1, sum(draws for _, draws in self._draws) // whole_batch)
        self._config = config
        self._sample_rate = sample_rate
        self._segment = segment
        self._rows = rows
        self._mels = mels
        self._epoch = -1
        self._order: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._rejected: set[int] = set()
        self._news: dict[str, str] = {}
        self._reason = ""
        self._cache: dict[tuple[int, float], tuple[Tensor, Tensor | None]] = {}
        self._room = config.cache * 1e9 / max(1, config.workers)

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        try:
            segments = [self._draw(epoch, place * self.whole_batch + row) for row in self._rows]
        except ValueError as error:
            return Batch(torch.zeros(0), None, self._news, str(error))
        waves, others = zip(*segments, strict=True)
        news, self._news = self._news, {}
        return Batch(torch.stack(waves), None if others[0] is None else torch.stack(others), news)

    def try_out(self) -> dict[str, str]:
        """Read some recordings, evenly over all; for fine-tuning, compare all of them with their mels.

        Returns
        -------
        dict of str to str
            Unusable ones by path, and why.

        Raises
        ------
        ValueError
            If none is usable, or mels do not fit.
        """
        if self._mels is not None:
            for index, unusable in self._mels.check(self.recordings).items():
                self._reject(index, unusable)
        tried = self.recordings.evenly(_TRIED)
        usable = 0
        for index in tried:
            try:
                # at the lowest speed: what is too short then is too short at all
                self._read(index, min(self._config.speeds), np.random.default_rng(0))
                usable += 1
            except Exception as error:
                self._reject(index, error)
        if self._rows.start == 0:  # every rank has tried the same
            self._name_low_rates(tried)
        if self._config.workers:  # these have caches of their own
            self._room += sum(_size(*entry) for entry in self._cache.values())
            self._cache.clear()
        news, self._news = self._news, {}
        if not usable:
            first = "; ".join(list(news.values())[:3])
            raise ValueError(f"data.recordings: none of the {len(tried)} that were tried can be used: {first}")
        return news

    def _name_low_rates(self, tried: Sequence[int]) -> None:
        rates = {index: rate_of(self.recordings[index]) for index in tried if index not in self._rejected}
        low = {index: rate for index, rate in rates.items() if rate < self._sample_rate}
        if low:
            index, rate = min(low.items(), key=lambda item: item[1])
            _logger.warning(
                "%d of %d recordings that were tried have a lower sample rate than %d Hz, such as %s of %d Hz: they "
                "end at %g Hz, and a vocoder learns to make nothing above; leave them out, or train at a lower rate",
                *(len(low), len(rates), self._sample_rate, shown(self.recordings[index].path), rate, rate / 2),
            )

    def _draw(self, epoch: int, slot: int) -> tuple[Tensor, Tensor | None]:
        order = self._order_of(epoch)
        patience = min(len(order), _PATIENCE)
        for attempt in range(patience):
            index = int(order[(slot + attempt) % len(order)])
            if index in self._rejected:
                continue
            random = np.random.default_rng((self.seed, epoch, 1 + slot, attempt))
            speeds = self._config.speeds
            speed = speeds[int(random.integers(len(speeds)))] if len(speeds) > 1 else speeds[0]
            try:
                return self._cut(*self._read(index, speed, random), random)
            except Exception as error:  # whatever it is, no single recording ends a run
                self._reject(index, error)
        raise ValueError(
            f"data.recordings: {patience} in a row cannot be used, {len(self._rejected)} are known in all; "
            f"the last one that was tried: {self._reason}"
        )

    def _order_of(self, epoch: int) -> NDArray[np.uint32]:
        if epoch != self._epoch:
            self._epoch = epoch
            random = np.random.default_rng((self.seed, epoch, 0))
            chosen = []
            first = 0
            for size, draws in self._draws:
                indices = np.arange(first, first + size, dtype=np.uint32)
                chosen += [indices] * (draws // size)
                if draws % size:
                    chosen.append(random.choice(indices, draws % size, replace=False))
                first += size
            self._order = np.concatenate(chosen)
            random.shuffle(self._order)
        return self._order

    def _read(self, index: int, speed: float, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        if (index, speed) in self._cache:
            return self._cache[index, speed]
        config, recording, mel = self._config, self.recordings[index], None
        # a piece could not be aligned with the mel of the whole
        longest = LONGEST if self._mels is None else float("inf")
        wave, whole = read_recording(
            recording,
            self._sample_rate,
            trim=config.trim,
            speed=speed,
            peak=config.peak,
            longest=longest,
            random=random,
        )
        if self._mels is not None:
            mel, wave = self._mels.read(recording, wave)
        if len(wave) < self._segment and config.short == "skip":
            trimmed = "" if config.trim is None else " after its silence is cut"
            faster = "" if speed == 1 else f" at speed {speed:g}"
            raise Unusable(
                f"{shown(recording.path)}: is too short; it has {len(wave)} samples{trimmed}{faster}, "
                f"a segment {self._segment} (at {self._sample_rate} Hz)",
                whole=whole and speed == min(config.speeds),  # slower, it may be long enough
            )
        if whole and _size(wave, mel) <= self._room:
            self._room -= _size(wave, mel)
            self._cache[index, speed] = (wave, mel)
        return wave, mel

    def _cut(self, wave: Tensor, mel: Tensor | None, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        hop = 1 if self._mels is None else self._mels.config.hop
        start = int(random.integers(max(0, len(wave) - self._segment) // hop + 1))
        part = wave[start * hop : start * hop + self._segment]
        part = F.pad(part, (0, self._segment - len(part)))
        level = 10 ** (random.uniform(*self._config.gain) / 20)
        sign = -1 if self._config.polarity and random.random() < 0.5 else 1
        if self._config.smoothing:
            return sign * level * part, torch.from_numpy(random.integers(self._config.smoothing + 1, size=2))
        return sign * level * part, None if mel is None else mel[:, start : start + self._segment // hop]

    def _reject(self, index: int, error: Exception) -> None:
        path = self.recordings[index].path
        whole = True
        if isinstance(error, Unusable):
            self._reason, whole = str(error), error.whole
        else:
            self._reason = f"{shown(path)}: cannot be used: {type(error).__name__}: {' '.join(str(error).split())}"
        if whole:
            self._rejected.add(index)
        self._news[path] = self._reason


def _draws(sizes: Sequence[int], weights: Sequence[float]) -> list[tuple[int, int]]:
    """Return recordings and segments in an epoch of each source that has any."""
    weights = weights or [1.0] * len(sizes)
    return [(size, max(1, round(size * weight))) for size, weight in zip(sizes, weights, strict=True) if size]


def _size(wave: Tensor, mel: Tensor | None) -> int:
    return wave.nbytes + (0 if mel is None else mel.nbytes)

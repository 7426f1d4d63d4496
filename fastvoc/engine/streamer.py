"""Streams of mel frames that become sound while they are still being made."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc import ops
from fastvoc.audio.chunks import ChunkReader
from fastvoc.engine.opaque import OpaqueStream
from fastvoc.engine.stream import Stream
from fastvoc.engine.surroundings import own_arithmetic, uncompiled
from fastvoc.engine.weight_version import WeightVersion

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])


@dataclass(frozen=True, eq=False)
class StreamState:
    """What streams remember; nothing ever writes into it, so that keeping one costs no copy.

    Parameters
    ----------
    memory : tuple of Tensor
        With the streams side by side in the first axis of each.
    phase : {"new", "running", "ended"}
    """

    memory: tuple[Tensor, ...]
    phase: str

    @property
    def batch(self) -> int:
        """Streams side by side."""
        return self.memory[0].shape[0]

    def split(self) -> list[Self]:
        """Return the state of each stream, so that each may go its own way."""
        streams = range(self.batch)
        return [type(self)(tuple(tensor[n : n + 1] for tensor in self.memory), self.phase) for n in streams]

    @classmethod
    def join(cls, states: Sequence[StreamState]) -> Self:
        """Put streams side by side, so that a streamer of that batch advances them together.

        They may have been given different numbers of frames, if each has more than ``sum(vocoder.receptive_field)``;
        before that, a stream does not remember as much, and all must have been given the same number.

        Raises
        ------
        ValueError
            If there are none, or they do not remember equally much.
        """
        if not states:
            raise ValueError("StreamState.join: there are no states; it needs at least one")
        if len({(state.phase, *((tensor.shape[1:], tensor.dtype) for tensor in state.memory)) for state in states}) > 1:
            raise ValueError(
                "StreamState.join: the streams do not remember equally much; all must be of one vocoder, and each must "
                "have been given more than sum(vocoder.receptive_field) frames, or all the same number"
            )
        memories = zip(*(state.memory for state in states), strict=True)
        return cls(tuple(torch.cat(tensors) for tensors in memories), states[0].phase)


class Streamer:
    """One stream of mel frames, or a batch of streams that advance together; `Vocoder.streamer` makes it.

    The samples are those of the whole mel at once, whatever the chunks. Behind `n` frames, ``n - latency`` have become
    sound; `flush` gives the others. A streamer belongs to one thread; any number of them may share a vocoder.

    Parameters
    ----------
    streams : callable
        Returns the stream of the generator as it is.
    version : WeightVersion
        Of the generator.
    batch : int
        Streams side by side.
    condition : Tensor, shape (batch, condition_channels), optional
        On the device and in the dtype of the stream.
    sample_rate : int
        In Hz.
    backend : str, optional
        As in `fastvoc.Vocoder`.
    read : ChunkReader
        Checks what is pushed and returns it as a tensor.
    give : callable
        Returns a wave as what was pushed: a tensor or an array.
    """

    def __init__(
        self,
        streams: Callable[[], Stream | OpaqueStream],
        version: WeightVersion,
        *,
        batch: int,
        condition: Tensor | None,
        sample_rate: int,
        backend: str | None,
        read: ChunkReader,
        give: Callable[[Tensor, Any], Any],
    ) -> None:
        self.batch = batch
        self.sample_rate = sample_rate
        self._streams = streams
        self._version = version
        self._revision: object = version.revision()
        self._stream = streams()
        self._condition = condition
        self._backend = backend
        self._read = read
        self._give = give
        self._like: Any = self._stream.no_frames(batch)  # what was pushed last
        self._flat = batch == 1  # whether it had no batch
        self._state = self._fresh()

    @property
    def latency(self) -> int:
        """Mel frames that must follow a frame before its samples come: `receptive_field[1]`, 0 if causal.

        A causal vocoder that reflects still has to wait at the start, for what it reflects.
        """
        return self._stream.latency

    @property
    def latency_seconds(self) -> float:
        """The same in seconds of sound."""
        return self.latency * self._stream.hop / self.sample_rate

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """Of the random numbers of each stream, or None if the vocoder draws none."""
        return self._stream.seeds(self._state.memory) if isinstance(self._stream, OpaqueStream) else None

    @property
    def recomputes(self) -> bool:
        """Whether each chunk is computed together with the frames that reach into it, instead of alone."""
        return self._stream.recomputes

    @uncompiled
    def push(self, mel: Signal) -> Signal:
        """Add frames and return the samples that are now certain.

        Parameters
        ----------
        mel : Tensor or ndarray, shape (bands, T) if the batch is 1, or (batch, bands, T), floating point
            The frames that follow those pushed before, any number.

        Returns
        -------
        Tensor or ndarray, as given, shape (samples,) or (batch, samples)
            Whole frames of sound, often none at first.

        Raises
        ------
        TypeError, ValueError
            As `Vocoder.__call__`, or if the batch is another or the stream has been flushed. Nothing has happened
            then, and the stream can go on.
        """
        tensor = self._read(mel)
        batch = tensor if tensor.ndim == 3 else tensor[None]
        if batch.shape[0] != self.batch:
            flat = "(bands, frames) or " if self.batch == 1 else ""
            raise ValueError(
                f"Streamer.push: mel has shape {tuple(tensor.shape)}; it must be {flat}({self.batch}, bands, frames)"
            )
        if self._state.phase == "ended":
            raise ValueError("Streamer.push: the stream has been flushed; reset() begins a new one")
        wave = self._advance(batch, last=False) if batch.shape[-1] else self._stream.no_frames(self.batch)[:, 0]
        self._flat = tensor.ndim == 2
        self._like = mel[..., :0] if isinstance(mel, Tensor) else np.empty(0)
        return self._as_pushed(wave)  # type: ignore[no-any-return]

    @uncompiled
    def flush(self) -> Any:
        """End the stream and return the samples that waited for what would follow.

        Returns
        -------
        Tensor or ndarray, as pushed last, shape (samples,) or (batch, samples)
            None of them if the stream has been flushed before, or nothing was pushed.

        Raises
        ------
        ValueError
            If the whole mel is shorter than what the vocoder reflects at its ends.
        """
        if self._state.phase == "running":
            return self._as_pushed(self._advance(self._stream.no_frames(self.batch), last=True))
        return self._as_pushed(self._stream.no_frames(self.batch)[:, 0])

    @uncompiled
    def reset(self) -> None:
        """Forget all frames and begin a new stream of the same condition and seeds, with the generator as it is now."""
        self._renew()
        self._read.begin()
        self._state = self._fresh()

    def state(self) -> StreamState:
        """Return what the stream remembers, the condition included; later frames do not change it."""
        return self._state

    @uncompiled
    def restore(self, state: StreamState) -> None:
        """Go on from a state of the same vocoder, this streamer's or another's.

        Raises
        ------
        ValueError
            If the state is of another batch, or does not fit the vocoder.
        """
        if state.batch != self.batch:
            raise ValueError(f"Streamer.restore: the state is of a batch of {state.batch}; it must be {self.batch}")
        if not self._stream.fits(state.memory):
            raise ValueError(
                "Streamer.restore: the state does not fit; it must be of the same vocoder, on its device and in its "
                "dtype"
            )
        self._state = state

    def _renew(self) -> bool:
        """Take the generator as it is, and return whether it has changed."""
        revision = self._version.revision()
        if revision == self._revision:
            return False
        self._stream, self._revision = self._streams(), revision
        return True

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled belongs to this machine, and is made again from the weights
        return {name: value for name, value in vars(self).items() if name != "_stream"} | {"_revision": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._stream = self._streams()

    def __copy__(self) -> Streamer:
        """Return a streamer that goes on from here on its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._read = copy.copy(self._read)  # which remembers what it has judged
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Streamer:
        """Return a streamer that goes on from here on its own; the weights are shared."""
        return self.__copy__()

    def _fresh(self) -> StreamState:
        # the generator may have moved since it was given
        condition = None if self._condition is None else self._condition.to(self._stream.like)
        with self._listening():
            return StreamState(tuple(self._stream.start(self.batch, condition)), "new")

    def _advance(self, mel: Tensor, *, last: bool) -> Tensor:
        if self._renew() and not self._stream.fits(self._state.memory):
            raise ValueError(
                "Streamer: the generator has been replaced by one that cannot go on with what the stream remembers; "
                "reset() begins a new stream"
            )
        memory = list(self._state.memory)
        with self._listening():
            wave = self._stream.advance(memory, mel.to(self._stream.like).contiguous(), ended=last)
        self._state = StreamState(tuple(memory), "ended" if last else "running")
        return wave.clone()  # outside inference mode, so that callers may differentiate what they do next

    @contextmanager
    def _listening(self) -> Iterator[None]:
        chosen = nullcontext() if self._backend is None else ops.use_backend(self._backend)
        with torch.inference_mode(), chosen, own_arithmetic(self._stream.like.device):
            yield

    def _as_pushed(self, wave: Tensor) -> Any:
        wave = wave[0] if self._flat else wave
        return self._give(wave.to(self._like.device) if isinstance(self._like, Tensor) else wave, self._like)


def read_batch(batch: Any) -> int:
    """Return how many streams are to advance together, or raise what is wrong with their number."""
    if not isinstance(batch, Integral) or isinstance(batch, bool):
        raise TypeError(f"Streamer: batch is {batch!r}; it must be an int")
    if batch < 1:
        raise ValueError(f"Streamer: batch is {batch}; it must be at least 1")
    return int(batch)

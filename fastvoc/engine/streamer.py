"""Streams of mel frames that become sound while they are still being made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc import ops
from fastvoc.engine.line import Line
from fastvoc.engine.state import StreamState

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])


class Streamer:
    """One stream of mel frames, or a batch of streams that advance together; `Vocoder.streamer` makes it.

    The samples are those of the whole mel at once, whatever the chunks. Behind `n` frames, ``n - latency`` have become
    sound; `flush` gives the others. A streamer belongs to one thread; any number of them may share a vocoder.

    Parameters
    ----------
    line : Line
    batch : int
        Streams side by side.
    condition : Tensor, shape (batch, condition_channels), optional
        On the device and in the dtype of the line.
    sample_rate : int
        In Hz.
    backend : str, optional
        As in `fastvoc.Vocoder`.
    read : callable
        Checks what is pushed and returns it as a tensor.
    give : callable
        Returns a wave as what was pushed: a tensor or an array.
    """

    def __init__(
        self,
        line: Line,
        *,
        batch: int,
        condition: Tensor | None,
        sample_rate: int,
        backend: str | None,
        read: Callable[[Any], Tensor],
        give: Callable[[Tensor, Any], Any],
    ) -> None:
        if batch < 1:
            raise ValueError(f"Streamer: batch is {batch}; it must be at least 1")
        self.batch = batch
        self.sample_rate = sample_rate
        self._line = line
        self._condition = condition
        self._backend = backend
        self._read = read
        self._give = give
        self._like: Any = torch.empty(0, device=line.no_frames(batch).device)  # what was pushed last
        self._flat = batch == 1  # whether it had no batch
        self._state = self._fresh()

    @property
    def latency(self) -> int:
        """Mel frames that must follow a frame before its samples come: `receptive_field[1]`, 0 if causal.

        A causal vocoder that reflects still has to wait at the start, for what it reflects.
        """
        return self._line.generator.receptive_field[1]

    @property
    def latency_seconds(self) -> float:
        """The same in seconds of sound."""
        return self.latency * self._line.generator.hop / self.sample_rate

    @property
    def recomputes(self) -> bool:
        """Whether each chunk is computed together with the frames that reach into it, instead of alone."""
        return self._line.recomputes

    def push(self, mel: Signal) -> Signal:
        """Add frames and return the samples that are now certain.

        Parameters
        ----------
        mel : Tensor or ndarray, shape (bands, T) if the batch is 1, or (batch, bands, T), floating point
            The frames that follow those pushed before, any number but none.

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
        wave = self._advance(batch, last=False)
        self._flat = tensor.ndim == 2
        self._like = torch.empty(0, device=mel.device) if isinstance(mel, Tensor) else np.empty(0)
        return self._as_pushed(wave)  # type: ignore[no-any-return]

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
            return self._as_pushed(self._advance(self._line.no_frames(self.batch), last=True))
        return self._as_pushed(self._line.no_frames(self.batch)[:, 0])

    def reset(self) -> None:
        """Forget all frames and begin a new stream, of the same condition."""
        self._state = self._fresh()

    def state(self) -> StreamState:
        """Return what the stream remembers, the condition included; later frames do not change it."""
        return self._state

    def restore(self, state: StreamState) -> None:
        """Go on from a state of the same vocoder, this streamer's or another's.

        Raises
        ------
        ValueError
            If the state is of another batch, or does not fit the vocoder.
        """
        if state.batch != self.batch:
            raise ValueError(f"Streamer.restore: the state is of a batch of {state.batch}; it must be {self.batch}")
        like = self._line.no_frames(1)
        fits = [(shape[0], like.device) for shape in self._line.shapes]
        given = [(tensor.shape[1], tensor.device) for tensor in state.memory]
        if given != fits or state.memory[0].dtype != like.dtype:
            raise ValueError(
                "Streamer.restore: the state does not fit; it must be of the same vocoder, on its device and in its "
                "dtype"
            )
        self._state = state

    def __copy__(self) -> Streamer:
        """Return a streamer that goes on from here on its own."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Streamer:
        """Return a streamer that goes on from here on its own; the weights are shared."""
        return self.__copy__()

    def _fresh(self) -> StreamState:
        with self._listening():
            return StreamState(tuple(self._line.start(self.batch, self._condition)), "new")

    def _advance(self, mel: Tensor, *, last: bool) -> Tensor:
        memory = list(self._state.memory)
        with self._listening():
            wave = self._line.run(memory, mel.to(self._line.no_frames(1)).contiguous(), last)
        self._state = StreamState(tuple(memory), "ended" if last else "running")
        return wave.clone()  # outside inference mode, so that callers may differentiate what they do next

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with torch.inference_mode(), nullcontext() if self._backend is None else ops.use_backend(self._backend):
            yield

    def _as_pushed(self, wave: Tensor) -> Any:
        wave = wave[0] if self._flat else wave
        return self._give(wave.to(self._like.device) if isinstance(self._like, Tensor) else wave, self._like)

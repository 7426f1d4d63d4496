"""Streams of generators that are run as they are: those that draw random numbers, and recurrent ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastvoc.engine.sampling import Sampling
from fastvoc.engine.stream import EdgeFrames, Memory, extended
from fastvoc.recurrence import is_recurrent


def is_opaque(generator: Any) -> bool:
    """Whether every wave of a generator, streamed or not, is made by an `OpaqueStream`."""
    return generator.draws is not None or is_recurrent(generator)


class OpaqueStream:
    """A generator that takes its mel in pieces, with the random numbers that belong to each.

    A recurrent one goes on from its state. Any other runs on the new frames and on all that reach into them, again and
    again, with the same numbers for the same frames. It is used as a `Stream` is.

    Parameters
    ----------
    generator : Generator
        Its weights are used where they are.
    edge_frames : EdgeFrames, optional
        What is put around every mel.
    sampling : Sampling, optional
        Of the streams that are started, where the generator draws random numbers.
    """

    def __init__(self, generator: Any, edge_frames: EdgeFrames | None = None, sampling: Sampling | None = None) -> None:
        self.generator = generator
        self.edge_frames = edge_frames
        self.sampling = sampling
        self.recomputes = not is_recurrent(generator)
        self.past, self.latency = generator.receptive_field
        self.hop = generator.hop
        weight = next(generator.parameters())
        self.like: Tensor = weight.new_empty(1, generator.mel_bands, 0)

    def start(self, batch: int, condition: Tensor | None = None) -> Memory:
        """Return the memory of streams that have been given nothing.

        Parameters
        ----------
        batch : int
            Streams side by side, as many as `sampling` is of.
        condition : Tensor, shape (condition_channels,) or (batch, condition_channels), optional

        Raises
        ------
        ValueError
            If the condition is missing, unwanted or of another shape, or there is no sampling for what is drawn.
        """
        channels = self.generator.condition_channels
        if (condition is None) != (not channels):
            given, fits = ("no", "needs one") if condition is None else ("a", "takes none")
            raise ValueError(f"Vocoder: {given} condition was given; this generator {fits}")
        if condition is not None and condition.shape not in (torch.Size([channels]), torch.Size([batch, channels])):
            raise ValueError(
                f"Vocoder: condition has shape {tuple(condition.shape)}; it must be {(channels,)} or "
                f"{(batch, channels)}"
            )
        if (self.sampling is None) != (self.generator.draws is None):
            raise ValueError("Streamer: the generator has been replaced by one that draws otherwise; make a new one")
        return self._fresh(batch, None if condition is None else condition.expand(batch, -1), self.sampling)

    def _fresh(self, batch: int, condition: Tensor | None, sampling: Sampling | None) -> Memory:
        """Return frames that are kept, the latest one, samples to leave out, what to draw, and condition or state."""
        none = self.no_frames(batch)
        left_out = (
            self.edge_frames.replicated_frames * self.generator.hop
            if self.edge_frames and self.edge_frames.trimmed
            else 0
        )
        memory = [none, none, none.new_zeros(batch, 1, left_out)]
        if sampling is None:
            memory += [torch.zeros(batch, 0, device=none.device)] * 3
        else:
            seeds = sampling.seeds.to(none.device)[:, None]
            memory += [seeds, torch.zeros_like(seeds), sampling.temperature.to(none)[:, None]]
        if is_recurrent(self.generator):
            return [*memory, *self.generator.begin(batch, condition)]
        return memory if condition is None else [*memory, condition]

    def seeds(self, memory: Sequence[Tensor]) -> tuple[int, ...] | None:
        """Return the seed of each stream of a memory, or None where the generator draws nothing."""
        return None if self.generator.draws is None else tuple(memory[_SEEDS][:, 0].tolist())

    def fits(self, memory: Sequence[Tensor]) -> bool:
        """Tell whether a memory, of any number of streams, can be of this generator."""
        channels = self.generator.condition_channels
        condition = self.like.new_zeros(1, channels) if channels else None
        own = self._fresh(1, condition, None if self.sampling is None else self.sampling.of(0))
        return memory[0].dtype == self.like.dtype and [(t.shape[1], t.device) for t in memory] == [
            (t.shape[1], t.device) for t in own
        ]

    def no_frames(self, batch: int) -> Tensor:
        """Return a mel of shape (batch, bands, 0)."""
        return self.like.new_empty(batch, *self.like.shape[1:])

    def advance(self, memory: Memory, mel: Tensor, *, ended: bool) -> Tensor:
        """Advance the streams of a memory, which is changed.

        Parameters
        ----------
        memory : list of Tensor
        mel : Tensor, shape (B, bands, T)
            The new frames, or none.
        ended : bool
            Whether no others follow.

        Returns
        -------
        Tensor, shape (B, samples)
        """
        edges = self.edge_frames
        rows = mel if edges is None else extended(edges, memory, _LATEST, mel, ended=ended)
        wave = (self._recomputed if self.recomputes else self._advanced)(memory, rows, ended)
        if edges is not None and edges.trimmed:
            if ended:
                added = edges.replicated_frames + edges.appended_frames
                wave = wave[..., : wave.shape[-1] - added * self.generator.hop]
            count = min(memory[_LEFT_OUT].shape[-1], wave.shape[-1])
            memory[_LEFT_OUT], wave = memory[_LEFT_OUT][..., count:], wave[..., count:]
        return wave[:, 0]

    def _recomputed(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, 1, m · hop), of frames that are all in the memory."""
        hop, kept = self.generator.hop, memory[_KEPT]
        # of the frames that are kept, the last ones wait for their future, and those before them are context
        context = max(0, kept.shape[-1] - self.latency)
        rows = torch.cat([kept, rows], dim=-1)
        ready = rows.shape[-1] - (0 if last else self.latency)
        if ready <= context:
            memory[_KEPT] = rows
            return rows.new_empty(rows.shape[0], 1, 0)
        drawn = self._drawn(memory, rows.shape[-1])
        past = max(0, ready - self.past)
        memory[_KEPT], memory[_FRAME] = rows[..., past:].clone(), memory[_FRAME] + past
        wave: Tensor = self.generator(rows, *memory[_REST:], **drawn)
        return wave[..., context * hop : None if last else ready * hop]

    def _advanced(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, 1, m · hop), of frames that the generator itself remembers."""
        assert is_recurrent(self.generator)
        drawn = self._drawn(memory, rows.shape[-1])
        state, wave = self.generator.advance(tuple(memory[_REST:]), rows, last=last, **drawn)
        memory[_REST:], memory[_FRAME] = state, memory[_FRAME] + rows.shape[-1]
        return wave

    def _drawn(self, memory: Memory, frames: int) -> dict[str, Tensor]:
        """Return the generator's arguments for so many frames from the present one on."""
        draws = self.generator.draws
        if draws is None:
            return {}
        seeds, first, temperature = (memory[slot][:, 0] for slot in (_SEEDS, _FRAME, _TEMPERATURE))
        noise = draws(seeds, first, frames)
        dtype = torch.promote_types(temperature.dtype, noise.dtype) if draws.exact else temperature.dtype
        return {"noise": noise.to(dtype), "temperature": temperature}


_KEPT, _LATEST, _LEFT_OUT, _SEEDS, _FRAME, _TEMPERATURE, _REST = range(7)
"""Places in a memory; `_FRAME` is the number of the first frame that is kept, or that comes next."""

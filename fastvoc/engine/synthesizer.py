"""Mels of any length and number to waves, by the fastest way that a generator has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastvoc import ops
from fastvoc.device import sent
from fastvoc.engine.cpu_plan import Plan
from fastvoc.engine.cuda_graphs import CudaGraphs
from fastvoc.engine.opaque import OpaqueStream, is_opaque
from fastvoc.engine.runner import Runner
from fastvoc.engine.sampling import Sampling
from fastvoc.engine.stream import EdgeFrames
from fastvoc.recurrence import is_explained

WINDOW = 4096
"""Frames that run at once: 48 s at 22050 Hz and a hop of 256, for which each layer of HiFi-GAN V1 makes 0.13 GB of
features."""

STREAMS = 48
"""Recurrent streams that are made side by side: groups that share what is read of the weights, for several threads."""

Item = tuple[Tensor, "Tensor | None"]
Run = Callable[..., Tensor]


class Synthesizer:
    """What makes waves of mels.

    Parameters
    ----------
    runner : Runner
        Of the generator.
    edge_frames : EdgeFrames, optional
        What is put around each mel.
    """

    def __init__(self, runner: Runner, *, edge_frames: EdgeFrames | None) -> None:
        self.runner = runner
        self.edge_frames = edge_frames

    def voice(self, mel: Tensor, condition: Tensor | None = None, sampling: Sampling | None = None) -> Tensor:
        """(bands, T) or (B, bands, T) and (C,) or (B, C) → (T·hop,) or (B, T·hop), on the device of the mel."""
        if is_opaque(self.runner.network):
            return self._streamed(mel, condition, sampling)
        return self._voice(self.runner.fastest(), mel, condition)

    def _streamed(self, mel: Tensor, condition: Tensor | None, sampling: Sampling | None) -> Tensor:
        """Make a wave as a stream does: of frames in order, and of random numbers that belong to them."""
        batch = mel if mel.ndim == 3 else mel[None]
        if not len(batch):
            return self._voice(self.runner.network, mel, condition)
        stream, weight = OpaqueStream(self.runner.network, self.edge_frames, sampling), self.runner.weight
        with self._chosen():
            embedding = None if condition is None else condition.to(weight)
            memory = stream.start(len(batch), embedding)
            windows = torch.split(batch, WINDOW, dim=-1)
            pieces = [
                stream.advance(memory, window.to(weight).contiguous(), ended=number == len(windows))
                for number, window in enumerate(windows, 1)
            ]
            wave = torch.cat(pieces, dim=-1)
        # outside inference mode, so that callers may differentiate what they do next
        wave = wave.clone().to(mel.device)
        return wave if mel.ndim == 3 else wave[0]

    def _is_exact_in_batches(self) -> bool:
        with self._chosen():
            return is_explained(self.runner.network) and self.runner.network.is_exact_in_batches

    def _streamed_together(self, items: Sequence[Item], sampling: Sampling | None) -> list[Tensor]:
        """Make the waves of mels as streams side by side, of which each ends with its mel."""
        waves: dict[int, Tensor] = {}
        longest_first = sorted(range(len(items)), key=lambda number: items[number][0].shape[-1], reverse=True)
        for begin in range(0, len(items), STREAMS):
            numbers = longest_first[begin : begin + STREAMS]
            of_these = None if sampling is None else Sampling(sampling.seeds[numbers], sampling.temperature[numbers])
            made = self._streamed_to_their_ends([items[number] for number in numbers], of_these)
            waves |= zip(numbers, made, strict=True)
        return [waves[number].to(mel.device) for number, (mel, _) in enumerate(items)]

    def _streamed_to_their_ends(self, items: Sequence[Item], sampling: Sampling | None) -> list[Tensor]:
        """Make the waves of mels that are in order, the longest first."""
        stream, weight = OpaqueStream(self.runner.network, self.edge_frames, sampling), self.runner.weight
        mels = [mel.to(weight) for mel, _ in items]
        conditions = [condition.to(weight) for _, condition in items if condition is not None]
        pieces: list[list[Tensor]] = [[] for _ in items]
        with self._chosen():
            memory = stream.start(len(items), torch.stack(conditions) if conditions else None)
            running, at = len(items), 0
            while running:
                shortest = mels[running - 1].shape[-1]
                stop = min(shortest, at + WINDOW)
                going_on = sum(mel.shape[-1] > stop for mel in mels[:running])
                batch = torch.stack([mel[:, at:stop] for mel in mels[:running]])
                made = [*stream.advance(memory, batch, ended=not going_on)]
                if 0 < going_on < running:  # the others end, and what waited in them is due
                    ended = [tensor[going_on:] for tensor in memory]
                    rest = stream.advance(ended, stream.no_frames(running - going_on), ended=True)
                    made[going_on:] = [torch.cat(two) for two in zip(made[going_on:], rest, strict=True)]
                    memory = [tensor[:going_on] for tensor in memory]
                for own, piece in zip(pieces, made, strict=False):
                    own.append(piece)
                running, at = going_on, stop
            waves = [torch.cat(own) for own in pieces]
        return [wave.clone() for wave in waves]  # outside inference mode, as above

    def _voice(self, run: Run, mel: Tensor, condition: Tensor | None) -> Tensor:
        embedding = condition[None] if condition is not None and condition.ndim == 1 else condition
        wave = self._whole(run, mel if mel.ndim == 3 else mel[None], embedding).to(mel.device)
        return wave if mel.ndim == 3 else wave[0]

    def voices(self, items: Sequence[Item], sampling: Sampling | None = None) -> list[Tensor]:
        """Make the wave of each mel, (bands, T), with its condition, (C,): on a GPU, of many of them at once."""
        if is_opaque(self.runner.network):
            if len(items) > 1 and self._is_exact_in_batches():
                return self._streamed_together(items, sampling)
            each = [None if sampling is None else sampling.of(number) for number in range(len(items))]
            return [self._streamed(*item, its) for item, its in zip(items, each, strict=True)]
        run = self.runner.fastest()
        if len(items) > 1 and isinstance(run, CudaGraphs):
            frames = [self._extended(mel).shape[-1] for mel, _ in items]
            if run.pads(min(frames)):
                waves: dict[int, Tensor] = {}
                for batch in batches(frames, WINDOW):
                    waves |= zip(batch, self._together(run, [items[n] for n in batch]), strict=True)
                return [waves[n] for n in range(len(items))]
        return [self._voice(run, *item) for item in items]

    def _together(self, run: CudaGraphs, items: Sequence[Item]) -> list[Tensor]:
        if len(items) == 1:
            return [self._voice(run, *items[0])]
        rows = [self._extended(mel).T.to(self.runner.weight) for mel, _ in items]
        lengths = sent([len(row) for row in rows], self.runner.weight.device, torch.int32)
        conditions = [condition for _, condition in items if condition is not None]
        waves = self._pass(
            partial(run, lengths=lengths),
            pad_sequence(rows, batch_first=True).mT,
            torch.stack(conditions) if conditions else None,
        )
        ends = [len(row) * self.runner.network.hop for row in rows]
        pieces = zip(waves, ends, items, strict=True)
        # outside inference mode, so that callers may differentiate what they do next
        return [self._cut(wave[:end].clone()).to(mel.device) for wave, end, (mel, _) in pieces]

    def _whole(self, run: Run, mel: Tensor, condition: Tensor | None) -> Tensor:
        """(B, bands, T) on any device → (B, T·hop) on the generator's."""
        mel = self._extended(mel)
        frames, hop = mel.shape[-1], self.runner.network.hop
        # outside inference mode, as above
        weight, samples = self.runner.weight, self.runner.network.samples(frames)
        wave = torch.empty(mel.shape[0], samples, device=weight.device, dtype=weight.dtype)
        # a plan holds no more of the features than a tile, however long the mel
        window = max(frames, 1) if isinstance(run, Plan) and run.whole else WINDOW
        past, future = self.runner.network.receptive_field if frames > window else (0, 0)
        for start in range(0, frames if mel.shape[0] else 0, window):
            stop = min(start + window, frames)
            first, last = max(0, start - past), min(frames, stop + future)
            piece = self._pass(run, mel[..., first:last], condition)
            end = stop * hop if stop < frames else samples
            wave[:, start * hop : end] = piece[:, (start - first) * hop : end - first * hop]
        return self._cut(wave)

    def _extended(self, mel: Tensor) -> Tensor:
        return mel if self.edge_frames is None else self.edge_frames.extend(mel)

    def _cut(self, wave: Tensor) -> Tensor:
        if self.edge_frames is None or not self.edge_frames.trimmed:
            return wave
        return self.edge_frames.cut(wave, self.runner.network.hop)

    def _pass(self, run: Run, mel: Tensor, condition: Tensor | None) -> Tensor:
        """Run the network once: (B, bands, T) on any device → (B, T·hop) on the generator's."""
        weight = self.runner.weight
        with self._chosen():
            # in one memory order, so that equal mels give equal samples
            arguments = [value.to(weight).contiguous() for value in (mel, condition) if value is not None]
            return run(*arguments)[:, 0]

    @contextmanager
    def _chosen(self) -> Iterator[None]:
        backend = self.runner.choice.backend
        with torch.inference_mode(), nullcontext() if backend is None else ops.use_backend(backend):
            yield


def batches(frames: Sequence[int], most: int) -> Iterator[list[int]]:
    """Put items of like length together, so that each batch has at most so many frames once it is padded.

    Parameters
    ----------
    frames : sequence of int
        Of each item.
    most : int
        Of a batch; an item that is longer is alone.

    Yields
    ------
    list of int
        The numbers of some items, longest first.

    Examples
    --------
    >>> list(batches([30, 90, 40, 50, 200], most=100))
    [[4], [1], [3, 2], [0]]
    """
    waiting = sorted(range(len(frames)), key=lambda item: frames[item], reverse=True)
    while waiting:
        count = max(1, most // frames[waiting[0]])
        yield waiting[:count]
        waiting = waiting[count:]

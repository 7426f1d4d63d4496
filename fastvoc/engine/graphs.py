"""A generator on a GPU as CUDA graphs: one launch for all of its kernels, for each batch size and bucket of lengths.

The kernels of a short mel take less time than Python needs to launch them one by one. A graph is recorded for a fixed
number of frames, its bucket; the true lengths lie in device memory, where the kernels read them, so that a shorter mel
gives the samples that it gives alone, to the bit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.blocks import Conv1d, ResidualBlocks
from fastvoc.engine.passes import Operators, Pass
from fastvoc.engine.watch import Watch
from fastvoc.models import Generator
from fastvoc.ops._layout import to_channels_last

LONGEST = 2048
"""Frames of the largest bucket. The launches of a longer mel are hidden behind its kernels."""

MOST = 16
"""Graphs that are kept; each holds the features of its bucket in device memory."""

Run = Callable[[], Tensor]
Capture = Callable[[Run], tuple[Callable[[], Any], Tensor]]


def bucket_of(frames: int) -> int:
    """Return the frames of the graph for a mel: a quarter more at most, beyond 32 frames, and few different numbers.

    >>> [bucket_of(frames) for frames in (1, 32, 33, 86, 1000)]
    [8, 32, 40, 96, 1024]
    """
    step = max(8, (1 << frames.bit_length()) >> 3)
    return -(-frames // step) * step


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A recorded pass, and the memory that it reads and writes."""

    mel: Tensor
    lengths: Tensor
    condition: Tensor | None
    wave: Tensor
    replay: Callable[[], Any]


class Graphs:
    """Run a generator by CUDA graphs, or as it is where there is a reason not to.

    Threads may share it: graphs are played one at a time.

    Parameters
    ----------
    generator : Generator
    make : callable
        Makes a pass of the generator with its weights as they are, at the first call, and again when they have changed.
    capture : callable
        Turns a function without arguments into its replay and the tensor in which that leaves the result; by default
        it records a CUDA graph.
    most : int
        Graphs that are kept; the one that was used longest ago makes way.
    """

    def __init__(
        self,
        generator: Generator,
        make: Callable[[Generator], Pass] = Operators,
        *,
        capture: Capture | None = None,
        most: int = MOST,
    ) -> None:
        self.generator = generator
        self.make = make
        self.capture = capture or _Recorder()
        self.most = most
        self.graphs: OrderedDict[tuple[int, int], Graph] = OrderedDict()
        self._pass: Pass | None = None
        self._reach = max(generator.receptive_field) if _reflects(generator) else 0
        self._weights = Watch(generator)
        self._lock = threading.RLock()
        self._done: Any = None

    def explain(self, batch: int, frames: int) -> str | None:
        """Return why mels of this shape run without a graph, or None."""
        with self._lock:
            return self._why_not(self._fresh(), batch, frames)

    def _why_not(self, run: Pass, batch: int, frames: int) -> str | None:
        if run.unrecordable is not None:
            return run.unrecordable
        if self.device.type != "cuda" and isinstance(self.capture, _Recorder):
            return f"its weights are on {self.device}; graphs are recorded on a CUDA device"
        if not batch or not frames:
            return "the mel is empty"
        if frames > LONGEST:
            return f"the mel has {frames} frames; graphs are recorded up to {LONGEST}, launches cost little beyond"
        if frames <= self._reach:
            return f"the mel has {frames} frames; layers that reflect need more than {self._reach} to be sure of enough"
        return None

    def pads(self, shortest: int) -> bool:
        """Tell whether mels of different lengths, of which this is the least, can run as one batch."""
        with self._lock:
            return self._fresh().unrecordable is None and shortest > self._reach

    def __call__(self, mel: Tensor, condition: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Make waves.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        condition : Tensor, shape (B, C), optional
            Where the generator is conditioned.
        lengths : Tensor, shape (B,), int32, optional
            Frames of each mel, on its device, if `pads` allows it; each wave is then that of the mel alone, to the bit,
            and what stands behind its end means nothing.

        Returns
        -------
        Tensor, shape (B, 1, T·hop)
        """
        batch, _, frames = mel.shape
        with torch.inference_mode():
            with self._lock:
                run = self._fresh()
            if self._why_not(run, batch, frames) is None:
                return self._play(mel, condition, lengths)
            if lengths is None:
                return run(mel, condition)
            with self._alone(mel):
                return run.padded(mel, lengths, condition)

    def _play(self, mel: Tensor, condition: Tensor | None, lengths: Tensor | None) -> Tensor:
        frames = mel.shape[-1]
        with self._alone(mel):
            graph = self._graph(self._fresh(), mel, condition)
            graph.mel[..., :frames].copy_(mel)
            if lengths is None:
                graph.lengths.fill_(frames)
            else:
                graph.lengths.copy_(lengths)
            if graph.condition is not None and condition is not None:
                graph.condition.copy_(condition)
            graph.replay()
            return graph.wave[..., : frames * self.generator.hop].clone()

    @contextmanager
    def _alone(self, mel: Tensor) -> Iterator[None]:
        """Keep calls that share memory apart, whatever their streams."""
        if mel.device.type != "cuda":
            with self._lock:
                yield
            return
        with self._lock, torch.cuda.device(mel.device):
            stream = torch.cuda.current_stream()
            if self._done is not None:
                stream.wait_event(self._done)
            yield
            self._done = self._done or torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(stream)

    def _graph(self, run: Pass, mel: Tensor, condition: Tensor | None) -> Graph:
        key = (mel.shape[0], bucket_of(mel.shape[-1]))
        if key not in self.graphs:
            while len(self.graphs) >= self.most:
                self.graphs.popitem(last=False)
            self.graphs[key] = self._record(run, *key, mel, condition)
        self.graphs.move_to_end(key)
        return self.graphs[key]

    def _record(self, run: Pass, batch: int, bucket: int, mel: Tensor, condition: Tensor | None) -> Graph:
        own = to_channels_last(mel.new_zeros(batch, mel.shape[1], bucket))
        own_condition = None if condition is None else condition.clone()
        lengths = torch.full((batch,), bucket, dtype=torch.int32, device=mel.device)
        replay, wave = self.capture(lambda: run.padded(own, lengths, own_condition))
        return Graph(mel=own, lengths=lengths, condition=own_condition, wave=wave, replay=replay)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.generator.parameters()).device

    def _fresh(self) -> Pass:
        """Return a pass with the weights as they are, and drop what was recorded with others."""
        if self._pass is None or self._weights.changed():
            if self._pass is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # other streams may still read what goes now
            self.graphs.clear()
            self._weights.look()
            self._pass = self.make(self.generator)
        return self._pass


def _reflects(generator: Generator) -> bool:
    return any(
        isinstance(part, (Conv1d, ResidualBlocks)) and part.padding_mode == "reflect" for part in generator.modules()
    )


class _Recorder:
    """Records CUDA graphs, which share the memory of what they compute on the way, since they never run together."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, run: Run) -> tuple[Callable[[], Any], Tensor]:
        """Record a graph, after one pass that compiles the kernels, packs the weights and fills the tables."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            wave = run()
        return graph.replay, wave

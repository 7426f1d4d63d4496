"""A generator on a GPU as CUDA graphs: one launch for all of its kernels, for each batch size and bucket of lengths.

The kernels of a short mel take less time than Python needs to launch them one by one. A graph is recorded for a fixed
number of frames, its bucket; the true lengths lie in device memory, where the kernels read them, so that a shorter mel
gives the samples that it gives alone, to the bit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.blocks import Conv1d, ResidualBlocks, WaveHead
from fastvoc.engine.watch import Watch
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import backends, use_backend
from fastvoc.ops._layout import to_channels_last
from fastvoc.ops._triton.packing import keep
from fastvoc.ops._triton.ragged import ragged

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

    Threads may share it: one call runs at a time.

    Parameters
    ----------
    generator : Generator
        Its weights are packed at the first call, and again when they have changed.
    backend : {"triton", "reference"}
        What the operators run on; only Triton's kernels know of lengths, so that others are right for whole buckets.
    capture : callable
        Turns a function without arguments into its replay and the tensor in which that leaves the result.
    most : int
        Graphs that are kept; the one that was used longest ago makes way.
    """

    def __init__(
        self, generator: Generator, *, backend: str = "triton", capture: Capture | None = None, most: int = MOST
    ) -> None:
        self.generator = generator
        self.backend = backend
        self.capture = capture or _Recorder()
        self.most = most
        self.graphs: OrderedDict[tuple[int, int], Graph] = OrderedDict()
        self._reason = _shapeless(generator)
        # Some layer reflects at most as many frames as the network reaches: beyond, every layer has enough of them.
        self._reach = max(generator.receptive_field) if self._reason is None and _reflects(generator) else 0
        self._packed: dict[Any, Tensor] = {}
        self._weights = Watch(generator)
        self._lock = threading.Lock()
        self._done: Any = None

    @staticmethod
    def refuses(generator: Generator) -> str | None:
        """Return why a generator cannot run by graphs, or None.

        Parameters
        ----------
        generator : Generator
            With the weights, on the device and in the dtype that it is to run with.
        """
        weight = next(generator.parameters())
        if weight.device.type != "cuda":
            return f"its weights are on {weight.device}; graphs run on a CUDA device"
        if absent := backends()["triton"]:
            return absent
        return _shapeless(generator)

    def explain(self, batch: int, frames: int) -> str | None:
        """Return why mels of this shape run without a graph, or None."""
        if self._reason is not None:
            return self._reason
        if not batch or not frames:
            return "the mel is empty"
        if frames > LONGEST:
            return f"the mel has {frames} frames; graphs are recorded up to {LONGEST}, launches cost little beyond"
        if frames <= self._reach:
            return f"the mel has {frames} frames; layers that reflect need more than {self._reach} to be sure of enough"
        return None

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make a wave: (B, bands, T) and, where the generator is conditioned, (B, C) → (B, 1, T·hop)."""
        batch, _, frames = mel.shape
        with self._lock, torch.inference_mode():
            if self.explain(batch, frames) is not None:
                wave: Tensor = self.generator(mel) if condition is None else self.generator(mel, condition)
                return wave
            if self._weights.changed():
                self._forget()
            on_gpu = mel.device.type == "cuda"
            if on_gpu and self._done is not None:
                # The last call may be under way on another stream, in the same memory.
                torch.cuda.current_stream(mel.device).wait_event(self._done)
            graph = self._graph(mel, condition)
            graph.mel[..., :frames].copy_(mel)
            graph.lengths.fill_(frames)
            if graph.condition is not None and condition is not None:
                graph.condition.copy_(condition)
            graph.replay()
            wave = graph.wave[..., : frames * self.generator.hop].clone()
            if on_gpu:
                self._done = self._done or torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._done.record(torch.cuda.current_stream(mel.device))
            return wave

    def _graph(self, mel: Tensor, condition: Tensor | None) -> Graph:
        key = (mel.shape[0], bucket_of(mel.shape[-1]))
        if key not in self.graphs:
            while len(self.graphs) >= self.most:
                self.graphs.popitem(last=False)
            self.graphs[key] = self._record(*key, mel, condition)
        self.graphs.move_to_end(key)
        return self.graphs[key]

    def _record(self, batch: int, bucket: int, mel: Tensor, condition: Tensor | None) -> Graph:
        own = to_channels_last(mel.new_zeros(batch, mel.shape[1], bucket))
        own_condition = None if condition is None else condition.clone()
        lengths = torch.full((batch,), bucket, dtype=torch.int32, device=mel.device)

        def run() -> Tensor:
            with ExitStack() as stack:
                stack.enter_context(use_backend(self.backend))
                stack.enter_context(ragged(lengths, bucket))
                stack.enter_context(keep(self._packed))
                wave: Tensor = self.generator(own) if own_condition is None else self.generator(own, own_condition)
                return wave

        replay, wave = self.capture(run)
        return Graph(mel=own, lengths=lengths, condition=own_condition, wave=wave, replay=replay)

    def _forget(self) -> None:
        """Drop what was made of other weights."""
        self.graphs.clear()
        self._packed.clear()
        self._weights.look()


def _shapeless(generator: Generator) -> str | None:
    """Return why a padded mel would not give the samples of the mel alone, or None."""
    if not isinstance(generator, TrunkGenerator) or type(generator).forward is not TrunkGenerator.forward:
        return f"{type(generator).__name__} is not a trunk and a head"
    if not isinstance(generator.head, WaveHead):
        return f"{type(generator.head).__name__} computes outside the operators, which alone know where a mel ends"
    return None


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

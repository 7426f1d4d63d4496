"""A generator on a GPU as CUDA graphs: one launch for all of its kernels, for each batch size and bucket of lengths.

The kernels of a short mel take less time than Python needs to launch them one by one. A graph is recorded for a fixed
number of frames, its bucket; the true lengths lie in device memory, where the kernels read them, so that a shorter mel
gives the samples that it gives alone, to the bit.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastvoc.engine.runs import outside_operators
from fastvoc.engine.weight_version import WeightVersion
from fastvoc.graph import Network
from fastvoc.ops import backends, use_backend
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.packing import keep
from fastvoc.ops.ragged import ragged

LONGEST = 2048
"""Frames of the largest bucket. The launches of a longer mel are hidden behind its kernels."""

MOST = 16
"""CudaGraphs that are kept; each holds the features of its bucket in device memory."""

UNRECORDED = 2
"""Uses of a shape before a graph of it is recorded: with dynamic batches most shapes come once or twice, and recording
takes two passes and waits for the whole device."""

Run = Callable[[], Tensor]
Capture = Callable[[Run], tuple[Callable[[], Any], Tensor]]


def bucket_of(frames: int) -> int:
    """Return the frames of the graph for a mel: a quarter more at most, beyond 32 frames, and few different numbers.

    >>> [bucket_of(frames) for frames in (1, 32, 33, 86, 1000)]
    [8, 32, 40, 96, 1024]
    """
    step = max(8, (1 << frames.bit_length()) >> 3)
    return -(-frames // step) * step


def key_of(batch: int, frames: int) -> tuple[int, int]:
    """Return items and frames of the graph for a batch: few different ones, twice as many items at most.

    >>> [key_of(batch, 33) for batch in (1, 2, 3, 8, 9)]
    [(1, 40), (2, 40), (4, 40), (8, 40), (16, 40)]
    """
    return 1 << max(batch - 1, 0).bit_length(), bucket_of(frames)


class Pass(Protocol):
    """A generator with its weights as they are now."""

    unrecordable: str | None
    """Why no graph can be recorded of it, or None."""

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where the generator is conditioned, (B, C) → (B, 1, T·hop)."""

    def padded(self, mel: Tensor, lengths: Tensor, condition: Tensor | None = None) -> Tensor:
        """Do the same with mels that end before the tensor does; one call at a time, which may keep packed weights.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        lengths : Tensor, shape (B,), int32
            Frames of each mel, on its device, which are read when the kernels run.
        condition : Tensor, shape (B, C), optional
        """


class Operators:
    """A generator operator by operator.

    Parameters
    ----------
    generator : Network
    backend : {"triton", "cuda", "reference"}
        What padded mels run on; only kernels of a GPU know of lengths, so that others are right for whole ones.
    unrecordable : str, optional
        Why no graph is to be recorded of it.
    """

    def __init__(self, generator: Network, *, backend: str = "triton", unrecordable: str | None = None) -> None:
        self.generator = generator
        self.backend = backend
        self.unrecordable = unrecordable or outside_operators(generator)
        self._packed: dict[Any, Any] = {}

    @staticmethod
    def refuses(generator: Network) -> str | None:
        """Return why a generator cannot be recorded with Triton's kernels, or None.

        Parameters
        ----------
        generator : Network
            With the weights, on the device and in the dtype that it is to run with.
        """
        weight = next(generator.parameters())
        if weight.device.type != "cuda":
            return f"its weights are on {weight.device}; graphs run on a CUDA device"
        return backends()["triton"] or outside_operators(generator)

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where the generator is conditioned, (B, C) → (B, 1, T·hop)."""
        wave: Tensor = self.generator(mel) if condition is None else self.generator(mel, condition)
        return wave

    def padded(self, mel: Tensor, lengths: Tensor, condition: Tensor | None = None) -> Tensor:
        """Run on mels that end before the tensor does, as `Pass.padded`."""
        with use_backend(self.backend), ragged(lengths, mel.shape[-1]), keep(self._packed):
            return self(mel, condition)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded pass, and the memory that it reads and writes."""

    mel: Tensor
    lengths: Tensor
    condition: Tensor | None
    wave: Tensor
    replay: Callable[[], Any]


class CudaGraphs:
    """Run a generator by CUDA graphs, or as it is where there is a reason not to.

    Threads may share it: graphs are played one at a time.

    Parameters
    ----------
    generator : Network
    make : callable
        Makes a pass of the generator with its weights as they are, at the first call, and again when they have changed.
    capture : callable
        Turns a function without arguments into its replay and the tensor in which that leaves the result; by default
        it records a CUDA graph.
    most : int
        CudaGraphs that are kept; the one that was used longest ago makes way, unless it was used more often.
    unrecorded : int
        Uses of a shape before a graph of it is recorded.
    version : WeightVersion, optional
        Of the generator, where somebody has one already.
    """

    def __init__(
        self,
        generator: Network,
        make: Callable[[Network], Pass] = Operators,
        *,
        capture: Capture | None = None,
        most: int = MOST,
        unrecorded: int = UNRECORDED,
        version: WeightVersion | None = None,
    ) -> None:
        self.generator = generator
        self.make = make
        self.capture = capture or _Recorder()
        self.most = most
        self.unrecorded = unrecorded
        self.graphs: OrderedDict[tuple[int, int], Recording] = OrderedDict()
        self._uses: Counter[tuple[int, int]] = Counter()
        self._failed: dict[tuple[int, int], str] = {}
        self._pass: Pass | None = None
        self._reach = _reach(generator)
        self._version = version or WeightVersion(generator)  # type: ignore[arg-type]
        self._revision = self._version.revision()
        self._lock = threading.RLock()
        self._done: Any = None

    def explain(self, batch: int, frames: int) -> str | None:
        """Return why mels of this shape run without a graph, or None."""
        with self._lock:
            if reason := self._why_not(self._fresh(), batch, frames):
                return reason
            key = key_of(batch, frames)
            if key not in self.graphs and self._uses[key] < self.unrecorded:
                return f"mels of its shape came {self._uses[key]} times; the graph is recorded after {self.unrecorded}"
            return None

    @property
    def failure(self) -> str | None:
        """Why a graph could not be recorded, of the latest shape of which that is so, or None."""
        return next(reversed(self._failed.values()), None)

    def _why_not(self, run: Pass, batch: int, frames: int) -> str | None:
        if run.unrecordable is not None:
            return run.unrecordable
        if self.device.type != "cuda" and isinstance(self.capture, _Recorder):
            return f"its weights are on {self.device}; graphs are recorded on a CUDA device"
        if not batch or not frames:
            return "the mel is empty"
        if frames > LONGEST:
            return f"the mel has {frames} frames; graphs are recorded up to {LONGEST}, launches cost little beyond"
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "its caller records a CUDA graph"
        if reason := self._failed.get(key_of(batch, frames)):
            return reason
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
                return self._play(run, mel, condition, lengths)
            if lengths is None:
                return run(mel, condition)
            with self._alone(mel):
                return run.padded(mel, lengths, condition)

    def _play(self, run: Pass, mel: Tensor, condition: Tensor | None, lengths: Tensor | None) -> Tensor:
        batch, _, frames = mel.shape
        with self._alone(mel):
            # another thread may have noticed newer weights meanwhile
            run = self._pass or run
            graph = self._graph(run, mel, condition)
            if graph is None:
                return run(mel, condition) if lengths is None else run.padded(mel, lengths, condition)
            # items beyond the batch keep what they have, which nobody reads
            graph.mel[:batch, :, :frames].copy_(mel)
            if lengths is None:
                graph.lengths.fill_(frames)
            else:
                graph.lengths[:batch].copy_(lengths)
            if graph.condition is not None and condition is not None:
                graph.condition[:batch].copy_(condition)
            graph.replay()
            return graph.wave[:batch, :, : frames * self.generator.hop].clone()

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

    def _graph(self, run: Pass, mel: Tensor, condition: Tensor | None) -> Recording | None:
        """Return the recording of a shape, or None where it is run as it is."""
        key = key_of(mel.shape[0], mel.shape[-1])
        self._uses[key] += 1
        if key not in self.graphs and not self._recorded(run, key, mel, condition):
            return None
        self.graphs.move_to_end(key)
        return self.graphs[key]

    def _recorded(self, run: Pass, key: tuple[int, int], mel: Tensor, condition: Tensor | None) -> bool:
        """Record a shape, unless it is too new, or would take the place of one that is used more."""
        if self._uses[key] <= self.unrecorded:
            return False
        while len(self.graphs) >= self.most:
            oldest = next(iter(self.graphs))
            if self._uses[oldest] > self._uses[key]:
                self._uses[oldest] -= 1  # so that one which is never used again makes way some day
                return False
            del self.graphs[oldest]
        try:
            self.graphs[key] = self._record(run, *key, mel, condition)
        except RuntimeError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self._failed[key] = f"its graph could not be recorded: {reason}"
            return False
        return True

    def _record(self, run: Pass, batch: int, bucket: int, mel: Tensor, condition: Tensor | None) -> Recording:
        own = to_channels_last(mel.new_zeros(batch, mel.shape[1], bucket))
        own_condition = None if condition is None else condition.new_zeros(batch, *condition.shape[1:])
        lengths = torch.full((batch,), bucket, dtype=torch.int32, device=mel.device)
        replay, wave = self.capture(lambda: run.padded(own, lengths, own_condition))
        return Recording(mel=own, lengths=lengths, condition=own_condition, wave=wave, replay=replay)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.generator.parameters()).device

    def _fresh(self) -> Pass:
        """Return a pass with the weights as they are, and drop what was recorded with others."""
        revision = self._version.revision()
        if self._pass is None or revision != self._revision:
            if self._pass is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # other streams may still read what goes now
            self.graphs.clear()
            self._failed.clear()
            self._pass = self.make(self.generator)
            self._revision = revision  # not before there is a pass: making it may fail, or be interrupted
        return self._pass


def _reach(network: Network) -> int:
    """Count the frames that a shorter mel would have to reflect for."""
    try:
        reflects = any(node.edges == "reflect" for node in network.graph().nodes)
    except TypeError:  # a module does not say what it reads, and so is never padded
        return 0
    return max(network.receptive_field) if reflects else 0


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
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            wave = run()
        return graph.replay, wave

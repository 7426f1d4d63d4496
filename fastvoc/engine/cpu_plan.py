"""Runs of convolutions on the CPU as one native call: weights packed once, tiles that pass many layers while cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.engine.runs import altered, as_layers, has_packed, outside, runs_of, split
from fastvoc.engine.stream import Stream
from fastvoc.graph import Graph, Native, Network
from fastvoc.ops import backends
from fastvoc.ops.network import Quantization, describe, too_short, with_weights

WINDOW = 512
"""Frames of one native call, which nothing can interrupt: of HiFi-GAN V1, a third of a second on two cores."""


Int8 = Mapping[int, Quantization]
"""How layers that multiply in 8 bits write what they read, by number."""


class Plan:
    """A generator compiled for the instruction set in use: runs of its nodes are native calls, the others operators.

    Threads may share a plan: what a call needs of memory is its own. It keeps the weights that it was made with.

    Parameters
    ----------
    generator : Network
        One that `Plan.refuses` does not refuse.
    in_order : bool
        Sum every output in the operators' order, so that results are theirs to the bit, instead of multiplying less.
        A generator that is no single run is always summed so.
    int8 : dict of int to Quantization, optional
        How layers that multiply in 8 bits write what they read, by number. All others multiply in
        bfloat16, whatever the dtype of the weights.

    Raises
    ------
    ValueError
        If the generator has no such layer.
    """

    def __init__(self, generator: Network, *, in_order: bool = False, int8: Int8 | None = None) -> None:
        self.generator = generator
        self._settings = (in_order, int8)
        weight = next(generator.parameters())
        self.whole = outside(generator) is None
        """Whether it is a single native call, which holds no more of the features than a tile."""
        in_order = in_order or not self.whole
        graph = generator.graph().fused()
        # between packed nodes rows stay in single precision
        made = torch.float32 if has_packed(graph) else weight.dtype
        make = partial(NativeRun, dtype=weight.dtype, made=made, in_order=in_order, int8=int8)
        self.graph = split(graph, make, dtype=weight.dtype)
        self.runs = [node for node in self.graph.nodes if isinstance(node, NativeRun)]
        self._stream = Stream(
            self.graph,
            hop=generator.hop,
            like=weight.new_empty(1, generator.mel_bands, 0),
            condition_channels=generator.condition_channels,
        )

    @staticmethod
    def refuses(generator: Network) -> str | None:
        """Return why no part of a generator can be a native call, or None.

        Parameters
        ----------
        generator : Network
            With the weights, on the device and in the dtype that it is to run with.
        """
        weight = next(generator.parameters())
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}; a plan runs on the CPU"
        if absent := backends()["cpu"]:
            return absent
        if weight.dtype not in _PRECISIONS:
            return f"its weights are {weight.dtype}; a plan computes in torch.float32 or torch.bfloat16"
        if weight.dtype == torch.bfloat16 and not native.multiplies_bfloat16():
            return "this processor does not multiply torch.bfloat16; torch.float32 is faster on it"
        try:
            graph, reason = generator.graph().fused(), outside(generator)
        except TypeError as error:
            return str(error)
        if has_packed(graph):
            return altered(generator, graph)
        if not runs_of(graph):
            return reason or "no two of its convolutions follow one another"
        if reason is not None and weight.dtype != torch.float32:
            return f"{reason}; parts of it are plans in torch.float32 only, where they give the operators' bits"
        return None

    @staticmethod
    def refuses_int8(generator: Network) -> str | None:
        """Return why a generator has no plan with layers that multiply in 8 bits, or None."""
        if reason := Plan.refuses(generator) or outside(generator):
            return reason
        return None if native.multiplies_bfloat16() else "this processor does not multiply 8-bit integers (AVX512_VNNI)"

    def __reduce__(self) -> tuple[Any, ...]:
        # packed weights belong to this processor, and are made again from the generator's
        in_order, int8 = self._settings
        return partial(Plan, in_order=in_order, int8=int8), (self.generator,)

    @property
    def toom_cook_layers(self) -> int:
        """Layers that multiply less by Toom-Cook's method."""
        return sum(run.toom_cook_layers for run in self.runs)

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make a wave: (B, bands, T) and, where the generator is conditioned, (B, C) → (B, 1, T·hop).

        Raises
        ------
        ValueError
            If the mel is too short for what the generator reflects at its ends.
        """
        return self._stream.whole(mel, condition)


class NativeRun(Native):
    """Convolutions that follow one another, packed for the instruction set in use.

    Parameters
    ----------
    graph : Graph
        Of convolutions alone.
    dtype : torch.dtype
        Of the signal; float32 or bfloat16.
    made : torch.dtype, optional
        Of the result, if it is another one.
    in_order, int8
        As in `Plan`.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        dtype: torch.dtype,
        made: torch.dtype | None = None,
        in_order: bool = False,
        int8: Int8 | None = None,
    ) -> None:
        self.graph = graph
        self._made = made or dtype
        self._layers = as_layers(graph)
        layers = list(self._layers)
        for number, steps in (int8 or {}).items():
            if number not in range(len(layers)):
                raise ValueError(f"Plan: layer {number} is to multiply in 8 bits, but there are only {len(layers)}")
            layers[number] = replace(layers[number], int8=steps)
        self._channels = layers[-1].out_channels
        _, library = native.library()
        layers = with_weights(layers, torch.float32)
        precision = _PRECISIONS[dtype if int8 is None else torch.bfloat16]
        described = describe(layers, precision=precision, isa=native.isa(), in_order=in_order)
        network = described.pointer
        self._plan = native.host_memory(library.fastvoc_plan_size(network), dtype=torch.uint8)
        native.check("plan", library.fastvoc_plan_make(network, _pointer(self._plan)))
        self._packed = native.host_memory(library.fastvoc_plan_packed_size(_pointer(self._plan)), dtype=torch.uint8)
        threads = torch.get_num_threads()
        code = library.fastvoc_plan_pack(network, _pointer(self._plan), threads, _pointer(self._packed))
        native.check("plan", code)

    @property
    def toom_cook_layers(self) -> int:
        """Layers that multiply less by Toom-Cook's method."""
        _, library = native.library()
        return int(library.fastvoc_plan_toom_cook_layers(_pointer(self._plan)))

    def whole(self, rows: Tensor) -> Tensor:
        """Run on a whole signal: (B, C, n) → (B, C', m)."""
        # streams one after the other share a state, and each is as fast as all threads make it
        results = [self._advanced(item[None]) for item in rows]
        return torch.cat(results) if len(results) != 1 else results[0]

    def _advanced(self, mel: Tensor) -> Tensor:
        """(1, C, n) → (1, C', m), in windows, between which Python handles signals."""
        frames, done = mel.shape[-1], 0
        states = self.start(1)
        total = self._ready(states, frames, ended=True, known=frames)
        rows = self._rows(1, total)
        for start in range(0, max(frames, 1), WINDOW):
            window, ended = mel[..., start : start + WINDOW], start + WINDOW >= frames
            count = total - done if ended else self._ready(states, window.shape[-1], ended=False, known=frames)
            self._run(states, window, rows[..., done : done + count], ended=ended)
            done += count
        return rows.to(self._made)

    def start(self, batch: int) -> Tensor:
        """Return the state of streams of which nothing has come, as bytes: (batch, size)."""
        _, library = native.library()
        states = native.host_memory(batch, library.fastvoc_plan_state_size(_pointer(self._plan)), dtype=torch.uint8)
        for state in states:
            library.fastvoc_plan_begin(_pointer(self._plan), _pointer(state))
        return states

    def advance(self, state: Tensor, rows: Tensor, *, ended: bool, known: int) -> tuple[Tensor, Tensor]:
        """Advance streams.

        Parameters
        ----------
        state : Tensor, shape (B, size), uint8
        rows : Tensor, shape (B, C, n)
            What is new of the input; there may be none.
        ended : bool
            Whether no others follow.
        known : int
            All that has come of each stream, these included, for the message of the error.

        Returns
        -------
        Tensor, Tensor
            The state behind them, and the rows of the result that are now certain, (B, C', m).

        Raises
        ------
        ValueError
            If a stream ends that is too short for what is reflected at its ends.
        """
        state = state.clone()
        results = self._rows(len(state), self._ready(state, rows.shape[-1], ended=ended, known=known))
        self._run(state, rows, results, ended=ended)
        return state, results.to(self._made)

    def _rows(self, batch: int, count: int) -> Tensor:
        # channels are neighbours in memory, as in the tiles that are written, and as functions of rows read them
        return native.host_memory(batch, count, self._channels, dtype=torch.float32).mT

    def _ready(self, states: Tensor, new: int, *, ended: bool, known: int) -> int:
        """Count the rows that are certain once so many new ones have come."""
        _, library = native.library()
        ready = {library.fastvoc_plan_ready(_pointer(self._plan), _pointer(state), new, ended) for state in states}
        if -1 in ready:
            raise ValueError(too_short(self._layers, known) or f"Plan: {known} frames are too few")
        if len(ready) > 1:
            raise ValueError("Plan: the streams were given different numbers of frames")
        return int(ready.pop()) if ready else 0

    def _run(self, states: Tensor, rows: Tensor, results: Tensor, *, ended: bool) -> None:
        """Advance streams, and write the rows that are then certain."""
        ffi, library = native.library()
        plan, threads = _pointer(self._plan), torch.get_num_threads()
        workspace = native.scratch(library.fastvoc_plan_workspace_size(plan, threads) // 4)
        rows = rows.resolve_neg().float()
        for state, x, y in zip(states, rows, results, strict=True):
            code = library.fastvoc_plan_run(
                plan,
                _pointer(self._packed),
                _pointer(state),
                _pointer(workspace),
                threads,
                ffi.cast("float *", x.data_ptr()),
                (0, *x.stride()),
                rows.shape[-1],
                ended,
                ffi.cast("float *", y.data_ptr()),
                (0, *y.stride()),
            )
            native.check("plan", code)


_PRECISIONS = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16"}


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

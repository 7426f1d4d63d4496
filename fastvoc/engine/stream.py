"""Any graph in pieces: every row is computed once, and what later rows still read is kept.

How far each node has come depends on the number of frames alone, and so does what is kept of its result: a stream
remembers that number, as the length of a tensor, and the kept rows. Beyond the receptive field the number is any, so
that streams that began apart remember equally much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.graph import CONDITION, INPUT, Convolution, Graph, Native, Node, Opaque, Window

Memory = list[Tensor]
"""What streams remember; every tensor has them side by side in its first axis, is replaced and never written into."""


MOST_PLANNED = 512
"""Pushes whose plan is kept: one for each number of frames in the beginning, then one for each length of a chunk."""


class Piece(NamedTuple):
    """What a node reads of one input: rows, counted from the first that is there, and how many are laid around."""

    source: int
    begin: int
    end: int
    left: int
    right: int


class Step(NamedTuple):
    """What a node computes in one push."""

    number: int
    first: int
    last: int
    pieces: tuple[Piece, ...]
    begin: int
    """The number of the first row of the first input in the window."""
    known: int
    """Rows of the first input."""


class Push(NamedTuple):
    """What happens in one push."""

    steps: tuple[Step, ...]
    keeps: tuple[int, ...]
    """Of the input and of each node, the latest rows that are kept."""
    result: tuple[int, int]
    """Rows of the result that are returned, counted likewise."""
    received: int
    """Frames that count behind it."""


class EdgeFrames(Protocol):
    """What is put around a mel; `fastvoc.checkpoints.InferenceFrames` says why."""

    @property
    def replicated_frames(self) -> int:
        """Frames equal to the first and the last, at each end."""

    @property
    def appended_frames(self) -> int:
        """Frames of one value that follow them."""

    @property
    def appended_value(self) -> float:
        """That value."""

    @property
    def trimmed(self) -> bool:
        """Whether their samples are cut off again."""

    def extend(self, mel: Tensor) -> Tensor:
        """Add the frames: (…, bands, T) → (…, bands, T + added)."""

    def cut(self, wave: Tensor, hop: int) -> Tensor:
        """Keep the samples of the mel that was extended: (…, (T + added)·hop) → (…, T·hop)."""


def extended(edge_frames: EdgeFrames, memory: Memory, place: int, mel: Tensor, *, ended: bool) -> Tensor:
    """Put frames around streams; their latest frame is remembered at a place of the memory."""
    begins = not memory[place].shape[-1]
    known = torch.cat([memory[place], mel], dim=-1)
    memory[place] = known[..., -1:].clone()
    count = edge_frames.replicated_frames
    before = known[..., :1].expand(-1, -1, count if begins else 0)
    if not ended:
        return torch.cat([before, mel], dim=-1)
    after = known[..., -1:].expand(-1, -1, count)
    silence = mel.new_full((*mel.shape[:-1], edge_frames.appended_frames), edge_frames.appended_value)
    return torch.cat([before, mel, after, silence], dim=-1)


class Stream:
    """A graph that takes its input in pieces; it holds no stream itself, so that any number share it.

    Parameters
    ----------
    graph : Graph
        Its weights are used where they are.
    hop : int
        Rows of the result per row of the input: only whole hops are returned before the end.
    like : Tensor, shape (1, bands, 0)
        Of the device and dtype in which streams run.
    condition_channels : int
    edge_frames : EdgeFrames, optional
        What is put around the input.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        hop: int,
        like: Tensor,
        condition_channels: int = 0,
        edge_frames: EdgeFrames | None = None,
    ) -> None:
        self.graph = graph = graph.expanded()
        self.hop = hop
        self.like = like
        self.condition_channels = condition_channels
        self.edge_frames = edge_frames
        self.recomputes = any(isinstance(node, Opaque) for node in graph.nodes)
        self._constant = graph.constants
        self._natives = [number for number, node in enumerate(graph.nodes) if isinstance(node, Native)]
        self._readers = {n: graph.readers(n) for n in range(-1, len(graph.nodes))}
        past, self.latency = graph.needs(0, hop - 1)
        self._young = self.latency - past + 1
        self._pushes: dict[tuple[int, int, bool], Push] = {}

    def start(self, batch: int, condition: Tensor | None = None) -> Memory:
        """Return the memory of streams of which nothing has come.

        Parameters
        ----------
        batch : int
            Streams side by side.
        condition : Tensor, shape (condition_channels,) or (batch, condition_channels), optional

        Raises
        ------
        ValueError
            If the condition is missing, unwanted or of another shape.
        """
        self._check_given(condition)
        results: dict[int, Tensor] = {}
        if condition is not None:
            channels = self.condition_channels
            if condition.shape not in (torch.Size([channels]), torch.Size([batch, channels])):
                raise ValueError(
                    f"Streamer: condition has shape {tuple(condition.shape)}; it must be ({channels},) or "
                    f"({batch}, {channels})"
                )
            results[CONDITION] = condition.expand(batch, -1)[..., None]
            self._compute_constants(results)
        none = self.no_frames(batch)
        # frames that count; the latest one; rows that are kept of the mel and of each node; states of native runs
        memory = [none.new_empty(batch, 1, 0), none, none]
        for number, node in enumerate(self.graph.nodes):
            channels_out = node.out_channels if isinstance(node, Convolution) else 1
            memory.append(results[number] if self._constant[number] else none.new_empty(batch, channels_out, 0))
        return [*memory, *(self.graph.nodes[number].start(batch) for number in self._natives)]  # type: ignore[attr-defined]

    def fits(self, memory: Sequence[Tensor]) -> bool:
        """Tell whether a memory, of any number of streams, can be of this graph."""
        own = self.start(1, None if not self.condition_channels else self.like.new_zeros(self.condition_channels))
        known = [0, 1, 2, *(3 + n for n, node in enumerate(self.graph.nodes) if isinstance(node, Convolution))]
        known += range(3 + len(self.graph.nodes), len(own))
        return (
            len(memory) == len(own)
            and memory[0].dtype == self.like.dtype
            and all(tensor.device == self.like.device for tensor in memory)
            and all(memory[place].shape[1] == own[place].shape[1] for place in known)
        )

    def no_frames(self, batch: int) -> Tensor:
        """Return an input of shape (batch, bands, 0)."""
        return self.like.new_empty(batch, *self.like.shape[1:])

    def advance(self, memory: Memory, mel: Tensor, *, ended: bool) -> Tensor:
        """Advance the streams of a memory, whose tensors are replaced.

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
        rows = mel if self.edge_frames is None else extended(self.edge_frames, memory, 1, mel, ended=ended)
        push = self._planned(memory[0].shape[-1], rows.shape[-1], ended)
        results = {INPUT: _joined(memory[2], rows)}
        results |= enumerate(memory[3 : 3 + len(self.graph.nodes)])
        arrived = {INPUT: rows}
        for step in push.steps:
            node = self.graph.nodes[step.number]
            if isinstance(node, Native):
                (source,) = self.graph.inputs[step.number]
                new = arrived.get(source, results[source][..., :0])
                place = 3 + len(self.graph.nodes) + self._natives.index(step.number)
                memory[place], y = node.advance(memory[place], new, ended=ended, known=step.known)
            else:
                y = node.valid(self._window(node, step, results, ended, arrived), step.first, step.last)
            arrived[step.number] = y
            results[step.number] = _joined(results[step.number], y)
        memory[0] = rows.new_zeros(rows.shape[0], 1, push.received)
        for place, count in enumerate(push.keeps):
            number = place - 1
            if (number == INPUT or not self._constant[number]) and (count or memory[2 + place].shape[-1]):
                rows = results[number]
                memory[2 + place] = rows[..., rows.shape[-1] - count :].clone()
        return results[len(self.graph.nodes) - 1][:, 0, slice(*push.result)]

    def whole(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Run on whole inputs: (B, bands, T) and, where it is conditioned, (B, C) → (B, 1, samples)."""
        self._check_given(condition)
        results = {INPUT: mel}
        if condition is not None:
            results[CONDITION] = condition[..., None]
            self._compute_constants(results)
        push = self._planned(0, mel.shape[-1], True)
        last_reader = {source: max(readers, default=0) for source, readers in self._readers.items()}
        for step in push.steps:
            node = self.graph.nodes[step.number]
            sources = self.graph.inputs[step.number]
            if isinstance(node, Native):
                results[step.number] = node.whole(results[sources[0]])
            else:
                window = self._window(node, step, results, True, {})
                results[step.number] = node.valid(window, step.first, step.last)
            for source in sources:
                if last_reader.get(source, 0) == step.number and source >= 0 and not self._constant[source]:
                    results.pop(source, None)
        # of a single frame, between whose middle and itself nothing is, a transform makes no samples
        none = mel.new_empty(len(mel), 1, 0)
        return results.get(len(self.graph.nodes) - 1, none)

    def _check_given(self, condition: Tensor | None) -> None:
        if (condition is None) != (not self.condition_channels):
            given, fits = ("no", "needs one") if condition is None else ("a", "takes none")
            raise ValueError(f"Stream: {given} condition was given; this generator {fits}")

    def _compute_constants(self, results: dict[int, Tensor]) -> None:
        for number, constant in enumerate(self._constant):
            if constant:
                sources = tuple(results[source] for source in self.graph.inputs[number])
                window = Window(sources, first=0, known=1, ended=True)
                results[number] = self.graph.nodes[number].valid(window, 0, 0)

    def _window(
        self, node: Node, step: Step, results: dict[int, Tensor], ended: bool, arrived: dict[int, Tensor]
    ) -> Window:
        rows = []
        for piece in step.pieces:
            x = results[piece.source]
            if piece.end >= 0:
                new, count = arrived.get(piece.source), piece.end - piece.begin
                if new is not None and piece.end == x.shape[-1] and count == new.shape[-1]:
                    x = new  # in the memory order in which it was made, in which functions may round differently
                elif count != x.shape[-1]:
                    x = x[..., piece.begin : piece.end]
                if piece.left or piece.right:
                    mode = "constant" if node.edges == "zero" else node.edges
                    x = F.pad(x, (piece.left, piece.right), mode)
            rows.append(x)
        return Window(tuple(rows), step.begin, step.known, ended)

    def _planned(self, received: int, new: int, ended: bool) -> Push:
        key = received, new, ended
        push = self._pushes.get(key)
        if push is None:
            if len(self._pushes) >= MOST_PLANNED:
                self._pushes.clear()
            push = self._pushes[key] = self._plan(*key)
        return push

    def _plan(self, received: int, new: int, ended: bool) -> Push:
        """Plan what happens when so many frames follow so many."""
        graph, total = self.graph, received + new
        before, after = graph.ready(received, False), graph.ready(total, ended)
        begins = self._begins(received, before)

        def known(number: int) -> int:
            return total if number == INPUT else after[number]

        steps = []
        for number, (node, inputs) in enumerate(zip(graph.nodes, graph.inputs, strict=True)):
            first, last = before[number], after[number] - 1
            if self._constant[number] or (last < first and not (isinstance(node, Native) and known(inputs[0]))):
                continue
            reads = [node.needs(first, last), *[(first, last)] * (len(inputs) - 1)] if last >= first else []
            pieces = []
            for source, (a, b) in zip(inputs, reads, strict=False):
                if source == CONDITION or (source >= 0 and self._constant[source]):
                    pieces.append(Piece(source, 0, -1, 0, 0))
                    continue
                count = known(source)
                left, right = (0, 0) if node.edges == "none" else (max(0, -a), max(0, b - count + 1))
                begin, end = max(a, 0) - begins[source], min(b + 1, count) - begins[source]
                pieces.append(Piece(source, begin, end, left, right))
            begin = reads[0][0] if reads else 0
            begin = max(0, begin) if node.edges == "none" else begin
            steps.append(Step(number, first, last, tuple(pieces), begin, known(inputs[0])))
        received = min(total, self._young)
        shift = graph.ready(received, False)
        fresh = self._begins(received, shift)
        final = len(graph.nodes) - 1
        keeps = []
        for number in range(-1, len(graph.nodes)):
            keeps.append(0 if ended else (received if number == INPUT else shift[number]) - fresh[number])
        start = before[final] // self.hop * self.hop
        stop = after[final] if ended else after[final] // self.hop * self.hop
        if self.edge_frames is not None and self.edge_frames.trimmed:
            around = self.edge_frames.replicated_frames
            start = max(start, around * self.hop)
            stop -= (around + self.edge_frames.appended_frames) * self.hop if ended else 0
        result = (start - begins[final], max(start, stop) - begins[final])
        return Push(tuple(steps), tuple(keeps), result, received)

    def _begins(self, received: int, counts: Sequence[int]) -> dict[int, int]:
        """Return the first row of each result that later rows read, once so many rows are certain."""
        begins = {}
        for number in range(-1, len(self.graph.nodes)):
            known = received if number == INPUT else counts[number]
            begin = known
            for reader in self._readers[number]:
                node, inputs = self.graph.nodes[reader], self.graph.inputs[reader]
                if isinstance(node, Native):
                    continue
                row = counts[reader]
                begin = min(begin, node.needs(row, row)[0] if inputs[0] == number else row)
                if number in inputs[1:]:
                    begin = min(begin, row)
            if number == len(self.graph.nodes) - 1:
                begin = min(begin, known // self.hop * self.hop)
            begins[number] = max(0, begin)
        return begins


def _joined(kept: Tensor, rows: Tensor) -> Tensor:
    return torch.cat([kept, rows], dim=-1) if kept.shape[-1] else rows

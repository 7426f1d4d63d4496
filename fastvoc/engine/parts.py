"""Blocks that take their input in pieces: each does what its counterpart in `fastvoc.blocks` does to the whole.

A part is called as ``part(memory, rows, last)``: with the rows that are new, it returns the rows that are now certain,
often fewer or none; with `last`, nothing follows and it returns all that waited. It computes every row once. What it
has to remember is a tensor or two in `memory`, which it replaces and never writes into, so that a copy of the list is a
copy of the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.models import Generator

Memory = list[Tensor]
"""What one stream remembers, for all parts of a line; every tensor has the streams side by side in its first axis."""

Shapes = list[tuple[int, ...]]
"""Of the tensors of a fresh memory, without the streams; parts add theirs when they are made."""


class Part(Protocol):
    """A block that takes its input in pieces."""

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C_in, new rows) → (B, C_out, rows that are now certain); either may be none."""


def reserve(shapes: Shapes, *shape: int) -> int:
    """Add a tensor to the memory of a line, and return where."""
    shapes.append(shape)
    return len(shapes) - 1


class Queue:
    """Rows that wait for others: what keeps paths of different look-ahead aligned.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    channels : int
    """

    def __init__(self, shapes: Shapes, channels: int) -> None:
        self.slot = reserve(shapes, channels, 0)

    def put(self, memory: Memory, rows: Tensor) -> None:
        """Add rows at the end."""
        memory[self.slot] = torch.cat([memory[self.slot], rows], dim=-1)

    def take(self, memory: Memory, count: int) -> Tensor:
        """Remove rows from the front."""
        held = memory[self.slot]
        memory[self.slot] = held[..., count:].clone()
        return held[..., :count]

    def length(self, memory: Memory) -> int:
        """Count the rows that wait."""
        return memory[self.slot].shape[-1]


class Front:
    """Lay one row in front of the stream: its first row again, or its second as a mirror image.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    channels : int
    mode : {"replicate", "reflect"}
    """

    def __init__(self, shapes: Shapes, channels: int, mode: str) -> None:
        self.mode = mode
        self.missing = reserve(shapes, 1, 1)  # empty once the row has been laid down
        self.held = reserve(shapes, channels, 0)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C, n) → (B, C, m)."""
        if not memory[self.missing].shape[-1]:
            return rows
        rows = torch.cat([memory[self.held], rows], dim=-1)
        if rows.shape[-1] < (2 if self.mode == "reflect" else 1) and not last:
            memory[self.held] = rows
            return rows[..., :0]
        memory[self.missing], memory[self.held] = memory[self.missing][..., :0], rows[..., :0].clone()
        return F.pad(rows, (1, 0), self.mode)


class Without:
    """Leave out the first rows of a stream."""

    def __init__(self, shapes: Shapes, count: int) -> None:
        self.slot = reserve(shapes, 1, count)  # as long as what is still to be left out

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C, n) → (B, C, m)."""
        count = min(memory[self.slot].shape[-1], rows.shape[-1])
        memory[self.slot] = memory[self.slot][..., count:]
        return rows[..., count:]


class Whole:
    """Hold back what is less than a frame, so that frames of mel give frames of sound."""

    def __init__(self, shapes: Shapes, hop: int) -> None:
        self.hop = hop
        self.queue = Queue(shapes, 1)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, 1, n) → (B, 1, a multiple of the hop)."""
        self.queue.put(memory, rows)
        length = self.queue.length(memory)
        return self.queue.take(memory, length // self.hop * self.hop)


class RowWise:
    """What treats every row alike and remembers none."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C, n) → (B, C, n)."""
        return self.function(rows)


class Overlap:
    """A generator that has no parts: it runs on the new frames and on all that reach into them, again and again.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    generator : Generator
    """

    def __init__(self, shapes: Shapes, generator: Generator) -> None:
        self.generator = generator
        self.past, self.future = generator.receptive_field
        self.slot = reserve(shapes, generator.mel_bands, 0)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, 1, m · hop)."""
        hop = self.generator.hop
        kept = memory[self.slot]
        # of the frames that are kept, the last ones wait for their future, and those before them are context
        context = max(0, kept.shape[-1] - self.future)
        rows = torch.cat([kept, rows], dim=-1)
        ready = rows.shape[-1] - (0 if last else self.future)
        if ready <= context:
            memory[self.slot] = rows
            return rows.new_empty(rows.shape[0], 1, 0)
        memory[self.slot] = rows[..., max(0, ready - self.past) :].clone()
        wave: Tensor = self.generator(rows)
        return wave[..., context * hop : ready * hop]

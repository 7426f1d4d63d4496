"""Convolutions, up-sampling and residual blocks that take their input in pieces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks import CausalUpsample, Conv1d, ResidualBlocks, Upsample
from fastvoc.engine.parts import Front, Memory, Part, Queue, Shapes, reserve


class Convolution:
    """`Conv1d` in pieces: it keeps the ``(K − 1) · dilation`` rows that the next output reads.

    What pads the start is laid in front of the first rows; what pads the end is left to the operator.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    conv : Conv1d
    slope : float
        Of the leaky ReLU before it.
    tanh : bool
    """

    def __init__(self, shapes: Shapes, conv: Conv1d, *, slope: float = 1.0, tanh: bool = False) -> None:
        self.conv = conv
        self.slope = slope
        self.tanh = tanh
        self.span = sum(conv.padding)
        mirrors = conv.padding_mode == "reflect" and self.span > 0
        # a mirror image of p rows needs p more; one row beyond the span tells a stream whose start has been laid down
        self.waits = max(conv.padding) if mirrors else 0
        self.keeps = max(self.span, self.waits + 1) if mirrors else self.span
        self.slot = reserve(shapes, conv.weight.shape[1], 0)

    def __call__(self, memory: Memory, rows: Tensor, last: bool, skip: Queue | None = None) -> Tensor:
        """(B, C_in, n) → (B, C_out, m); what is taken from `skip` is added."""
        conv = self.conv
        left, right = conv.padding[0], conv.padding[1] if last else 0
        kept = memory[self.slot]
        rows = torch.cat([kept, rows], dim=-1) if kept.shape[-1] else rows
        known = max(0, kept.shape[-1] - self.span)  # leading outputs that have been returned already
        begun = kept.shape[-1] > self.waits
        if not begun and rows.shape[-1] > self.waits:
            mode = "constant" if conv.padding_mode == "zero" else conv.padding_mode
            rows = F.pad(rows, (left, 0), mode) if left else rows
            begun = True
        left = 0 if begun else left
        count = left + rows.shape[-1] + right - self.span
        if count <= known or not (begun or last):
            memory[self.slot] = rows
            return rows.new_empty(rows.shape[0], conv.weight.shape[0], 0)
        if count == 1:
            # kernels leave single rows to plain PyTorch, which rounds differently
            rows, count, known = F.pad(rows, (1, 0)), 2, 1
        residual = None if skip is None else F.pad(skip.take(memory, count - known), (known, 0))
        result = ops.conv1d(
            rows,
            conv.weight,
            conv.bias,
            dilation=conv.dilation,
            padding=(left, right),
            padding_mode=conv.padding_mode,
            slope=self.slope,
            residual=residual,
            tanh=self.tanh,
        )
        memory[self.slot] = rows[..., max(0, rows.shape[-1] - self.keeps) :].clone()
        return result[..., known:] if known else result


class Upsampling:
    """A transposed convolution in pieces: it keeps the input rows that reach beyond the outputs they have made certain.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    weight : Tensor, shape (C_in, C_out, K)
    bias : Tensor, shape (C_out,), optional
    rate : int
        Output rows per input row.
    crop : (int, int)
        Outputs that are cut off at the start and the end of the stream.
    slope : float
        Of the leaky ReLU before it.
    """

    def __init__(
        self,
        shapes: Shapes,
        weight: Tensor,
        bias: Tensor | None,
        *,
        rate: int,
        crop: tuple[int, int],
        slope: float = 1.0,
    ) -> None:
        self.weight = weight
        self.bias = bias
        self.rate = rate
        self.crop = crop
        self.slope = slope
        self.slot = reserve(shapes, weight.shape[0], 0)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C_in, n) → (B, C_out, m)."""
        taps = self.weight.shape[-1]
        kept = memory[self.slot]
        rows = torch.cat([kept, rows], dim=-1) if kept.shape[-1] else rows
        # Before the crop, row i begins at i·rate. All before the next row's beginning is certain, and has been
        # returned as far as the kept rows reach.
        start = max(self.crop[0], kept.shape[-1] * self.rate)
        end = self.crop[1] if last else taps - self.rate
        keeps = min((taps - 1) // self.rate, rows.shape[-1])
        memory[self.slot] = rows[..., rows.shape[-1] - keeps :].clone()
        if (rows.shape[-1] - 1) * self.rate + taps <= start + end:
            return rows.new_empty(rows.shape[0], self.weight.shape[1], 0)
        if rows.shape[-1] == 1:
            # kernels leave single rows to plain PyTorch, which rounds differently
            rows, start = F.pad(rows, (1, 0)), start + self.rate
        return ops.upsample(rows, self.weight, self.bias, stride=self.rate, crop=(start, end), slope=self.slope)


class Shift:
    """A condition that is added to every row; the stream remembers what the convolution made of it."""

    def __init__(self, shapes: Shapes, conv: Conv1d) -> None:
        self.conv = conv
        self.slot = reserve(shapes, conv.weight.shape[0], 1)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C, n) → (B, C, n)."""
        return rows + memory[self.slot]


class Residual:
    """`ResidualBlocks` in pieces: units and branches wait for one another in queues."""

    def __init__(self, shapes: Shapes, blocks: ResidualBlocks) -> None:
        self.branches: list[list[_Unit]] = []
        for branch in blocks.branches:
            units: list[list[Conv1d]] = [list(unit) for unit in branch]  # type: ignore[attr-defined]
            self.branches.append(
                [_Unit(shapes, unit, blocks, activated=blocks.activate_first or n > 0) for n, unit in enumerate(units)]
            )
        channels = self.branches[0][0].channels
        self.queues = [Queue(shapes, channels) for _ in self.branches] if len(self.branches) > 1 else []

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, C, n) → (B, C, m)."""
        results = []
        for branch in self.branches:
            result = rows
            for unit in branch:
                result = unit(memory, result, last)
            results.append(result)
        if not self.queues:
            return results[0]
        for queue, result in zip(self.queues, results, strict=True):
            queue.put(memory, result)
        count = min(queue.length(memory) for queue in self.queues)
        total, *others = (queue.take(memory, count) for queue in self.queues)
        for other in others:
            total = total + other
        return total / len(self.queues)


class _Unit:
    """A few convolutions, and what they are added to."""

    def __init__(self, shapes: Shapes, convs: list[Conv1d], blocks: ResidualBlocks, *, activated: bool) -> None:
        self.channels = convs[0].weight.shape[0]
        self.shortcut = Convolution(shapes, convs.pop()) if blocks.shortcut else None
        self.convs = [
            Convolution(shapes, conv, slope=blocks.slope if activated or n else 1.0) for n, conv in enumerate(convs)
        ]
        self.skip = Queue(shapes, self.channels)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        self.skip.put(memory, rows if self.shortcut is None else self.shortcut(memory, rows, last))
        *first, final = self.convs
        for conv in first:
            rows = conv(memory, rows, last)
        return final(memory, rows, last, self.skip)


def upsampling(shapes: Shapes, up: Upsample, *, slope: float) -> list[Part]:
    """Return the parts of an up-sampling block."""
    part = Upsampling(shapes, up.weight, up.bias, rate=up.rate, crop=up.crop, slope=slope)
    return [Front(shapes, up.weight.shape[0], "replicate"), part] if isinstance(up, CausalUpsample) else [part]

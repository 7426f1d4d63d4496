"""A stack of gated layers whose skip connections are its result: WaveNet without its recursion, as WaveGlow has it.

Prenger, Valle and Catanzaro 2018, arXiv:1811.00002, §2.2; original: NVIDIA/waveglow 8afb643, glow.py, WN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks.conv import Conv1d
from fastvoc.ops.gated import cuda
from fastvoc.ops.gated.packed import ByPhases, Packed

Layer = TypeVar("Layer", Packed, cuda.Packed)

Memory = list[Tensor]
"""What streams of a stack remember: of each layer its latest rows, and skip connections that wait for it."""


class GatedLayer(nn.Module):
    """A dilated convolution, and the products of what its gate lets through.

    Parameters
    ----------
    channels : int
        Of the residual connection, the gate and the skip connection.
    kernel_size, dilation : int
    last : bool
        Whether nothing follows, so that there is no residual connection.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.channels = channels
        self.conv = Conv1d(channels, 2 * channels, kernel_size, dilation=dilation)
        self.out = Conv1d(channels, channels if last else 2 * channels, 1)

    def forward(
        self, x: Tensor, condition: Tensor, skip: Tensor | None, *, padding: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run `fastvoc.ops.gated`: (B, C, T), (B, 2 C, T'), (B, C, T') → residual and skip, (B, C, T')."""
        return ops.gated(
            x,
            self.conv.weight,
            self.out.weight,
            bias=self.conv.bias,
            out_bias=self.out.bias,
            condition=condition,
            skip=skip,
            skip_channels=self.channels,
            dilation=self.conv.dilation,
            padding=padding,
        )


class GatedStack(nn.Module):
    """Gated layers with dilations 1, 2, 4, …, which see as far behind as ahead.

    Parameters
    ----------
    channels_in, channels_out : int
    condition_channels : int
    channels : int
        Of each layer.
    layers : int
    kernel_size : int
        Odd.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        condition_channels: int,
        *,
        channels: int,
        layers: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.start = Conv1d(channels_in, channels, 1)
        self.condition = Conv1d(condition_channels, 2 * channels * layers, 1)
        self.layers = nn.ModuleList(
            GatedLayer(channels, kernel_size, 2**number, last=number == layers - 1) for number in range(layers)
        )
        self.end = Conv1d(channels, channels_out, 1)

    @property
    def reach(self) -> int:
        """Rows on both sides of one that its result depends on."""
        return sum(layer.conv.padding[0] for layer in self._each())

    def _each(self) -> Iterator[GatedLayer]:
        return (cast(GatedLayer, layer) for layer in self.layers)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C_in, T), (B, C_condition, T) → (B, C_out, T)."""
        x, skip = self.start(x), None
        # one product for all layers, which read the condition alike; cut along the last axis, its gradient is put
        # together by whole rows where channels are neighbours in memory
        parts = self.condition(condition).mT.chunk(len(self.layers), dim=-1)
        for layer, part in zip(self._each(), parts, strict=True):
            x, skip = layer(x, part.mT, skip)
        return self.end(skip)  # type: ignore[no-any-return]

    def begin(self, batch: int) -> Memory:
        """Return the memory of streams of which nothing has come: zeros lie before the first row of each layer."""
        memory, bias = Memory(), self.start.bias
        for layer in self._each():
            memory += [bias.new_zeros(batch, len(bias), count) for count in (layer.conv.padding[0], 0)]
        return memory

    def refused_on_gpu(self) -> str | None:
        """Return why the kernels of a GPU cannot run a layer with the product of its condition, or None."""
        for layer in self._each():
            weight, out = layer.conv.weight, layer.out.weight
            made = cuda.compiled_packed(
                weight,
                self.condition.weight,
                len(out) - layer.channels,
                layer.channels,
                dilation=layer.conv.dilation,
                before=layer.conv.padding[0],
            )
            if isinstance(made, str):
                return made
        return None

    def packed(
        self, kind: Callable[..., Layer], of_condition: Callable[[Tensor], tuple[Tensor, Tensor | float]] | None = None
    ) -> list[Layer]:
        """Return the layers with their weights packed, as `Packed` or what has its arguments makes them.

        Parameters
        ----------
        kind : callable
        of_condition : callable, optional
            Makes another weight of that of a layer's condition, (2 C, C_condition), and what this adds to the bias.
        """
        count = len(self.layers)
        parts = zip(self.condition.weight[..., 0].chunk(count), self.condition.bias.chunk(count), strict=True)

        def packed(layer: GatedLayer, weight: Tensor, bias: Tensor) -> Layer:
            weight, added = of_condition(weight) if of_condition else (weight, 0.0)
            return kind(
                layer.conv.weight,
                layer.conv.bias.float() + bias + added,
                weight,
                layer.out.weight[..., 0],
                layer.out.bias,
                skip_channels=layer.channels,
                dilation=layer.conv.dilation,
                before=layer.conv.padding[0],
            )

        return [packed(layer, *part) for layer, part in zip(self._each(), parts, strict=True)]

    def advance(
        self,
        memory: Memory,
        x: Tensor,
        condition: Tensor | ByPhases,
        *,
        before: int,
        ended: bool,
        packed: Sequence[Packed | cuda.Packed] | None = None,
    ) -> tuple[Memory, Tensor]:
        """Take the next rows, and return the new memory and the rows of the result that are now certain.

        Parameters
        ----------
        memory : list of Tensor
            Is not written into.
        x : Tensor, shape (B, C_in, n)
            There may be none.
        condition : Tensor, shape (B, C_condition, m)
            Of these rows, and of `reach` before them, or of all that there are; or such rows `ByPhases`, where that is
            what was packed.
        before : int
            Rows of `condition` that are not of these.
        ended : bool
            Whether no others follow.
        packed : sequence of Packed, optional
            The layers for native code; `x`, `condition` and the result are then of their dtype.
        """
        if packed is not None:
            return self._advance_packed(packed, memory, x, condition, before=before, ended=ended)
        assert isinstance(condition, Tensor)
        rows, skip = product(x, self.start.weight, self.start.bias), x.new_zeros(len(x), self.start.bias.numel(), 0)
        weights, biases = (part.chunk(len(self.layers)) for part in (self.condition.weight, self.condition.bias))
        kept = Memory()
        for number, layer in enumerate(self._each()):
            left, right = layer.conv.padding
            rows = torch.cat([memory[2 * number], F.pad(rows, (0, right)) if ended else rows], dim=-1)
            skip = torch.cat([memory[2 * number + 1], skip], dim=-1)
            count, before = max(0, rows.shape[-1] - left - right), max(0, before - right)
            kept += [rows[..., count:].clone(), skip[..., count:].clone()]
            part = product(condition[..., before : before + count], weights[number], biases[number])
            earlier = skip[..., :count] if number else None
            rows, skip = _made(layer, rows[..., : count + left + right], part, earlier)
        return kept, product(skip, self.end.weight, self.end.bias)

    def _advance_packed(
        self,
        packed: Sequence[Packed | cuda.Packed],
        memory: Memory,
        x: Tensor,
        condition: Tensor | ByPhases,
        *,
        before: int,
        ended: bool,
    ) -> tuple[Memory, Tensor]:
        """Do the same with rows in memory order (batch, time, channel), which the memory then has, too.

        Layers read from one of two arrays and write to the other, in front of which the next one's memory is put; skip
        connections stay in a third, in which those that waited are put before the others.
        """
        batch, channels = len(x), self.start.bias.numel()
        paddings = [layer.conv.padding for layer in self._each()]
        behind = [right if ended else 0 for _, right in paddings]
        known, waiting = ([rows.shape[-1] for rows in memory[part::2]] for part in (0, 1))
        counts, sizes = [x.shape[-1]], []
        for (left, right), before_it, zeros in zip(paddings, known, behind, strict=True):
            sizes.append(before_it + counts[-1] + zeros)
            counts.append(max(0, sizes[-1] - left - right))
        dtype = packed[0].dtype
        own, other = (x.new_empty(batch, max(sizes), channels, dtype=dtype) for _ in range(2))
        place = sum(waiting)
        skips = x.new_empty(batch, place + max(counts), channels, dtype=dtype)
        first = product(x, self.start.weight.to(dtype), self.start.bias.to(dtype))
        own[:, known[0] : known[0] + counts[0]] = first.mT
        kept, skip = Memory(), skips[:, :0]
        for number, (run, (left, right)) in enumerate(zip(packed, paddings, strict=True)):
            rows, count, before = own[:, : sizes[number]], counts[number + 1], max(0, before - right)
            rows[:, : known[number]] = memory[2 * number].mT
            rows[:, sizes[number] - behind[number] :] = 0
            start, place = place, place - waiting[number]
            skips[:, place:start] = memory[2 * number + 1].mT
            all_skips = skips[:, place : start + (counts[number] if number else 0)]
            kept += [rows[:, count:].clone().mT, all_skips[:, count:].clone().mT]
            begin = known[number + 1] if number + 1 < len(packed) else 0
            skip = skips[:, place : place + count]
            run(
                rows[:, : count + left + right],
                _rows_of(condition, before, count),
                skip if number else None,
                other[:, begin : begin + count, : run.channels],
                skip,
            )
            own, other = other, own
        return kept, product(skip.mT, self.end.weight.to(dtype), self.end.bias.to(dtype))


def _rows_of(condition: Tensor | ByPhases, first: int, count: int) -> Any:
    """Return some rows as packed layers take them."""
    return condition.following(first) if isinstance(condition, ByPhases) else condition.mT[:, first : first + count]


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with one tap; a row that comes alone has the bits that it has among others, from other kernels."""
    if not x.shape[-1]:
        return x.new_zeros(len(x), len(weight), 0)
    alone = int(x.shape[-1] == 1)
    return ops.conv1d(F.pad(x, (alone, 0)), weight, bias)[..., alone:]


def _made(layer: GatedLayer, x: Tensor, condition: Tensor, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run a layer on rows and all that they read; one that comes alone as in `product`."""
    count = condition.shape[-1]
    if not count:
        return x[..., :0], x[..., :0]
    alone = int(count == 1)
    if alone:
        x, condition = F.pad(x, (1, 0)), F.pad(condition, (1, 0))
        skip = None if skip is None else F.pad(skip, (1, 0))
    residual, skip = layer(x, condition, skip, padding=(0, 0))
    return residual[..., alone:], skip[..., alone:]

"""A generator as a line of parts that takes its mel in pieces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc.blocks import Conv1d, IstftHead, PqmfHead, Trunk, WaveHead
from fastvoc.engine.compiled import Compiled
from fastvoc.engine.convolutions import Convolution, Residual, Shift, Upsampling, upsampling
from fastvoc.engine.griffin_lim import Rounds
from fastvoc.engine.habit import Extended, Habit, Trimmed
from fastvoc.engine.parts import Memory, Overlap, Part, RowWise, Shapes, Whole
from fastvoc.engine.plan import Plan
from fastvoc.engine.transform import istft_head
from fastvoc.models import Generator, GriffinLimNet
from fastvoc.models.generator import TrunkGenerator


class Line:
    """The parts of a generator in a row, each holding what it still needs of the past.

    A line itself holds no stream: what a stream remembers is a list of tensors, so that any number of them, in any
    number of threads, shares one line.

    Parameters
    ----------
    generator : Generator
        Its weights are used where they are.
    habit : Habit, optional
        What is put around every mel.
    plan : Plan, optional
        Of the generator, in order: runs its trunk and its convolutions as one native call.
    """

    def __init__(self, generator: Generator, habit: Habit | None = None, plan: Plan | None = None) -> None:
        self.generator = generator
        self.shapes: Shapes = []
        self.parts: list[Part] = []
        self.shifts: list[Shift] = []
        self.recomputes = False
        if habit is not None:
            self.parts.append(Extended(self.shapes, generator.mel_bands, habit))
        # a subclass may do something else with its parts, and then runs as a whole
        if isinstance(generator, TrunkGenerator) and type(generator).forward is TrunkGenerator.forward:
            if generator.standardised:
                self.parts.append(RowWise(lambda mel: (mel - generator.mean[:, None]) / generator.scale[:, None]))
            if plan is not None:
                self.parts.append(Compiled(self.shapes, plan))
            else:
                self._add_trunk(generator.trunk)
            if plan is None or isinstance(generator.head, IstftHead):
                self._add_head(generator.head)
        elif type(generator) is GriffinLimNet:
            self.parts.append(Rounds(self.shapes, generator))
        else:
            self.recomputes = True
            self.parts.append(Overlap(self.shapes, generator))
        self.parts.append(Whole(self.shapes, generator.hop))
        if habit is not None and habit.trimmed:
            self.parts.append(Trimmed(self.shapes, generator.hop, habit))

    def start(self, batch: int, condition: Tensor | None = None) -> Memory:
        """Return the memory of streams that have heard nothing.

        Parameters
        ----------
        batch : int
            Streams side by side.
        condition : Tensor, shape (condition_channels,) or (batch, condition_channels), optional

        Returns
        -------
        list of Tensor

        Raises
        ------
        ValueError
            If the condition is missing, unwanted or of another shape.
        """
        channels = [shift.conv.weight.shape[1] for shift in self.shifts[:1]]
        if (condition is None) != (not channels):
            given, fits = ("no", "needs one") if condition is None else ("a", "takes none")
            raise ValueError(f"Line: {given} condition was given; this generator {fits} in a stream")
        like = self.no_frames(batch)
        memory = [like.new_zeros(batch, *shape) for shape in self.shapes]
        if condition is not None:
            if condition.shape not in (torch.Size(channels), torch.Size([batch, *channels])):
                raise ValueError(
                    f"Line: condition has shape {tuple(condition.shape)}; it must be {tuple(channels)} or "
                    f"{(batch, *channels)}"
                )
            condition = condition.expand(batch, -1)
            for shift in self.shifts:
                memory[shift.slot] = shift.conv(condition[..., None])
        return memory

    def no_frames(self, batch: int) -> Tensor:
        """Return a mel of shape (batch, bands, 0) on the device and in the dtype of the weights."""
        return next(self.generator.parameters()).new_empty(batch, self.generator.mel_bands, 0)

    def run(self, memory: Memory, mel: Tensor, last: bool) -> Tensor:
        """Advance the streams of a memory, which is changed.

        Parameters
        ----------
        memory : list of Tensor
        mel : Tensor, shape (B, bands, T)
            The new frames, or none.
        last : bool
            Whether no others follow.

        Returns
        -------
        Tensor, shape (B, samples)
        """
        rows = mel
        for part in self.parts:
            rows = part(memory, rows, last)
        return rows[:, 0]

    def _add_trunk(self, trunk: Trunk) -> None:
        shapes = self.shapes
        self.parts.append(Convolution(shapes, trunk.stem))
        conditions = iter(trunk.condition)
        self._add_shift(next(conditions, None))
        for up, residual in zip(trunk.up, trunk.residual, strict=True):
            self.parts += upsampling(shapes, up, slope=trunk.slope)  # type: ignore[arg-type]
            self._add_shift(next(conditions, None))
            if trunk.slope_after != 1.0:
                self.parts.append(RowWise(lambda x: F.leaky_relu(x, trunk.slope_after)))
            self.parts.append(Residual(shapes, residual))  # type: ignore[arg-type]

    def _add_shift(self, conv: object) -> None:
        if isinstance(conv, Conv1d):
            self.shifts.append(Shift(self.shapes, conv))
            self.parts.append(self.shifts[-1])

    def _add_head(self, head: object) -> None:
        if isinstance(head, IstftHead):
            self.parts += istft_head(self.shapes, head)
        elif isinstance(head, WaveHead):
            self.parts.append(Convolution(self.shapes, head.conv, slope=head.slope, tanh=True))
            if isinstance(head, PqmfHead):
                self.parts.append(Upsampling(self.shapes, head.filters, None, rate=head.rate, crop=head.crop))
        else:
            raise TypeError(
                f"Line: {type(head).__name__} has no form that takes its input in pieces; add a part for it"
            )

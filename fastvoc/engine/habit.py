"""Frames that an original's inference code puts around a mel, in pieces."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fastvoc.engine.parts import Memory, Shapes, Without, reserve


class Habit(Protocol):
    """What is put around a mel; `fastvoc.checkpoints.InferenceHabit` says why."""

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


class Extended:
    """Put frames around a stream of mel frames."""

    def __init__(self, shapes: Shapes, bands: int, habit: Habit) -> None:
        self.habit = habit
        self.latest = reserve(shapes, bands, 0)

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, bands, n, and at the ends more)."""
        begins = not memory[self.latest].shape[-1]
        known = torch.cat([memory[self.latest], rows], dim=-1)
        memory[self.latest] = known[..., -1:].clone()
        count = self.habit.replicated_frames
        before = known[..., :1].expand(-1, -1, count if begins else 0)
        if not last:
            return torch.cat([before, rows], dim=-1)
        after = known[..., -1:].expand(-1, -1, count)
        silence = rows.new_full((*rows.shape[:-1], self.habit.appended_frames), self.habit.appended_value)
        return torch.cat([before, rows, after, silence], dim=-1)


class Trimmed:
    """Cut off the samples of the frames that were put around."""

    def __init__(self, shapes: Shapes, hop: int, habit: Habit) -> None:
        self.start = Without(shapes, habit.replicated_frames * hop)
        self.end = (habit.replicated_frames + habit.appended_frames) * hop

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, 1, n) → (B, 1, m)."""
        # what is put behind the last frame sounds in the last call, whole
        return self.start(memory, rows[..., : rows.shape[-1] - self.end] if last else rows, last)

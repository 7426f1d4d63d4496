"""What streams remember, and how they are put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class StreamState:
    """What streams remember; nothing ever writes into it, so that keeping one costs no copy.

    Parameters
    ----------
    memory : tuple of Tensor
        With the streams side by side in the first axis of each.
    phase : {"new", "running", "ended"}
    """

    memory: tuple[Tensor, ...]
    phase: str

    @property
    def batch(self) -> int:
        """Streams side by side."""
        return self.memory[0].shape[0]

    def split(self) -> list[Self]:
        """Return the state of each stream, so that each may go its own way."""
        streams = range(self.batch)
        return [type(self)(tuple(tensor[n : n + 1] for tensor in self.memory), self.phase) for n in streams]

    @classmethod
    def join(cls, states: Sequence[StreamState]) -> Self:
        """Put streams side by side, so that a streamer of that batch advances them together.

        They may have heard different numbers of frames, if each has heard more than ``sum(vocoder.receptive_field)``;
        before that, a stream does not remember as much, and all must have heard the same number.

        Raises
        ------
        ValueError
            If there are none, or they do not remember equally much.
        """
        if not states:
            raise ValueError("StreamState.join: there are no states; it needs at least one")
        if len({(state.phase, *((tensor.shape[1:], tensor.dtype) for tensor in state.memory)) for state in states}) > 1:
            raise ValueError(
                "StreamState.join: the streams do not remember equally much; all must be of one vocoder, and each must "
                "have heard more than sum(vocoder.receptive_field) frames, or all the same number"
            )
        memories = zip(*(state.memory for state in states), strict=True)
        return cls(tuple(torch.cat(tensors) for tensors in memories), states[0].phase)

"""What a recurrent generator offers: a state that is handed on from frames to frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from torch import Tensor

State = tuple[Tensor, ...]
"""What streams of a recurrent generator remember; each tensor has the streams side by side in the first of at least two
axes."""


class Recurrent(Protocol):
    """A generator whose samples depend on all that it has made before, such as an autoregressive one.

    It makes every wave by `begin` and `advance`, never by `forward`, which is free to be what training needs; its
    `needs` speaks of frames that a sample waits for beside the state.
    """

    def begin(self, batch: int, condition: Tensor | None = None) -> State:
        """Return the state of streams that have been given nothing.

        Parameters
        ----------
        batch : int
            Streams side by side.
        condition : Tensor, shape (batch, condition_channels), optional
            Where the generator is conditioned.
        """

    def advance(
        self, state: State, mel: Tensor, *, last: bool, noise: Tensor | None = None, temperature: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Take the next frames, and return the new state and the samples that are now certain.

        Parameters
        ----------
        state : tuple of Tensor
            Is not written into, since others may keep it.
        mel : Tensor, shape (B, bands, T)
            The frames; there may be none.
        last : bool
            Whether no others follow, so that all samples are due.
        noise : Tensor, shape (B, channels, T·rows_per_frame), optional
            The numbers that belong to these frames, where it draws any.
        temperature : Tensor, shape (B,), optional
            Where it draws any.

        Returns
        -------
        state : tuple of Tensor
        wave : Tensor, shape (B, 1, samples)
        """


def is_recurrent(generator: object) -> TypeGuard[Recurrent]:
    """Whether a generator goes on from a state; of its class, since a network is slow to say what it has not."""
    return hasattr(type(generator), "begin") and hasattr(type(generator), "advance")


class Explained(Protocol):
    """A recurrent generator that has several ways to make its samples, none of which is a pass over a mel."""

    @property
    def multiply_accumulates(self) -> float:
        """How many it takes for a sample."""

    @property
    def is_exact_in_batches(self) -> bool:
        """Whether a stream has the same bits alone and beside others, here and now."""

    def explain_steps(self) -> dict[str, str | None]:
        """Say how its samples can be made here and now, best first, and why not otherwise; the first with None is."""


def is_explained(generator: object) -> TypeGuard[Explained]:
    """Whether a generator says itself how its samples are made; of its class, as above."""
    return is_recurrent(generator) and hasattr(type(generator), "explain_steps")


class Narrowable(Protocol):
    """A recurrent generator of which parts can multiply in 8 bits."""

    def refuses_int8(self) -> str | None:
        """Return why none can here, or None."""

    def choose_int8(self, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Any]:
        """Choose those that keep a ratio for these mels, each with the scale and the zero point of what it is given."""

    def take_int8(self, chosen: Mapping[int, Any]) -> None:
        """Use 8 bits in these as long as the weights are as they are now."""


def is_narrowable(generator: object) -> TypeGuard[Narrowable]:
    """Whether parts of a recurrent generator can multiply in 8 bits; of its class, as above."""
    return is_recurrent(generator) and hasattr(type(generator), "take_int8")

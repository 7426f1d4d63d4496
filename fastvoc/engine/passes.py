"""One pass of a generator over a batch of mels: what `Graphs` records."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from fastvoc.blocks import WaveHead
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import backends, use_backend
from fastvoc.ops._packing import keep
from fastvoc.ops._ragged import ragged


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
    generator : Generator
    backend : {"triton", "cuda", "reference"}
        What padded mels run on; only kernels of a GPU know of lengths, so that others are right for whole ones.
    unrecordable : str, optional
        Why no graph is to be recorded of it.
    """

    def __init__(self, generator: Generator, *, backend: str = "triton", unrecordable: str | None = None) -> None:
        self.generator = generator
        self.backend = backend
        self.unrecordable = unrecordable or outside_operators(generator)
        self._packed: dict[Any, Tensor] = {}

    @staticmethod
    def refuses(generator: Generator) -> str | None:
        """Return why a generator cannot be recorded with Triton's kernels, or None.

        Parameters
        ----------
        generator : Generator
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


def outside_operators(generator: Generator) -> str | None:
    """Return why a padded mel would not give the samples of the mel alone, or None."""
    if not isinstance(generator, TrunkGenerator) or type(generator).forward is not TrunkGenerator.forward:
        return f"{type(generator).__name__} is not a trunk and a head"
    if not isinstance(generator.head, WaveHead):
        return f"{type(generator.head).__name__} computes outside the operators, which alone know where a mel ends"
    return None

"""What is made of weights once, and made again when they have changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor

from fastvoc import native
from fastvoc.optimiser_steps import OptimiserSteps

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """What native code is given of the weights of a network, in one or several forms.

    What writes to weights is found by PyTorch's counts, by steps of optimisers, and, on the CPU, by samples of their
    values; a single value that is written through ``.data`` may be missed, and on a GPU any. A copy, or what is
    pickled, is empty: packed weights belong to this processor and this network.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[Any, int, Made]] = {}

    def of(self, weights: Sequence[Tensor], make: Callable[[], Made], *, form: Hashable = None) -> Made:
        """Return ``make()``, or what is kept of it in a form."""
        samples = self.fingerprint([weight for weight in weights if weight.device.type == "cpu"])
        versions = sum(0 if weight.is_inference() else weight._version for weight in weights)
        key = samples, versions, native.isa(), *(weight.data_ptr() for weight in weights)
        OptimiserSteps.count()
        steps, kept = OptimiserSteps.taken, self._made.get(form)
        if (
            kept is None
            or kept[0] != key
            or (kept[1] != steps and OptimiserSteps.reached(weights, kept[1]))  # whose values need not be among samples
        ):
            kept = key, steps, make()
            self._made[form] = kept
        return kept[2]

    @staticmethod
    def fingerprint(weights: Sequence[Tensor]) -> int:
        """Return a number made of a few values of each weight: another one where most of one was written."""
        ffi, library = native.library()
        pointers = ffi.new("void *[]", [ffi.cast("void *", weight.data_ptr()) for weight in weights])
        sizes = ffi.new("int64_t[]", [weight.numel() * weight.element_size() for weight in weights])
        return int(library.fastvoc_fingerprint(len(weights), pointers, sizes))

    def forget(self) -> None:
        """Drop everything, so that the next call makes it of the weights as they are then."""
        self._made = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()

"""What is made of weights once, and made again when they have changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fastvoc import native
from fastvoc.optimiser_steps import OptimiserSteps

Made = TypeVar("Made")

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that have memory of their own; others may stand for several tensors, or for none."""


class Kept(Generic[Made]):
    """What native code is given of the weights of a network, in one or several forms.

    What writes to weights is found by PyTorch's counts, by steps of optimisers, and, on the CPU, by samples of their
    values; a single value that is written through ``.data`` may be missed, and on a GPU any. A copy, or what is
    pickled, is empty: packed weights belong to this processor and this network.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[Any, int, Made]] = {}

    def of(self, network: nn.Module, make: Callable[[], Made], *, form: Hashable = None) -> Made:
        """Return ``make()``, or what is kept of it in a form.

        Parameters
        ----------
        network : nn.Module
            Not `unreadable`. Its buffers count, too, since what prunes weights keeps its masks there.
        make : callable
        form : hashable, optional

        Raises
        ------
        ValueError
            If the memory of a weight was given back, as sharded training does between steps.
        """
        weights = [*network.parameters(), *network.buffers()]
        for weight in weights:
            if not has_memory(weight):
                raise ValueError(
                    f"{type(network).__name__}: the memory of a weight of shape {tuple(weight.shape)} was given back, "
                    "as sharded training does between steps; gather it first"
                )
        samples = Samples(weights).take()
        versions = sum(0 if weight.is_inference() else weight._version for weight in weights)
        key = samples, versions, native.isa(), *(weight.data_ptr() for weight in weights)
        OptimiserSteps.count()
        steps, kept = OptimiserSteps.taken, self._made.get(form)
        if (
            kept is None
            or kept[0] != key
            or (kept[1] != steps and OptimiserSteps.reached(weights, kept[1]))  # whose values need not be among samples
        ):
            kept = None  # what is out of date goes before another is made, since each may take gigabytes
            self._made.pop(form, None)
            kept = key, steps, make()
            self._made[form] = kept
        return kept[2]

    def forget(self) -> None:
        """Drop everything, so that the next call makes it of the weights as they are then."""
        self._made = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


class Samples:
    """A few values of each of many tensors on the CPU, as one number.

    Parameters
    ----------
    tensors : iterable of Tensor
        Those whose values cannot be read are left out.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._count = 0
        if native.missing() is not None:
            return  # nothing is compiled then that could be out of date
        readable = [(tensor, size) for tensor in tensors if (size := span(tensor))]
        ffi, self._library = native.library()
        self._count = len(readable)
        self._kept = [tensor.detach() for tensor, _ in readable]  # the memory stays, even if a weight is given another
        self._pointers = ffi.new("void *[]", [ffi.cast("void *", tensor.data_ptr()) for tensor, _ in readable])
        self._sizes = ffi.new("int64_t[]", [size for _, size in readable])

    def take(self) -> int:
        """Return the number, which is another one where most of a tensor was written."""
        if not self._count:
            return 0
        return int(self._library.fastvoc_fingerprint(self._count, self._pointers, self._sizes))


def span(tensor: Tensor) -> int:
    """Return from how many bytes the values of a tensor on the CPU are taken, or 0 if they cannot be read there."""
    if type(tensor) not in PLAIN or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return 0
    return _reach(tensor) * tensor.element_size() if tensor.numel() and has_memory(tensor) else 0


def has_memory(tensor: Tensor) -> bool:
    """Tell whether the values of a tensor have memory: owners such as FSDP take it away for a while."""
    end = (tensor.storage_offset() + _reach(tensor)) * tensor.element_size()
    return not tensor.numel() or end <= tensor.untyped_storage().nbytes()


def _reach(tensor: Tensor) -> int:
    """Return from how many elements the values of a tensor are taken."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def unreadable(network: nn.Module) -> str | None:
    """Return which weight of a network native code could not read, as a sentence without its subject, or None."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if type(tensor) not in PLAIN:
            return f"it has a {name} that is a {type(tensor).__name__}, whose values only PyTorch can read"
    return None

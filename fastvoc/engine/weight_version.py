"""Whether a network is still the one that was compiled."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, nn

from fastvoc.graph import hooks_of, hooks_of_all_modules
from fastvoc.ops.kept import Samples
from fastvoc.optimiser_steps import OptimiserSteps

_version = operator.attrgetter("_version")


class WeightVersion:
    """Tells whether a network has changed: its weights, its modules, what is hooked into them.

    PyTorch counts most of what is written to a tensor. What it does not count is found otherwise: steps of optimisers,
    fused ones included, by a hook behind each step; writes through ``.data``, or to tensors that were made in inference
    mode, by samples of the weights, on the CPU. A single value that is written through ``.data`` may be missed, and so
    may anything that is written so on a GPU: `refresh` is for these.

    Parameters
    ----------
    network : nn.Module
    exposed : bool
        Whether anybody else may hold the network. While nobody does, nothing can change, and looking costs nothing.
    """

    def __init__(self, network: nn.Module, *, exposed: bool = True) -> None:
        self._network = network
        self._exposed = False
        # each look has a revision of its own, and both are replaced as one: what a thread compiles while another looks
        # is never taken for what the other has seen
        self._seen: tuple[object, _Seen | None] = (object(), None)
        if exposed:
            self.expose()

    def expose(self) -> None:
        """Look from now on, since somebody else holds the network."""
        if not self._exposed:
            self._seen = (self._seen[0], _Seen(self._network))
            self._exposed = True

    def revision(self) -> object:
        """Return something that is another whenever the network has changed."""
        if self._exposed and self._changed():
            self.refresh()
        return self._seen[0]

    def refresh(self) -> None:
        """Take the network as changed."""
        self._seen = (object(), _Seen(self._network) if self._exposed else None)

    def __reduce__(self) -> tuple[Any, ...]:
        return WeightVersion, (self._network,)

    def replace(self, network: nn.Module) -> None:
        """Watch another network instead, which is a change."""
        self._network = network
        self.refresh()

    def _changed(self) -> bool:
        seen = self._seen[1]
        return seen is not None and seen.differs()


class _Seen:
    """A network as it was at one look."""

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        self._modules = modules
        self._kinds = [*map(type, modules)]
        self._attributes = [module.__dict__ for module in modules]
        self._sizes = [*map(len, self._attributes)]  # another method in an instance is one more
        stores = [store for m in modules for store in (m._parameters, m._buffers, m._modules) if store]
        self._stores, self._held = stores, [dict(store) for store in stores]
        self._hooks = [*hooks_of_all_modules(), *(hooks for module in modules for hooks in hooks_of(module))]
        self._hooked = [*map(len, self._hooks)]
        named = [(store, *item) for m in modules for store in (m._parameters, m._buffers) for item in store.items()]
        self._tensors: list[Tensor] = [tensor for _, _, tensor in named if tensor is not None]
        self._single = [entry for entry in named if entry[2] is not None and entry[2].numel() == 1]
        self._counted = [tensor for tensor in self._tensors if _is_counted(tensor)]
        self._versions = sum(map(_version, self._counted))  # they only grow
        self._places = [*map(Tensor.data_ptr, self._tensors)]
        self._samples = Samples(self._tensors)
        self._sampled = self._samples.take()
        OptimiserSteps.count()
        self._steps = OptimiserSteps.taken

    def differs(self) -> bool:
        """Tell whether it is another one now."""
        return (
            self._replaced()
            or self._places != [*map(Tensor.data_ptr, self._tensors)]
            or self._versions != sum(map(_version, self._counted))
            or self._hooked != [*map(len, self._hooks)]
            or self._sizes != [*map(len, self._attributes)]
            or self._kinds != [*map(type, self._modules)]
            or self._stepped()
            or self._sampled != self._samples.take()
        )

    def _replaced(self) -> bool:
        try:
            # entries that are the same objects are not compared further; of new ones, single values can be equal
            return self._stores != self._held or any(
                store.get(name) is not value for store, name, value in self._single
            )
        except (RuntimeError, TypeError, ValueError):  # a tensor was compared with a new one of its name
            return True

    def _stepped(self) -> bool:
        """Tell whether an optimiser of one of the weights has made a step."""
        if self._steps == OptimiserSteps.taken:
            return False
        taken = OptimiserSteps.taken
        stepped = OptimiserSteps.reached(self._tensors, self._steps)
        if not stepped:
            self._steps = taken
        return stepped


def _is_counted(tensor: Tensor) -> bool:
    """Whether PyTorch counts what is written to a tensor; of one that was given inference memory it does not say."""
    try:
        return not tensor.is_inference() and tensor._version >= 0
    except RuntimeError:
        return False

"""Finds the networks inside what a file holds, whatever its training put around them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of names that data-parallel training, torch.compile and others put between those of a network."""

HOLDERS = frozenset(
    (
        *("generator", "gen", "g", "net_g", "netg", "netgen", "model_g", "g_model", "generator_state_dict"),
        *("model", "net", "network", "online_model", "vocoder"),
        *("state_dict", "model_state_dict", "model_state"),
    )
)
"""What a network that is a part of a larger one is called, in lower case."""

_AVERAGE = re.compile(r"(^|[_./])(ema|averaged?|avg|shadow|swa)([_./]|$)")

_DEEPEST, _MOST = 4, 256
"""Levels of dictionaries that are looked into, and dictionaries."""

_MOST_TENSORS = 1 << 16
"""In one dictionary; training states of large models have some thousands."""


@dataclass(frozen=True)
class Network:
    """A dictionary of tensors that may be a network.

    Attributes
    ----------
    place : str
        Where it lies: names of dictionaries with slashes between them, and what stands before the names of its tensors.
    state : dict of str to Tensor
        Without what stands before, and without `WRAPPERS`.
    beside : tuple of str
        The first parts of the names of other tensors in the same dictionary.
    """

    place: str
    state: dict[str, Tensor]
    beside: tuple[str, ...] = ()

    @property
    def is_average(self) -> bool:
        """Whether it is called a moving average of weights."""
        return bool(_AVERAGE.search(self.place.lower()))


def tensors_of(content: Mapping[Any, Any], where: str) -> dict[str, Tensor]:
    """Return the tensors of a dictionary without `WRAPPERS` in their names, and without the counter of an average.

    Raises
    ------
    ValueError
        If two of them then have the same name, or they are absurdly many.
    """
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            continue
        if len(found) == _MOST_TENSORS:
            raise ValueError(f"{where}: holds more than {_MOST_TENSORS} tensors; no vocoder does")
        name = ".".join(part for part in str(key).split(".") if part not in WRAPPERS)
        if name in found:
            raise ValueError(f"{where}: holds {name} twice, once as {key}; save one of the two networks alone")
        if name != "n_averaged":  # of torch.optim.swa_utils.AveragedModel
            found[name] = value
    return found


def networks(content: Any, where: str) -> list[Network]:
    """List the dictionaries of tensors inside a file, and in each the tensors behind the name of a network.

    Returns
    -------
    list of Network
        As they lie in the file, but moving averages last.
    """
    found = [network for place, inner in dictionaries(content) for network in _split(place, tensors_of(inner, where))]
    return sorted(found, key=lambda network: network.is_average)


def choice(taken: Network, others: list[Network]) -> str | None:
    """Say which of several copies of a network was taken, or that it is an average; None where there is no choice."""
    copies = [other for other in others if _is_copy(taken, other)]
    if taken.is_average:
        return f"the moving average of the weights, {taken.place}, is taken"
    if not copies:
        return None
    averages = [other.place for other in copies if other.is_average]
    what = "not their moving average" if averages else "not those of the same network under"
    place = f"under {taken.place}" if taken.place else "at the top of the file"
    return f"the weights {place} are taken, {what} {', '.join(averages or [c.place for c in copies])}"


def _is_copy(one: Network, other: Network) -> bool:
    return one.state.keys() == other.state.keys() and any(
        tensor is not other.state[name] for name, tensor in one.state.items()
    )


def dictionaries(content: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield the dictionaries inside and where they lie, with a slash behind each name, the outer ones first."""
    pending: list[tuple[str, Any]] = [("", content)]
    for _ in range(_MOST):
        if not pending:
            return
        place, found = pending.pop(0)
        if not isinstance(found, Mapping):
            continue
        yield place, found
        if place.count("/") < _DEEPEST:
            inner = ((f"{place}{key}/", value) for key, value in found.items() if isinstance(value, Mapping))
            inner = (pair for pair in inner if "optim" not in pair[0].lower())
            pending += itertools.islice(inner, _MOST)  # one that holds itself would be endless


def _split(place: str, state: dict[str, Tensor], depth: int = 0) -> Iterator[Network]:
    """Yield the tensors of a place, and those behind each name of a holder."""
    if not state:
        return
    heads: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        heads.setdefault(head, {})[rest] = tensor
    if depth == 0:
        yield Network(place.removesuffix("/"), state)
    for head, inner in heads.items():
        if depth < _DEEPEST and (head.lower() in HOLDERS or _AVERAGE.search(head.lower())) and "" not in inner:
            yield Network(f"{place}{head}", inner, tuple(other for other in heads if other != head))
            yield from _split(f"{place}{head}.", inner, depth + 1)

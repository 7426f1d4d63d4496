"""What `pytest benchmarks/` measures by itself: what is asked for first, in five minutes of two cores.

A file that is named is measured whole, and `--thorough` measures every file. Whole vocoders come first in any case,
since they are what the others explain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ORDER = ("test_vocoders", "test_streaming", "test_training", "test_ops", "test_busy")
"""Files in the order in which they are run; the others follow."""

NETWORKS = ("hifigan-v1", "hifigan-v2", "hifigan-v3", "melgan", "mb-melgan")
STREAMED = ("hifigan-v1", "hifigan-v2", "melgan", "griffin-lim-net")
FRAMES = 4
RECIPE = "hifigan-v2"

BUDGET = 8.0
"""Seconds per vocoder after which no round begins, by default."""

SHORT_BUDGET = 3.0
"""The same where only what is asked for first is measured."""

SECONDS = 270.0
"""After which nothing more begins: what has begun may take the half minute that is left of five."""


class First:
    """Chooses among the tests of a run.

    Parameters
    ----------
    config : pytest.Config
        With the options of the benchmarks.
    """

    def __init__(self, config: pytest.Config) -> None:
        folders = [Path(argument.split("::")[0]) for argument in config.args]
        self.chooses = not config.getoption("--thorough") and all(folder.is_dir() for folder in folders)
        """Whether folders alone were named, and the run is not to be thorough."""
        self._networks = config.getoption("--networks")
        self._begin = time.monotonic()

    def sort(self, items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
        """Return the tests that are run, in their order, and those that are not."""
        place = {name: number for number, name in enumerate(ORDER)}
        ordered = sorted(items, key=lambda item: place.get(item.path.stem, len(ORDER)))
        if not self.chooses:
            return ordered, []
        most = max((_of(item).get("threads", 1) for item in ordered), default=1)
        seen: set[Any] = set()
        chosen = [item for item in ordered if self._wants(item, most, seen)]
        return chosen, [item for item in ordered if item not in chosen]

    def _wants(self, item: pytest.Item, most: int, seen: set[Any]) -> bool:
        values, name = _of(item), item.path.stem
        if name == "test_vocoders":
            return values["threads"] == most and (self._networks is not None or values["network"] in NETWORKS)
        if name == "test_streaming":
            return values["name"] in STREAMED and values["frames"] == FRAMES
        if name == "test_training":
            return bool(values["recipe"] == RECIPE)
        if name == "test_ops" and (values["dtype"], values["memory"]) == ("float32", "channels-first"):
            key = (values["op"].name, values["device"])
            return key not in seen and not seen.add(key)  # the first case of each
        return False

    def over(self) -> str | None:
        """Return why no further test begins, or None."""
        if not self.chooses or time.monotonic() - self._begin < SECONDS:
            return None
        return "five minutes are over; name the file, or --thorough, to measure this too"


def _of(item: pytest.Item) -> Mapping[str, Any]:
    """Return the parameters of a test."""
    call = getattr(item, "callspec", None)
    return call.params if call is not None else {}


FIRST = pytest.StashKey[First]()
"""Where a run keeps its choice."""

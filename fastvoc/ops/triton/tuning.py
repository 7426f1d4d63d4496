"""Tuning on the user's own GPU, by choice, remembered on disk."""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection
from dataclasses import astuple, replace
from pathlib import Path

import torch

from fastvoc.ops.availability import triton_version
from fastvoc.ops.triton.launch import Launch
from fastvoc.ops.triton.tiles import MEASURED, Shape, Tile, candidates, footprint, rule

Trial = Callable[[Tile], Launch]


_too_large: dict[Shape, set[Tile]] = {}
"""Tiles for which a GPU of this process had no room."""


def launch_for(shape: Shape, trial: Trial) -> Launch:
    """Return the launch with the tile for a shape; where the GPU has no room for it, the next smaller one runs.

    Parameters
    ----------
    shape : Shape
    trial : callable
        Makes the launch with a tile.
    """
    tile = tile_for(shape, trial)

    def smaller() -> Launch | None:
        failed = _too_large.setdefault(shape, set())
        failed.add(tile)
        return launch_for(shape, trial) if _largest(shape, failed) else None

    return replace(trial(tile), smaller=smaller)


def tile_for(shape: Shape, trial: Trial) -> Tile:
    """Return the tile for a shape: tuned on this machine, else measured by us, else by rule.

    Where the GPU had no room for that, it is the largest of the smaller ones that were not tried in vain.

    With ``FASTVOC_TUNE=1`` a shape that was never tuned here is tuned now, which takes seconds, and remembered.

    Parameters
    ----------
    shape : Shape
    trial : callable
        Makes the launch with a tile, so that it can be timed.
    """
    known = _known(store())
    key = repr(shape)
    if key not in known and os.environ.get("FASTVOC_TUNE") == "1" and not _capturing():
        known[key] = min(candidates(shape), key=lambda tile: duration(trial(tile)))
        _remember(store(), key, known[key])
    chosen = known.get(key) or MEASURED.get(shape) or rule(shape)
    failed = _too_large.get(shape, ())
    return (_largest(shape, failed) or chosen) if chosen in failed else chosen


def _largest(shape: Shape, failed: Collection[Tile]) -> Tile | None:
    """Return the largest candidate that is smaller than all that failed, or None."""
    least = min(footprint(shape, tile) for tile in failed)
    smaller = [tile for tile in candidates(shape) if footprint(shape, tile) < least]
    return max(smaller, key=lambda tile: footprint(shape, tile), default=None)


def duration(launch: Launch) -> float:
    """Return the milliseconds that a launch takes, or infinity if the GPU has no room for it."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    try:
        return float(do_bench(launch, return_mode="median"))
    except OutOfResources:
        return float("inf")


@functools.cache
def store() -> Path:
    """Return the file that remembers, one for each GPU and version of Triton."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "interpreter"
    return base / "fastvoc" / f"tiles-{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{triton_version()}.json"


@functools.cache
def _known(path: Path) -> dict[str, Tile]:
    return _read(path)


def _read(path: Path) -> dict[str, Tile]:
    if not path.is_file():
        return {}
    try:
        return {key: Tile(*values) for key, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: these are not the tiles that were tuned here ({error}); delete the file") from error


def _remember(path: Path, key: str, tile: Tile) -> None:
    """Add a tile to the file, which other processes read and write too: they see the old one or the new one, whole."""
    tiles = _read(path) | {key: tile}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".json")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({key: astuple(tile) for key, tile in sorted(tiles.items())}, file, indent=1)
    Path(temporary).replace(path)


def _capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()

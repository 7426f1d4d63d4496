"""Which tile a Triton kernel works in: by rule, by measurement, or tuned on the user's GPU by choice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastvoc.ops._op import Slower
from fastvoc.ops._triton import tiles, tuning
from fastvoc.ops._triton.tiles import Shape, Tile, candidates, rule, shape_of

SHAPE = Shape("conv1d", 64, 64, 7, 3, "float16", 90)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "cache" / "tiles.json"
    monkeypatch.setattr(tuning, "store", lambda: path)
    monkeypatch.delenv("FASTVOC_TUNE", raising=False)
    tuning._known.cache_clear()
    yield path
    tuning._known.cache_clear()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Every tile that was timed; the fastest is the last candidate."""
    seen: list[Tile] = []

    def duration(tile: Any) -> float:
        seen.append(tile)
        return 1.0 / len(seen)

    monkeypatch.setattr(tuning, "duration", duration)
    return seen


def tile_for(shape: Shape) -> Tile:
    return tuning.tile_for(shape, lambda tile: tile)  # type: ignore[arg-type,return-value]


def test_nothing_is_measured_yet_and_the_rule_decides(store: Path, timed: list[Tile]) -> None:
    assert tiles.MEASURED == {}
    assert tile_for(SHAPE) == rule(SHAPE) and not timed and not store.exists()


def test_a_measured_tile_goes_before_the_rule(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiles.MEASURED, SHAPE, Tile(64, 64, 32, 4, 4))
    assert tile_for(SHAPE) == Tile(64, 64, 32, 4, 4)


def test_where_plain_pytorch_was_faster_it_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiles.PLAIN == {} and tiles.slower(SHAPE) is None
    monkeypatch.setitem(tiles.PLAIN, SHAPE, "cuDNN takes 0.8 of the time")
    assert isinstance(tiles.slower(SHAPE), Slower)


def test_tuning_is_asked_for_and_remembered(store: Path, timed: list[Tile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_TUNE", "1")
    best = candidates(SHAPE)[-1]
    assert tile_for(SHAPE) == best and timed == candidates(SHAPE)
    tuning._known.cache_clear()
    monkeypatch.delenv("FASTVOC_TUNE")
    assert tile_for(SHAPE) == best and len(timed) == len(candidates(SHAPE))
    assert list(store.parent.iterdir()) == [store]


def test_two_processes_keep_what_each_other_found(store: Path, timed: list[Tile], monkeypatch: Any) -> None:
    monkeypatch.setenv("FASTVOC_TUNE", "1")
    tuning._known(store)
    other = Shape("upsample", 64, 64, 2, 1, "float16", 90)
    store.parent.mkdir(parents=True)
    store.write_text(json.dumps({repr(other): [64, 64, 32, 4, 2]}), encoding="utf-8")
    tile_for(SHAPE)
    assert set(json.loads(store.read_text(encoding="utf-8"))) == {repr(SHAPE), repr(other)}


def test_a_broken_file_is_named(store: Path) -> None:
    store.parent.mkdir(parents=True)
    store.write_text('{"Shape": [1, 2', encoding="utf-8")
    with pytest.raises(ValueError, match=r"tiles.json: these are not the tiles .*; delete the file"):
        tile_for(SHAPE)


def test_a_new_length_never_tunes_again(store: Path, timed: list[Tile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_TUNE", "1")
    monkeypatch.setattr(tiles, "_capability", lambda device: 90)
    shapes = {
        shape_of("conv1d", 64, 64, 7, 3, torch.empty(batch, 64, frames, dtype=torch.float16))
        for batch in (1, 4)
        for frames in (1, 100, 101, 4096)
    }
    assert len(shapes) == 1
    for _ in range(3):
        tile_for(*shapes)
    assert len(timed) == len(candidates(*shapes))


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels", [1, 8, 13, 32, 48, 80, 96, 256, 512])
@pytest.mark.parametrize("name", ["conv1d", "weight_gradient"])
def test_tiles_fit_every_gpu(name: str, channels: int, dtype: str) -> None:
    shape = Shape(name, channels, channels, 7, 3, dtype, 89)
    tile = rule(shape)
    size = 2 if "16" in dtype else 4
    assert tile.stages * (tile.rows + tile.columns) * tile.channels * size <= 99 * 1024
    assert tile in candidates(shape) and candidates(shape)[0] == tile
    assert all(value & (value - 1) == 0 and value >= 16 for value in (tile.rows, tile.columns, tile.channels))

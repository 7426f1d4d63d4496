"""Which tile a Triton kernel works in: by rule, by measurement, or tuned on the user's GPU by choice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

pytest.importorskip("triton", reason="the package triton is not installed")

from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.errors import OutOfResources

from fastvoc.graph import Convolution
from fastvoc.models import bigvgan, hifigan, istftnet, melgan, vocos
from fastvoc.models.discriminators import DISCRIMINATORS
from fastvoc.ops import OPS
from fastvoc.ops.conv1d.call import Conv1d
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.op import Slower
from fastvoc.ops.smooth_snake.call import SmoothSnake
from fastvoc.ops.strided_conv1d.call import StridedConv1d
from fastvoc.ops.triton import Launch, Launches, tiles, tuning, weight_gradient
from fastvoc.ops.triton import launch as launch_module
from fastvoc.ops.triton.tiles import Shape, Tile, candidates, rule, shape_of
from fastvoc.ops.upsample.call import Upsample

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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "tf32", "float32"])
@pytest.mark.parametrize("width", [1, 4, 24, 64, 512])
def test_every_tile_that_is_tried_can_be_launched(width: int, dtype: str) -> None:
    tried = candidates(Shape("conv1d", width, width, 7, 3, dtype, 90))
    assert len(tried) == len(set(tried)) > 10
    for tile in tried:
        sizes = (tile.rows, tile.columns, tile.channels, tile.warps)
        assert all(size > 0 and size & (size - 1) == 0 for size in sizes)  # Triton takes powers of two only
        assert min(sizes[:3]) >= 16  # and matrix units no less than this
        assert tile.warps <= 8 and 2 <= tile.stages <= 4
        assert tile.rows * tile.columns <= 128 * 128 * tile.warps // 4


LAST = 1 << 20
"""Frames of a result of 2048 channels that 32-bit offsets do not reach any more."""

LONG: dict[str, tuple[Any, tuple[int, ...], int]] = {
    # the call of an input and a weight; the weight's shape; frames that make the result LAST frames
    "conv1d": (lambda x, w: Conv1d(x, w, dilation=5, left=1, right=2), (2048, 1, 3), LAST - 3 + 10),
    "upsample": (lambda x, w: Upsample(x, w, None, 8, 4, 4), (1, 2048, 16), LAST // 8),
    "gated": (lambda x, w: Gated(x, w, None, None, w[:1, :1].expand(1, 1024, 1), None, None, 0), (2048, 1, 1), LAST),
    "smooth_snake": (lambda x, w: SmoothSnake(x, w[0, 0]), (1, 1, 1), 2**31),
    "strided_conv1d": (lambda x, w: StridedConv1d(x, w, stride=4, left=1, right=1), (2048, 1, 5), 4 * LAST),
}


@pytest.mark.parametrize("name", LONG)
def test_results_that_offsets_do_not_reach_are_refused(name: str) -> None:
    call_of, shape, frames = LONG[name]
    element = torch.empty(1)

    def reason(count: int) -> str:
        return str(OPS[name].kernels["triton"](call_of(element.expand(1, 1, count), element.expand(shape))))

    step = 4 if name == "strided_conv1d" else 1
    assert "has 2147483648 elements or more" in reason(frames)
    assert "elements or more" not in reason(frames - step)


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
@pytest.mark.parametrize("columns", [1, 4, 16, 18, 32, 33, 64, 256])
@pytest.mark.parametrize("name", ["conv1d", "weight_gradient", "gated"])
def test_tiles_fit_every_gpu(name: str, columns: int, channels: int, dtype: str) -> None:
    for shape in (Shape(name, channels, columns, 7, 3, dtype, 89), Shape(name, channels, channels, 7, 3, dtype, 89)):
        tile = rule(shape)
        assert tiles.footprint(shape, tile) <= 99 * 1024
        assert tile in candidates(shape) and candidates(shape)[0] == tile
        assert all(value & (value - 1) == 0 and value >= 16 for value in (tile.rows, tile.columns, tile.channels))


class Crowded:
    """A kernel of a GPU that has room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ran: list[int] = []

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        def run(x: torch.Tensor, bytes: int, **options: Any) -> None:
            self.ran.append(bytes)
            if bytes > self.room:
                raise OutOfResources(bytes, self.room, "shared memory")

        return run


def test_where_a_gpu_has_no_room_the_next_smaller_tile_runs_and_is_remembered(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_too_large", {})
    largest = tiles.footprint(SHAPE, rule(SHAPE))
    kernel = Crowded(largest - 1)

    def trial(tile: Tile) -> Launch:
        size = tiles.footprint(SHAPE, tile)
        return Launch(
            kernel=kernel,
            grid=(1, 1, 1),
            arguments={"x": torch.empty(1), "bytes": size},
            constants={},
            warps=4,
            stages=1,
        )

    ran = tuning.launch_for(SHAPE, trial)()
    assert kernel.ran[0] == largest and largest > kernel.ran[-1] == ran.arguments["bytes"]
    tried = len(kernel.ran)
    tuning.launch_for(SHAPE, trial)()
    assert kernel.ran[tried:] == [ran.arguments["bytes"]]
    kernel.room = 0
    with pytest.raises(OutOfResources):
        tuning.launch_for(SHAPE, trial)()
    assert len(kernel.ran) <= tried + 2 + len(candidates(SHAPE))


def test_an_error_that_is_not_about_room_is_raised(store: Path) -> None:
    class Broken:
        def __getitem__(self, grid: tuple[int, int, int]) -> Any:
            def run(**arguments: Any) -> None:
                raise RuntimeError("illegal address")

            return run

    def trial(tile: Tile) -> Launch:
        return Launch(kernel=Broken(), grid=(1, 1, 1), arguments={"x": torch.empty(1)}, constants={}, warps=4, stages=1)

    with pytest.raises(RuntimeError, match="illegal address"):
        tuning.launch_for(SHAPE, trial)()


PUBLISHED = {
    "HiFi-GAN V1": hifigan.V1,
    "HiFi-GAN V2": hifigan.V2,
    "HiFi-GAN V3": hifigan.V3,
    "iSTFTNet": istftnet.C8C8I,
    "MelGAN": melgan.DESCRIPT,
    "MelGAN at 16 kHz": melgan.DESCRIPT_16K,
    "MelGAN of Keras": melgan.KERAS,
    "full-band MelGAN": melgan.FULL_BAND,
    "multi-band MelGAN": melgan.MULTI_BAND,
}


def shapes_of(config: Any, dtype: str) -> set[Shape]:
    """The shapes by which the layers of a generator, and their gradients, choose tiles on a GPU with 99 KiB."""
    with torch.device("meta"):
        nodes = [node for node in config.build().graph().nodes if isinstance(node, Convolution)]
    shapes = set()
    for node in nodes:
        first, second, taps = node.weight.shape
        if node.stride:
            rounds = -(-taps // node.stride)
            shapes |= {Shape("upsample", first, node.stride * second, rounds, 1, dtype, 86)}
            shapes |= {Shape("upsample_backward", second, first, taps, 1, dtype, 86)}
        else:
            shapes |= {Shape("conv1d", second, first, taps, node.dilation, dtype, 86)}
            shapes |= {Shape("conv1d_backward", first, second, taps, node.dilation, dtype, 86)}
        shapes |= {Shape("weight_gradient", first, second, taps, node.dilation, dtype, 86)}
        if node.residual:
            shapes |= {Shape("residual", first, first, taps, node.dilation, dtype, 86)}
    return shapes


@pytest.mark.parametrize("dtype", ["float32", "tf32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tile_of_every_layer_of_every_model_fits_the_smallest_gpus(name: str, dtype: str) -> None:
    shapes = shapes_of(PUBLISHED[name], dtype)
    assert len(shapes) > 9
    for shape in shapes:
        assert tiles.footprint(shape, rule(shape)) <= 99 * 1024, shape


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls of operators, forward and backward, in the order in which they come."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastvoc":
            name = func.name().removeprefix("fastvoc::").removesuffix(".default")
            defaults = [argument.default_value for argument in func._schema.arguments[len(args) :]]
            self.made.append((name, OPS[name].kind(*args, *defaults)))
        return func(*args, **(kwargs or {}))


def launched_by(name: str, call: Any) -> list[Launch]:
    """The launches of a call on a GPU with 99 KiB, none of which runs."""
    module = import_module(f"fastvoc.ops.{name.removesuffix('_backward')}.triton")
    run = module._run_backward if name.endswith("_backward") else module._run
    made: list[Launch] = []

    def describe(launch: Launch) -> Launch:
        made.append(launch)
        return launch

    with (
        torch.no_grad(),
        patch.object(Launch, "__call__", describe),
        patch.object(tiles, "_capability", lambda device: 86),
        patch.object(weight_gradient, "_multiprocessors", lambda device: 84),
    ):
        run(*((Launches(),) if "launches" in signature(run).parameters else ()), call)
    return made


def bytes_of(launch: Launch) -> int:
    """Shared memory that the pipeline of a launch takes at most, as `footprint` counts it of a tile."""
    rows, columns, channels, stages = (
        launch.constants[name] for name in ("BLOCK_ROWS", "BLOCK_COLUMNS", "BLOCK_CHANNELS", "STAGES")
    )
    x: torch.Tensor = launch.arguments["x" if "x" in launch.arguments else "fixed"]
    return int(stages * (rows + columns) * channels * x.element_size())


TRAINED: dict[str, Callable[[], Any]] = {
    # all that convolve in one dimension
    **{f"discriminator {kind}": DISCRIMINATORS[kind] for kind in ("melgan", "scale", "period")},
    "BigVGAN": lambda: bigvgan.V2_24K,
    "Vocos": lambda: vocos.MEL_24K,
    "HiFi-GAN V1": lambda: hifigan.V1,
    "multi-band MelGAN": lambda: melgan.MULTI_BAND,
}


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", TRAINED)
def test_the_launches_of_a_training_step_fit_the_smallest_gpus(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_module, "tf32_allowed", lambda: dtype == "tf32")
    config = TRAINED[name]()
    with torch.device("meta"):
        network: Any = config.build().to("meta", torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    weight = next(network.parameters())
    shape = (2, 1, 8192) if name.startswith("discriminator") else (2, network.mel_bands, 32)
    with Calls() as calls:
        made = network(weight.new_empty(shape).requires_grad_())
        tensors = [made] if isinstance(made, torch.Tensor) else [feature for maps in made for feature in maps]
        torch.autograd.backward([tensor.float().sum() for tensor in tensors])
    launches = [
        launch
        for name, call in calls.made
        if "triton" in OPS[name].kernels
        for launch in launched_by(name, call)
        if "BLOCK_ROWS" in launch.constants
    ]
    assert len(launches) >= 3
    for launch in launches:
        assert bytes_of(launch) <= 99 * 1024, launch.constants

"""Graphs: blocks that the package does not know say what they are made of; they stream, and plans run around them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_streaming import BANDS, GENERATORS, checkpoint, chunkings, condition_of, native, random_mel, streamed, vocoder
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import Vocoder
from fastvoc.blocks import Conv1d, ResidualBlocks, Trunk, WaveHead
from fastvoc.engine import Plan
from fastvoc.engine.runs import runs_of
from fastvoc.engine.stream import Stream
from fastvoc.graph import INPUT, Convolution, Graph, LeakyReLU, Node, Opaque, Pointwise, Window
from fastvoc.models import HiFiGAN
from fastvoc.models.generator import TrunkGenerator


class Snake(nn.Module):
    """x + sin²(αx)/α, which is a function of rows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.linspace(0.5, 1.5, channels)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / self.alpha

    def lower(self, graph: Graph, x: int) -> int:
        return graph.add(Pointwise(self), x)


class Leaky(nn.LeakyReLU):
    def lower(self, graph: Graph, x: int) -> int:
        return graph.add(LeakyReLU(self.negative_slope), x)


class Smooth(nn.Module, Node):
    """A snake at twice the rate, behind low-pass filters (BigVGAN, arXiv:2206.04658, §3.2): a node with reach."""

    edges = "replicate"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snake = Snake(channels)
        at = torch.arange(12) - 5.5
        low = torch.sinc(at / 2) * torch.kaiser_window(12, False, 4.66)
        self.register_buffer("filter", low / low.sum())

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first - 6, last + 6

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        (x,) = window.rows
        low = self.filter.expand(x.shape[1], 1, -1)
        y = self.snake(2 * F.conv_transpose1d(x, low, stride=2, groups=x.shape[1]))
        start = first - window.first
        return F.conv1d(y, low, stride=2, groups=x.shape[1])[..., start : start + last - first + 1]

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[-1]
        return self.valid(Window((F.pad(x, (6, 6), "replicate"),), -6, count, True), 0, count - 1)

    def lower(self, graph: Graph, x: int) -> int:
        return graph.add(self, x)


class Units(nn.Module):
    """Residual units behind any activation, as in BigVGAN."""

    def __init__(self, channels: int, activation: Any) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activation(channels) for _ in range(2))
        self.convs = nn.ModuleList(Conv1d(channels, channels, 3, dilation=dilation) for dilation in (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        for activation, conv in zip(self.activations, self.convs, strict=True):
            x = conv(activation(x), residual=x)
        return x

    def lower(self, graph: Graph, x: int) -> int:
        for activation, conv in zip(self.activations, self.convs, strict=True):
            x = graph.lower(conv, graph.lower(activation, x), x, residual=True)
        return x


ACTIVATIONS: dict[str, Any] = {
    "a function of rows": Snake,
    "one that convolutions fuse": lambda _: Leaky(0.2),
    "one with reach": Smooth,
}


def foreign(activation: str, dtype: torch.dtype = torch.float32, *, second: bool = False) -> Vocoder:
    """A vocoder whose stages, or the second alone, are blocks that the package does not know."""
    torch.manual_seed(0)
    own = iter([True, False] if second else [False, False])

    def stage(channels: int) -> Any:
        if next(own):
            return ResidualBlocks(channels, [[[(3, 1), (3, 1)]], [[(5, 1), (3, 1)]]], slope=0.1)
        return Units(channels, ACTIVATIONS[activation])

    trunk = Trunk(BANDS, 16, (4, 2), (8, 4), stage, slope=0.1)
    generator = TrunkGenerator(trunk, WaveHead(trunk.channels, slope=0.01), mel_bands=BANDS)
    speaking = Vocoder(checkpoint("hifigan"), dtype=dtype)
    speaking.generator = generator.requires_grad_(False).to(dtype)
    return speaking


@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=10, deadline=None)
@given(chunks=chunkings())
def test_blocks_of_ones_own_stream_row_by_row(activation: str, chunks: list[int]) -> None:
    speaking = foreign(activation, torch.float64)
    mel = random_mel(BANDS, sum(chunks), dtype=torch.float64)
    assert not speaking.streamer().recomputes
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
    torch.testing.assert_close(streamed(speaking, mel.split(chunks, dim=-1)), whole, rtol=0, atol=1e-12)


@native
@pytest.mark.parametrize("second", [False, True], ids=["every stage", "the second stage"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_plans_run_around_what_they_do_not_know_and_say_what_it_is(activation: str, second: bool) -> None:
    speaking, mel = foreign(activation, second=second), random_mel(BANDS, 60)
    ways = speaking.explain()
    fused = activation == "one that convolutions fuse"
    if fused:
        assert ways["plan"] is None
    else:
        kind = "Snake" if activation == "a function of rows" else "Smooth"
        assert ways["plan"] == f"its {kind} is made of more than the layers that a plan knows"
        assert ways["plan in parts"] is None
        (run,) = Plan(speaking.generator).runs
        assert len(run.graph.nodes) == (7 if second else 2)  # stem and up-sampling, or that, a stage and up-sampling
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
    largest = float(whole.abs().max())
    torch.testing.assert_close(speaking(mel), whole, rtol=0, atol=1e-5 * largest)
    pieces = [streamed(speaking, mel.split(size, dim=-1)) for size in (1, 7, 60)]
    for piece in pieces:
        torch.testing.assert_close(piece, whole, rtol=0, atol=1e-5 * largest)


@native
@pytest.mark.parametrize("name", ["hifigan, conditioned", "hifigan, conditioned at each stage"])
def test_parts_of_a_plan_give_the_samples_of_the_operators_to_the_bit(name: str) -> None:
    speaking, mel, condition = vocoder(name), random_mel(2, BANDS, 50), condition_of(name, 2)
    assert len(Plan(speaking.generator).runs) == (1 if name == "hifigan, conditioned" else 2)
    with torch.inference_mode():
        assert torch.equal(speaking(mel, condition=condition), speaking.generator(mel, condition)[:, 0])
    pieces = streamed(speaking, mel.split(3, dim=-1), batch=2, condition=condition)
    assert torch.equal(pieces, speaking(mel, condition=condition))


@native
def test_an_adapter_is_called_and_everything_else_is_native() -> None:
    class Adapter(nn.Module):
        def __init__(self, conv: Conv1d) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor, **options: Any) -> Tensor:
            return 1.5 * self.conv(x, **options)  # type: ignore[no-any-return]

    speaking, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 50)
    reach = speaking.receptive_field
    unit: Any = speaking.generator.trunk.residual[1].branches[0][0]  # type: ignore[union-attr, index]
    unit[1] = Adapter(unit[1])
    assert "is a Adapter, which is none of fastvoc's blocks" in str(speaking.explain()["plan"])
    assert speaking.explain()["plan in parts"] is None and speaking.receptive_field == reach
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
    assert torch.equal(speaking(mel), whole)
    assert torch.equal(streamed(speaking, mel.split(7, dim=-1)), whole)
    assert sum(isinstance(node, Opaque) for node in speaking.generator.graph().nodes) == 1


def test_a_leaky_relu_is_fused_where_every_reader_has_none_or_behind_what_it_reads() -> None:
    def conv(**settings: Any) -> Convolution:
        return Convolution(weight=torch.ones(1, 1, 1), **settings)

    graph = Graph()
    first = graph.add(conv(), INPUT)
    leaky = graph.add(LeakyReLU(0.1), first)
    graph.add(conv(residual=True), graph.add(conv(), leaky), leaky)
    fused = graph.fused()
    assert [node.slope_after for node in fused.nodes if isinstance(node, Convolution)] == [0.1, 1.0, 1.0]
    graph = Graph()
    first = graph.add(conv(), INPUT)
    graph.add(conv(residual=True), graph.add(LeakyReLU(0.1), first), first)
    fused = graph.fused()
    assert [node.slope for node in fused.nodes if isinstance(node, Convolution)] == [1.0, 0.1]
    graph = Graph()
    graph.add(conv(slope=0.5), graph.add(LeakyReLU(0.1), INPUT))
    assert len(graph.fused().nodes) == 2


@pytest.mark.parametrize("name", GENERATORS)
def test_what_is_certain_never_shrinks_and_is_all_at_the_end(name: str) -> None:
    generator = vocoder(name).generator
    graph = generator.graph()
    certain = [graph.ready(frames, False)[-1] for frames in range(40)]
    assert certain == sorted(certain)
    past, future = generator.receptive_field
    for frames in range(max(past, future) + 1, 40):
        assert graph.ready(frames, True)[-1] == generator.samples(frames)
        hop = generator.hop
        assert certain[frames] // hop == max(0, frames - future)


def test_runs_have_one_input_and_one_result() -> None:
    graph = Graph()
    pairs = [graph.add(Convolution(weight=torch.ones(1, 1, 1)), INPUT)]
    for _ in range(3):
        pairs.append(graph.add(Convolution(weight=torch.ones(1, 1, 1)), pairs[-1]))
    graph.add(Pointwise(torch.add), pairs[-1], pairs[1])
    assert runs_of(graph) == {0: 1, 2: 3}


@st.composite
def reaches(draw: st.DrawFn) -> Convolution:
    taps, stride = draw(st.integers(1, 7)), draw(st.integers(0, 3))
    if stride:
        taps = max(taps, stride)
        left = draw(st.integers(0, taps - stride))
        return Convolution(weight=torch.randn(1, 1, taps), stride=stride, padding=(left, taps - stride - left))
    dilation = draw(st.integers(1, 3))
    span = (taps - 1) * dilation
    left = draw(st.integers(0, span))
    return Convolution(weight=torch.randn(1, 1, taps), dilation=dilation, padding=(left, span - left))


@settings(max_examples=50, deadline=None)
@given(node=reaches())
def test_a_convolution_reads_the_rows_that_it_says(node: Convolution) -> None:
    graph = Graph()
    graph.add(node, INPUT)
    frames, row = 60, 30 * max(1, node.stride)
    x = torch.zeros(1, 1, frames, requires_grad=True)
    plain = node.weight.double().abs() + 1
    whole = (
        F.conv_transpose1d(x.double(), plain, stride=node.stride)[..., node.padding[0] :]
        if node.stride
        else F.conv1d(F.pad(x.double(), node.padding), plain, dilation=node.dilation)
    )
    whole[..., row].sum().backward()
    assert x.grad is not None
    read = x.grad[0, 0].nonzero().flatten().tolist()
    first, last = node.needs(row, row)
    assert (first, last) == (read[0], read[-1])
    assert math.prod(whole.shape[2:]) >= node.length(frames) == frames * max(1, node.stride)


class Softer(HiFiGAN):
    """Overrides what only `forward` calls, and inherits `lower`."""

    def features(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        return 0.5 * super().features(mel, condition)


class SofterConv(Conv1d):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return 0.5 * super().__call__(*arguments, **settings)


def put_on_the_instance(generator: Any) -> None:
    features = generator.features
    generator.features = lambda mel, condition=None: 0.5 * features(mel, condition)


def shared(generator: Any) -> None:
    branches = generator.trunk.residual[0].branches
    branches[0][0][0] = branches[0][-1][0]


def share_a_branch(generator: Any) -> None:
    branches = generator.trunk.residual[0].branches
    branches[1] = branches[0]


def dilate(generator: Any) -> None:
    generator.trunk.residual[0].branches[0][0][0].dilation = 2


INHERITED: dict[str, Callable[[Any], None]] = {
    "a method that forward calls": lambda g: setattr(g, "__class__", Softer),
    "a method of the instance": put_on_the_instance,
    "another call": lambda g: setattr(g.trunk.stem, "__class__", SofterConv),
    "another call inside": lambda g: setattr(g.trunk.residual[0].branches[0][0][0], "__class__", SofterConv),
    "a convolution used twice": shared,
    "a branch used twice": share_a_branch,
    "another dilation": dilate,
    "another padding": lambda g: setattr(g.trunk.residual[0], "padding_mode", "replicate"),
}


@pytest.mark.parametrize("change", INHERITED)
def test_what_forward_does_is_what_plays_and_streams(change: str) -> None:
    speaking = vocoder("hifigan", torch.float64)
    mel = random_mel(BANDS, 24, dtype=torch.float64)
    speaking.generator  # noqa: B018  # so that changes are looked for
    before = speaking(mel)
    INHERITED[change](speaking.generator)
    speaking.refresh()
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
        by_graph = Stream(speaking.generator.graph(), hop=speaking.hop, like=mel[None, :, :0]).whole(mel[None])[0, 0]
    if change != "another padding":  # of which each convolution has its own
        assert float((whole - before).abs().max()) > 1e-6
    torch.testing.assert_close(by_graph, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(streamed(speaking, mel.split(3, dim=-1)), whole, rtol=0, atol=1e-12)


def test_a_class_that_changes_is_noticed() -> None:
    speaking = Vocoder(checkpoint("hifigan"))
    mel = random_mel(BANDS, 24)
    speaking.generator.eval()
    before = speaking(mel)
    speaking.generator.__class__ = Softer
    assert float((speaking(mel) - before).abs().max()) > 1e-6


def test_a_forward_that_was_put_into_a_class_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = WaveHead.forward
    monkeypatch.setattr(WaveHead, "forward", lambda self, x: 0.5 * plain(self, x))
    speaking, mel = vocoder("hifigan", torch.float64), random_mel(BANDS, 24, dtype=torch.float64)
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
    torch.testing.assert_close(streamed(speaking, mel.split(5, dim=-1)), whole, rtol=0, atol=1e-12)


class Own(nn.Module):
    """A block that is called, reaches two rows to each side, and writes into what it is called with."""

    def __init__(self, channels: int, extra: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 5, padding=2 + extra)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first - 2, last + 2

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x.mul_(0.5))
        return result


def of_own(block: Callable[[int], nn.Module]) -> Vocoder:
    torch.manual_seed(0)
    trunk = Trunk(BANDS, 16, (4, 2), (8, 4), block, slope=0.1)  # type: ignore[arg-type]
    speaking = Vocoder(checkpoint("hifigan"), dtype=torch.float64)
    head = WaveHead(trunk.channels, slope=0.01)
    speaking.generator = TrunkGenerator(trunk, head, mel_bands=BANDS).requires_grad_(False).double()
    return speaking


def test_a_block_that_writes_into_its_input_writes_into_no_stream() -> None:
    speaking, mel = of_own(Own), random_mel(BANDS, 20, dtype=torch.float64)
    with torch.inference_mode():
        whole = speaking.generator(mel[None])[0, 0]
    torch.testing.assert_close(streamed(speaking, mel.split(2, dim=-1)), whole, rtol=0, atol=1e-12)


def test_a_block_that_makes_other_rows_than_it_says_is_named() -> None:
    with pytest.raises(ValueError, match=r"Own made \d+ rows of \d+; it must make \d+, since its rate is 1"):
        of_own(lambda channels: Own(channels, extra=1)).streamer().push(random_mel(BANDS, 20, dtype=torch.float64))


class Forgetful(Snake):
    def forward(self, x: Tensor) -> Tensor:
        return x

    def lower(self, graph: Graph, x: int) -> int:
        graph.add(Pointwise(self), x)
        return None  # type: ignore[return-value]


def test_a_lower_that_returns_no_node_is_named() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.lower returned None; it must return the number of the node"):
        of_own(Forgetful).streamer()

"""What Triton kernels owe beside the contract, under Triton's interpreter; `test_triton.py` runs this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from fastvoc.engine.cuda_graphs import CudaGraphs, bucket_of
from fastvoc.models import bigvgan, hifigan, melgan
from fastvoc.ops import OPS, conv1d, convnext, gated, last_backends, residual, smooth_snake, upsample, use_backend
from fastvoc.ops.availability import interpreted
from fastvoc.ops.contract import errors
from fastvoc.ops.conv1d.call import Conv1d
from fastvoc.ops.layout import to_channels_last
from fastvoc.ops.packing import keep
from fastvoc.ops.ragged import ragged
from fastvoc.ops.smooth_snake import triton as smooth_snake_triton
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward
from fastvoc.ops.triton import tiles
from fastvoc.ops.upsample.call import Upsample

pytestmark = pytest.mark.skipif(not interpreted(), reason="TRITON_INTERPRET is not 1")


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * (shape[1] * shape[2]) ** -0.5


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("conv1d", "prime sizes, uneven padding"),
        ("conv1d_backward", "reflected, channels-last"),
        ("upsample", "odd stride, uneven crop"),
        ("upsample_backward", "taps no multiple of the stride"),
        ("strided_conv1d", "hifigan scale 1, layer 3"),
        ("strided_conv1d_backward", "hifigan scale 1, layer 3"),
        ("residual", "two branches, channels-last"),
        ("convnext", "odd widths, another memory order"),
        ("convnext", "more padding than taps"),
        ("gated", "prime sizes, causal"),
        ("gated", "no residual connection, channels-last"),
        ("gated", "parallel wavegan"),
    ],
)
def test_the_tiles_of_a_gpu_compute_the_same(name: str, case: str, capability: int) -> None:
    op, (chosen,) = OPS[name], [known for known in OPS[name].cases() if known.name == case]
    call = chosen.call(dtype=torch.float16, frames=133)
    with patch.object(tiles, "_capability", lambda device: capability), use_backend("triton"):
        got = op(call)
    for worst, allowed in errors(call, got):
        assert worst <= allowed


@pytest.mark.parametrize("mode", ["zero", "reflect", "replicate"])
@pytest.mark.parametrize("last", [False, True])
def test_items_of_a_ragged_batch_are_those_of_each_alone(mode: str, last: bool) -> None:
    lengths, bucket = [11, 16, 9], 16
    first, up, head = weight(6, 4, 3), weight(6, 5, 6), weight(1, 5, 7)
    alpha, beta = 0.3 * torch.randn(5), 0.3 * torch.randn(5)
    units, biases = [weight(5, 5, 3, seed=n) for n in range(4)], [torch.randn(5) for _ in range(4)]

    def network(mel: Tensor) -> Tensor:
        x = conv1d(mel, first, padding=(1, 1), padding_mode=mode)
        x = upsample(x, up, stride=3, crop=(2, 1), slope=0.1)
        x = residual(x, units, biases, [3, 1, 1, 2], branches=2, padding_mode=mode)
        x = smooth_snake(x, alpha, beta)
        return conv1d(x, head, padding=(3, 3), padding_mode=mode, slope=0.01, tanh=True)

    mel = torch.randn(3, 4, bucket)
    mel = to_channels_last(mel) if last else mel
    with use_backend("triton"):
        alone = [network(mel[n : n + 1, :, :length]) for n, length in enumerate(lengths)]
        for n, length in enumerate(lengths):
            mel[n, :, length:] = float("nan")
        with ragged(torch.tensor(lengths, dtype=torch.int32), bucket):
            together = network(mel)
    for n, length in enumerate(lengths):
        assert torch.equal(together[n : n + 1, :, : 3 * length], alone[n])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_gates_of_a_ragged_batch_are_those_of_each_alone(together: bool, last: bool) -> None:
    lengths, bucket, gates = [11, 16, 9], 16, 5 if together else 11
    x, before = torch.randn(3, 12, bucket), torch.randn(3, 7, bucket)
    x = to_channels_last(x) if last else x
    w, out = weight(2 * gates, 12, 3), weight(19, gates, 1)
    condition = torch.randn(3, 2 * gates, bucket)

    def layer(x: Tensor, condition: Tensor, before: Tensor) -> Tensor:
        made = gated(x, w, out, skip_channels=7, condition=condition, skip=before, dilation=2, scale=0.5)
        return torch.cat(made, dim=1)

    with use_backend("triton"):
        alone = [
            layer(*(tensor[n : n + 1, :, :length] for tensor in (x, condition, before)))
            for n, length in enumerate(lengths)
        ]
        for n, length in enumerate(lengths):
            for tensor in (x, condition, before):
                tensor[n, :, length:] = float("nan")
        with ragged(torch.tensor(lengths, dtype=torch.int32), bucket):
            both = layer(x, condition, before)
    for n, length in enumerate(lengths):
        assert torch.equal(both[n : n + 1, :, :length], alone[n])


def test_blocks_of_a_ragged_batch_are_those_of_each_alone() -> None:
    lengths, bucket = [11, 16, 9], 16
    x = to_channels_last(torch.randn(3, 12, bucket)).half()
    numbers = [torch.randn(size).half() for size in (12, 12, 12, 20, 12, 12)]
    weights = [weight(12, 1, 7).half(), *numbers[:3], weight(20, 12, 1)[..., 0].half(), numbers[3]]
    weights += [weight(12, 20, 1)[..., 0].half(), *numbers[4:]]
    with use_backend("triton"):
        alone = [convnext(x[n : n + 1, :, :length], *weights, padding=(3, 3)) for n, length in enumerate(lengths)]
        for n, length in enumerate(lengths):
            x[n, :, length:] = float("nan")
        with ragged(torch.tensor(lengths, dtype=torch.int32), bucket):
            together = convnext(x, *weights, padding=(3, 3))
            with pytest.raises(
                NotImplementedError, match="16 frames become 12; where items end before the tensor does"
            ):
                convnext(x, *weights, padding=(1, 1))
            with pytest.raises(NotImplementedError, match="which PyTorch multiplies; it does not know where items end"):
                convnext(x.float(), *(tensor.float() for tensor in weights), padding=(3, 3))
    for n, length in enumerate(lengths):
        assert torch.equal(together[n : n + 1, :, :length], alone[n])


def test_a_gate_is_right_to_an_ulp_everywhere() -> None:
    a = torch.cat([torch.linspace(-20, 20, 2001), torch.logspace(-30, 0, 499), torch.tensor([-200.0, 200.0])])
    for first in (False, True):
        ramps = [a, torch.zeros_like(a)] if not first else [torch.full_like(a, 30.0), a]
        x = torch.stack(ramps)[None]
        with use_backend("triton"):
            _, y = gated(x, torch.eye(2)[..., None], torch.ones(1, 1, 1), skip_channels=1, sigmoid_first=first)
        rows = x[0].double()
        exact = rows[0].sigmoid() * rows[1].tanh() if first else rows[0].tanh() * rows[1].sigmoid()
        assert ((y[0, 0].double() - exact).abs() <= 4 * torch.finfo(torch.float32).eps * exact.abs()).all()


def test_a_frame_depends_neither_on_how_many_there_are_nor_on_its_neighbours_in_the_batch() -> None:
    x, w = torch.randn(3, 24, 200), weight(40, 24, 7)
    tile = 64  # NumPy's products, unlike a GPU's, depend on the place of a row in its tile
    with use_backend("triton"):
        whole, part = conv1d(x, w, dilation=3), conv1d(x[1:2, :, tile : tile + 100], w, dilation=3)
    assert torch.equal(whole[1:2, :, tile : tile + 82], part)


def test_tanh_is_right_to_a_few_ulp_everywhere() -> None:
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-30, 0, 999)])[None, None]
    with use_backend("triton"):
        y = conv1d(x, torch.ones(1, 1, 1), tanh=True)
    exact = x.double().tanh()
    assert ((y.double() - exact).abs() <= 4 * torch.finfo(torch.float32).eps * exact.abs()).all()


def test_not_a_number_reaches_all_that_it_touches_and_no_more() -> None:
    x, w = torch.randn(1, 5, 40), weight(21, 5, 3)
    x[0, 2, 20] = float("nan")
    with use_backend("triton"):
        y = conv1d(x, w, padding=(1, 1), slope=0.1, tanh=True)
    assert y[..., 19:22].isnan().all()
    assert y[..., :19].isfinite().all() and y[..., 22:].isfinite().all()


def test_float64_is_refused_with_the_reason() -> None:
    with use_backend("triton"), pytest.raises(NotImplementedError, match=r"x is torch.float64; these kernels compute"):
        conv1d(torch.ones(1, 1, 16).double(), torch.ones(1, 1, 1).double())


@pytest.mark.parametrize("name", ["conv1d_backward", "upsample_backward", "strided_conv1d_backward"])
def test_atomic_sums_are_as_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVOC_ATOMICS", "1")
    case = next(case for case in OPS[name].cases() if not case.model and case.frames > 12)
    call = case.call(frames=case.frames)._replace(needs=(True, True, True))  # of x, weight and bias
    with use_backend("triton"):
        got = OPS[name](call)
    assert all(gradient.any() for gradient in got)
    for worst, allowed in errors(call, got):
        assert worst <= allowed


SMALL_GRADIENTS = ("odd stride", "prime", "more frames than a tile")


@pytest.mark.parametrize("needs", [(True, False, False), (False, True, False), (False, False, True)])
@pytest.mark.parametrize(
    "name", ["conv1d_backward", "upsample_backward", "strided_conv1d_backward", "smooth_snake_backward"]
)
def test_each_gradient_comes_alone(name: str, needs: tuple[bool, ...]) -> None:
    case = next(case for case in OPS[name].cases() if any(name in case.name for name in SMALL_GRADIENTS))
    call = case.call(frames=13 if "stride" in case.name else 31)._replace(needs=needs)
    with use_backend("triton"):
        got = OPS[name](call)
    for needed, one, (worst, allowed) in zip(needs, got, errors(call, got), strict=True):
        assert (one.numel() > 0) == needed and worst <= allowed


@pytest.mark.parametrize(("out", "stride"), [(1, 3), (4, 1)])
def test_upsampling_to_a_single_channel_or_by_one(out: int, stride: int) -> None:
    x, w = torch.randn(2, 6, 11), weight(6, out, 7)
    call = Upsample(x, w, None, stride, 2, 1, 0.1)
    with use_backend("triton"):
        got = OPS["upsample"](call)
    for worst, allowed in errors(call, got):
        assert worst <= allowed


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("batch", "frames", "groups"), [(7, 9, 1), (70, 4, 8), (3, 1, 16)])
def test_short_items_share_a_tile(batch: int, frames: int, groups: int, last: bool) -> None:
    x, w, bias = torch.randn(batch, 32, frames), weight(48, 32 // groups, 5), torch.randn(48)
    settings = 2, 2, 2, groups, 0.1
    forward = StridedConv1d(to_channels_last(x) if last else x, w, bias, *settings)
    y = torch.randn(batch, 48, (frames - 1) // 2 + 1)
    backward = StridedConv1dBackward(torch.randn_like(y), forward.x, w, y, *settings, (True, True, True))
    with use_backend("triton"):
        got = OPS["strided_conv1d"](forward), OPS["strided_conv1d_backward"](backward)
    for worst, allowed in [*errors(forward, got[0]), *errors(backward, got[1])]:
        assert worst <= allowed


def test_weights_that_are_kept_are_packed_once() -> None:
    packs: dict[Any, Tensor] = {}
    x, w = torch.randn(1, 3, 20), weight(5, 3, 3)
    with use_backend("triton"), keep(packs):
        before = conv1d(x, w)
        w.zero_()
        assert torch.equal(conv1d(x, w), before)
    assert len(packs) == 1


def test_what_is_kept_of_a_weight_is_never_taken_for_another_that_is_where_it_was() -> None:
    x, ws = torch.randn(1, 64, 40), [weight(64, 64, 3, seed=n) for n in range(6)]
    halves = ws[0][:32], ws[0][:32].transpose(0, 1)  # which begin at the same address
    with torch.inference_mode(), use_backend("triton"), torch.autocast("cpu", torch.bfloat16):
        expected = [conv1d(x, w) for w in ws]
        with keep({}):
            assert all(map(torch.equal, [conv1d(x, w) for w in ws], expected))
    with use_backend("triton"), keep({}):
        for w in (ws[0], *halves, ws[0].transpose(0, 1)):
            call = Conv1d(x[:, : w.shape[1]], w)
            for worst, allowed in errors(call, OPS["conv1d"](call)):
                assert worst <= allowed, w.shape


class Compiling:
    """An interpreted kernel that returns, as one for a GPU does, what it was compiled to, which takes plain values."""

    def __init__(self, kernel: Any, launched: list[str]) -> None:
        self.kernel, self.launched, self.arg_names = kernel, launched, kernel.arg_names

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        def specialise(**arguments: Any) -> Any:
            self.launched.append("specialised")
            self.kernel[grid](**arguments)
            options = {name: value for name, value in arguments.items() if name not in self.arg_names}
            return _Compiled(self, options)

        return specialise


class _Compiled:
    def __init__(self, kernel: Compiling, options: dict[str, Any]) -> None:
        self.kernel, self.options = kernel, options

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        def run(*values: Any) -> None:
            self.kernel.launched.append("ready")
            self.kernel.kernel[grid](*values, **self.options)

        return run


@pytest.mark.parametrize("name", ["conv1d", "upsample", "strided_conv1d"])
@pytest.mark.parametrize("backward", [False, True])
def test_a_launch_that_is_kept_computes_other_tensors(
    name: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvoc.ops.triton import gradients as sums
    from fastvoc.ops.triton import kernels

    launched: list[str] = []
    for module, kernel in ((kernels, "convolve"), (sums, "weight_gradient"), (sums, "add_splits")):
        monkeypatch.setattr(module, kernel, Compiling(getattr(module, kernel), launched))
    op = OPS[f"{name}_backward" if backward else name]
    cases = [case for case in op.cases() if not case.model and case.frames > 12]
    for case in cases:
        first, second = (case.call(frames=min(case.frames, 97), seed=seed) for seed in (1, 2))
        op.forget()  # the case before may have been of the same signature
        with use_backend("triton"):
            op(first)
            count = len(launched)
            with patch.object(op.kind, "check", lambda call: pytest.fail("it is checked again")):
                got = op(second)
        assert launched[count:] == ["ready"] * len(launched[count:]), case.name
        assert len(launched) > count or not any(one.numel() for one in (got if backward else [got]))
        for worst, allowed in errors(second, got):
            assert worst <= allowed, case.name


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Parameter(weight(6, 4, 3))
        self.up = torch.nn.Parameter(weight(6, 5, 4))
        self.units = torch.nn.ParameterList([weight(5, 5, 3, seed=n) for n in range(2)])
        self.biases = torch.nn.ParameterList([torch.randn(5) for _ in range(2)])
        self.head = torch.nn.Parameter(weight(1, 5, 7))

    def forward(self, mel: Tensor) -> Tensor:
        x = conv1d(mel, self.stem, padding=(1, 1))
        x = upsample(x, self.up, stride=2, crop=(1, 1), slope=0.1)
        x = residual(x, list(self.units), list(self.biases), [3, 1])
        return conv1d(x, self.head, padding=(3, 3), padding_mode="reflect", slope=0.01, tanh=True)


def gradients(run: Callable[[Tensor], Tensor], model: Network, mel: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(run(mel).float().square().sum(), [mel, *model.parameters()]))


@pytest.mark.parametrize("autocast", [None, torch.float16])
def test_trained_eagerly_and_compiled_whole(autocast: torch.dtype | None) -> None:
    model, mel = Network(), torch.randn(2, 4, 16, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    exact = gradients(model.double(), model, mel.detach().double().requires_grad_())
    model.float()
    with torch.autocast("cpu", dtype=autocast or torch.float16, enabled=autocast is not None):
        with use_backend("reference"):
            plain = gradients(model, model, mel)
        with use_backend("triton"):
            eager, traced = gradients(model, model, mel), gradients(compiled, model, mel)
    assert {last_backends()[name] for name in ("conv1d", "conv1d_backward", "upsample_backward")} == {"triton"}
    for one, other, reference, true in zip(eager, traced, plain, exact, strict=True):
        # The network is four layers deep, and compiled code may add gradients in another order.
        allowed = 2 * (reference - true).abs().max() + 4 * torch.finfo(autocast or torch.float32).eps * true.abs().max()
        assert (one - true).abs().max() <= allowed and (other - true).abs().max() <= allowed


@pytest.mark.parametrize(
    "name",
    [
        "conv1d",
        "conv1d_backward",
        "upsample",
        "upsample_backward",
        "residual",
        "strided_conv1d",
        "strided_conv1d_backward",
        "convnext",
        "gate",
        "gate_backward",
        "gated",
        "smooth_snake",
        "smooth_snake_backward",
    ],
)
def test_opcheck(name: str) -> None:
    case = [case for case in OPS[name].cases() if not case.model][2]
    op, args = OPS[name], tuple(case.call(frames=min(case.frames, 67)))
    if op.has_formula:
        args = tuple(value.requires_grad_() if isinstance(value, Tensor) else value for value in args)
    with use_backend("triton"):
        torch.library.opcheck(op.overload, args)


SMALL = {
    "hifigan": hifigan.HiFiGANConfig(
        mel_bands=8,
        channels=16,
        rates=(3,),
        rate_kernel_sizes=(7,),
        kernel_sizes=(3, 5),
        dilations=((1, 3), (1, 3)),
    ),
    "hifigan, block 2, causal": hifigan.HiFiGANConfig(
        mel_bands=8,
        channels=16,
        rates=(4, 2),
        rate_kernel_sizes=(8, 4),
        block="2",
        kernel_sizes=(3, 5),
        dilations=((1,), (2,)),
        causal=True,
    ),
    "bigvgan": bigvgan.BigVGANConfig(
        mel_bands=8,
        channels=8,
        rates=(3,),
        rate_kernel_sizes=(7,),
        block="2",
        kernel_sizes=(3, 5),
        dilations=((1,), (2,)),
    ),
    "melgan": melgan.MelGANConfig(mel_bands=8, channels=8, rates=(4,), rate_kernel_sizes=(8,), units=2),
}


@pytest.mark.parametrize("name", SMALL)
def test_whole_generators(name: str) -> None:
    torch.manual_seed(0)
    model, mel = SMALL[name].build().requires_grad_(False), torch.randn(1, 8, 9)
    with use_backend("triton"):
        got = model(to_channels_last(mel))
    with use_backend("reference"):
        plain, exact = model(mel), model.double()(mel.double())
    ulp = torch.finfo(torch.float32).eps * exact.abs().max()
    assert (got - exact).abs().max() <= 2 * (plain - exact).abs().max() + ulp


@pytest.mark.parametrize("name", SMALL)
def test_a_graph_gives_a_shorter_mel_the_samples_that_it_has_alone(name: str) -> None:
    def play(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        wave = run()
        return lambda: wave.copy_(run()), wave

    torch.manual_seed(0)
    model, mel = SMALL[name].build().requires_grad_(False), torch.randn(2, 8, 9)
    graphs = CudaGraphs(model, capture=play, unrecorded=0)
    graphs(torch.randn(2, 8, bucket_of(9)))  # leaves what must not be heard
    with use_backend("triton"):
        alone = model(mel)
    assert graphs.explain(2, 9) is None and torch.equal(graphs(mel), alone)


@pytest.mark.parametrize("last", [False, True])
def test_lanes_that_see_no_end_compute_the_same_as_those_that_do(last: bool) -> None:
    x, grad = torch.randn(1, 2, 97).half(), torch.randn(1, 2, 97).half()
    x = to_channels_last(x) if last else x
    alpha, beta = 0.3 * torch.randn(2).half(), 0.3 * torch.randn(2).half()
    forward, backward = SmoothSnake(x, alpha, beta), SmoothSnakeBackward(grad, x, alpha, beta, True, (True, True, True))
    with use_backend("triton"):
        expected = OPS["smooth_snake"](forward), OPS["smooth_snake_backward"](backward)[0]
        with patch.object(smooth_snake_triton, "_lanes", lambda block: {"BLOCK": 4, "STRETCHES": 2}):
            y, (grad_x, *others) = OPS["smooth_snake"](forward), OPS["smooth_snake_backward"](backward)
    assert torch.equal(y, expected[0]) and torch.equal(grad_x, expected[1])
    for worst, allowed in errors(backward, (grad_x, *others)):
        assert worst <= allowed

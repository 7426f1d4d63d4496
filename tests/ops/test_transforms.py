"""Whatever differentiates or maps PyTorch, forwards or backwards, sees the definition of an operator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ops import cases_of
from test_streaming import BANDS, GENERATORS, checkpoint
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from fastvoc import native
from fastvoc.models import hifigan
from fastvoc.ops import OPS, conv1d, last_backends, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.contract import results

EDGES = ["prime sizes", "reflected", "odd stride", "three groups", "causal", "two branches", "shortcut"]
SOME = [p for p in cases_of(*OPS, model=False) if any(edge in p.values[1].name for edge in EDGES)]

Function = Callable[..., Any]


def prepared(case: Case[Any], dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor], Function]:
    """Return the tensors of a call, a direction for each, and what makes the call of other tensors."""
    call = case.call(dtype=dtype, frames=min(case.frames, 31))
    tensors = [t for v in call for t in (v if isinstance(v, list) else [v]) if isinstance(t, Tensor)]
    generator = torch.Generator().manual_seed(1)
    tangents = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(dtype) for t in tensors]

    def call_of(*values: Tensor) -> Any:
        following = iter(values)

        def replaced(value: Any) -> Any:
            if isinstance(value, list):
                return [replaced(item) for item in value]
            return next(following) if isinstance(value, Tensor) else value

        return type(call)(*map(replaced, call))

    return tensors, tangents, call_of


def near(got: Any, exact: Any) -> None:
    """Sums of at most 31 * 40 products, whose order may differ."""
    for one, other in zip(results(got), results(exact), strict=True):
        largest = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=31 * 40 * torch.finfo(torch.float64).eps * largest)


def energy(made: Any) -> Tensor:
    """Sum the squares of all results."""
    return sum((result.square().sum() for result in results(made)), torch.zeros((), dtype=torch.float64))


@pytest.mark.parametrize(("op", "case"), SOME)
def test_forward_derivatives_are_those_of_the_definition(op: Any, case: Case) -> None:
    tensors, tangents, call_of = prepared(case)

    def through(function: Function) -> Function:
        return lambda *values: function(call_of(*values))

    exact = jvp(through(op.kind.reference), tuple(tensors), tuple(tangents))
    assert any(tangent.any() for tangent in results(exact[1]))
    got = jvp(through(op), tuple(tensors), tuple(tangents))
    near(got[1], exact[1])
    assert last_backends()[op.name] == "reference"
    with forward_ad.dual_level():
        made = results(through(op)(*map(forward_ad.make_dual, tensors, tangents)))
        pairs = [forward_ad.unpack_dual(result) for result in made]
        near(tuple(pair.primal for pair in pairs), exact[0])
        near(tuple(torch.zeros_like(p) if t is None else t for p, t in pairs), exact[1])


@pytest.mark.parametrize(("op", "case"), [p for p in SOME if "backward" not in p.values[0].name])
def test_second_derivatives_are_those_of_the_definition(op: Any, case: Case) -> None:
    tensors, tangents, call_of = prepared(case)

    def penalty(function: Function) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        first = torch.autograd.grad(energy(function(call_of(*leaves))), leaves, create_graph=True)
        total = sum((one * direction).sum() for one, direction in zip(first, tangents, strict=True))
        return list(torch.autograd.grad(total, leaves))  # type: ignore[arg-type]

    for got, exact in zip(penalty(op), penalty(op.kind.reference), strict=True):
        near(got, exact)


@pytest.mark.parametrize(("op", "case"), [p for p in SOME if "backward" in p.values[0].name])
def test_a_gradient_can_be_taken_in_a_direction(op: Any, case: Case) -> None:
    """Backward ops that run inside a forward level, of which their forward ops knew nothing."""
    forward = OPS[op.name.removesuffix("_backward")]
    name = case.name if case.name in {known.name for known in forward.cases()} else "prime sizes, uneven padding"
    case = next((known for known in forward.cases() if known.name == name), forward.cases()[-2])
    tensors, _, call_of = prepared(case)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    y = forward(call_of(*leaves))
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    exact = torch.autograd.grad(y, leaves, direction, retain_graph=True)
    with forward_ad.dual_level():
        given = torch.autograd.grad(y, leaves, forward_ad.make_dual(torch.ones_like(y), direction))
        for one, other in zip(given, exact, strict=True):
            near(forward_ad.unpack_dual(one).tangent, other)


@pytest.mark.parametrize(("op", "case"), [p for p in SOME if "backward" not in p.values[0].name])
def test_functions_of_tensors_are_transformed(op: Any, case: Case) -> None:
    tensors, _, call_of = prepared(case)

    def loss(function: Function) -> Function:
        return lambda x: energy(function(call_of(x, *tensors[1:])))

    x = tensors[0]
    exact = grad(loss(op.kind.reference))(x)
    near(grad(loss(op))(x), exact)
    near(jacrev(loss(op))(x), exact)
    near(jacfwd(loss(op))(x), exact)
    several = torch.stack([x, 2 * x, -x])
    near(vmap(grad(loss(op)))(several), torch.stack([grad(loss(op.kind.reference))(one) for one in several]))
    mapped = results(vmap(lambda x: op(call_of(x, *tensors[1:])))(several))
    near(tuple(result[1] for result in mapped), op(call_of(2 * x, *tensors[1:])))


def test_compiled_code_is_differentiated_forwards_too() -> None:
    x, weight = torch.randn(1, 3, 20, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    direction = torch.randn_like(x)

    def derivative(x: Tensor) -> Tensor:
        return jvp(lambda x: conv1d(x, weight, slope=0.1), (x,), (direction,))[1]

    near(torch.compile(derivative, backend="aot_eager", fullgraph=True)(x), derivative(x))


@pytest.mark.parametrize("name", list(OPS))
def test_a_registered_operator_says_that_it_has_no_forward_derivative(name: str) -> None:
    case = next(case for case in OPS[name].cases() if not case.model)
    tensors, tangents, call_of = prepared(case, torch.float32)
    with pytest.raises(NotImplementedError, match=f"the registered operator fastvoc::{name} has no forward-mode"):
        jvp(lambda *values: OPS[name].overload(*call_of(*values)), tuple(tensors), tuple(tangents))


GENERATOR = hifigan.HiFiGANConfig(
    mel_bands=4, channels=4, rates=(2,), rate_kernel_sizes=(4,), kernel_sizes=(3,), dilations=((1, 2),)
)


def test_forced_to_its_definition_a_network_is_plain_pytorch() -> None:
    torch.manual_seed(0)
    network, mel = GENERATOR.build().double(), torch.randn(1, 4, 9, dtype=torch.float64)
    weights = dict(network.named_parameters())
    with use_backend("reference"):
        wave = network(mel)
        kinds, waiting = set(), [wave.grad_fn]
        while waiting:
            if (node := waiting.pop()) is not None:
                kinds.add(node.name())
                waiting += [following for following, _ in node.next_functions]
        assert "ConvolutionBackward0" in kinds and not any("fastvoc" in kind for kind in kinds)
        grads = grad(lambda weights: functional_call(network, weights, (mel,)).square().sum())(weights)
        exact = torch.autograd.grad(wave.square().sum(), list(weights.values()))
    for one, other in zip(grads.values(), exact, strict=True):
        near(one, other)
    assert {last_backends()[name] for name in ("conv1d", "upsample", "residual")} == {"reference"}


def test_forced_to_its_definition_a_network_is_exported_without_operators_of_ours() -> None:
    network, mel = GENERATOR.build().requires_grad_(False).eval(), torch.randn(1, 4, 9)
    with use_backend("reference"):
        program = torch.export.export(network, (mel,), strict=False)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("aten.conv1d" in target for target in targets) and not any("fastvoc" in target for target in targets)
    torch.testing.assert_close(program.module()(mel), network(mel), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
def test_what_nobody_looks_into_runs_on_kernels() -> None:
    x, weight = torch.randn(1, 4, 40, requires_grad=True), torch.randn(4, 4, 3, requires_grad=True)
    y = conv1d(x, weight, slope=0.1)
    assert last_backends()["conv1d"] == "cpu" and "fastvoc" in y.grad_fn.name()  # type: ignore[union-attr]
    y.sum().backward()
    assert last_backends()["conv1d_backward"] == "cpu"


@pytest.mark.parametrize(("op", "case"), cases_of(*OPS, model=False))
def test_operations_are_counted_as_those_of_the_definition(op: Any, case: Case) -> None:
    call = case.call(frames=min(case.frames, 31))
    with FlopCounterMode(display=False) as exact, use_backend("reference"):
        call.reference()
    with FlopCounterMode(display=False) as counted:
        op(call)
    assert counted.get_total_flops() == exact.get_total_flops()  # of an empty batch, and of a bias alone, none


def test_a_step_of_a_network_counts_forward_and_backward() -> None:
    network, mel = GENERATOR.build(), torch.randn(1, 4, 9)
    with FlopCounterMode(display=False) as counted:
        network(mel).sum().backward()
    with FlopCounterMode(display=False) as exact, use_backend("reference"):
        network(mel).sum().backward()
    assert counted.get_total_flops() == exact.get_total_flops() > 0


@pytest.mark.slow
def test_operators_are_counted_whichever_is_imported_first() -> None:
    count = "with FlopCounterMode(display=False) as c: conv1d(x, w)\nprint(c.get_total_flops())"
    ours, theirs = "from fastvoc.ops import conv1d", "from torch.utils.flop_counter import FlopCounterMode"
    for first, second in ((ours, theirs), (theirs, ours)):
        lines = ["import sys, torch", first, second, "x, w = torch.ones(2, 3, 10), torch.ones(5, 3, 4)", count]
        made = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
        assert int(made.stdout) == 2 * 2 * 5 * 3 * 4 * 7
    lines = ["import sys", ours, "print('torch.utils.flop_counter' in sys.modules)"]
    made = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert made.stdout == "False\n"


@pytest.mark.slow
def test_what_is_exported_from_the_definition_loads_without_this_package(tmp_path: Path) -> None:
    network, mel = GENERATOR.build().requires_grad_(False).eval(), torch.randn(1, 4, 9)
    with use_backend("reference"):
        torch.export.save(torch.export.export(network, (mel,)), tmp_path / "network.pt2")
        torch.save((mel, network(mel)), tmp_path / "pair.pt")
    lines = [
        "import sys, torch",
        "sys.modules['fastvoc'] = None",  # whoever imports it fails
        "mel, wave = torch.load('pair.pt')",
        "print(float((torch.export.load('network.pt2').module()(mel) - wave).abs().max()))",
    ]
    made = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert float(made.stdout) < 1e-6


@pytest.mark.parametrize("name", GENERATORS)
def test_the_meta_device_gives_shapes(name: str) -> None:
    network = checkpoint(name).config.generator.build()
    given = [
        torch.zeros(2, BANDS, 40),
        *([torch.zeros(2, network.condition_channels)] * bool(network.condition_channels)),
    ]
    drawn = {}
    if network.draws is not None:
        drawn = {"noise": network.draws(torch.tensor([1, 2]), 0, 40).float(), "temperature": torch.ones(2)}
    expected = network(*given, **drawn)
    on_meta = {key: value.to("meta") for key, value in drawn.items()}
    made = network.to("meta")(*(value.to("meta") for value in given), **on_meta)
    assert made.is_meta and (made.shape, made.dtype) == (expected.shape, expected.dtype)

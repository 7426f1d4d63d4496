"""One contract for every op, backend, case and dtype: a kernel is as exact as plain PyTorch, or it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastvoc import native
from fastvoc.ops import OPS, backends, conv1d, explain, last_backends, residual, strided_conv1d, upsample, use_backend
from fastvoc.ops.availability import interpreted
from fastvoc.ops.case import Case
from fastvoc.ops.contract import MultiplyInTf32, errors, in_tf32, results, widen
from fastvoc.ops.layout import channels_last, to_channels_last
from fastvoc.ops.op import Slower

SHORT = 67  # a prime, longer than every halo of the cases and than a chunk of rows of the C++ kernel

DEVICES = {"cuda": "cpu" if native.hosted() else "cuda", "triton": "cpu" if interpreted() else "cuda"}
RUNS = ["reference", *(f"cpu {isa}" for isa in (native.isas() if backends()["cpu"] is None else {}))]
RUNS += [name for name in ("cuda", "triton") if backends()[name] is None]

DTYPES = [torch.float32, torch.bfloat16]
DTYPES += [torch.float16] if torch.cuda.is_available() or interpreted() or native.hosted() else []

needs_native = pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"]))


def frames_of(case: Case) -> int:
    return min(case.frames, SHORT)


def cases_of(*names: str, model: bool | None = None) -> list[Any]:
    return [
        pytest.param(OPS[name], case, id=f"{name}: {case.name}")
        for name in names
        for case in OPS[name].cases()
        if model in (None, case.model)
    ]


@contextmanager
def forced(run: str) -> Iterator[str]:
    backend, _, isa = run.partition(" ")
    with ExitStack() as stack:
        stack.enter_context(use_backend(backend))
        if isa:
            stack.enter_context(native.use_isa(isa))
        yield backend


@pytest.fixture
def poison() -> Iterator[None]:
    """Fill what torch allocates with NaN, so that an element that nobody writes cannot pass."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("op", "case"), cases_of(*OPS))
def test_every_backend_computes_the_definition(op: Any, case: Case, run: str, dtype: torch.dtype, poison: None) -> None:
    frames = frames_of(case)
    device = DEVICES.get(run, "cpu")
    call = case.call(dtype=dtype, device=device, frames=frames, sliced=True)
    with forced(run) as backend:
        reason = op.explain(call)[backend]
        # A forced backend without a kernel for a composed op goes to its parts; those of a gate are PyTorch's own.
        refusal = reason
        if op.name in ("gate", "gate_backward"):
            refusal = reason if backend in op.kernels else None
        elif op.composed:
            refusal = explain(conv1d, call.x, getattr(call, "weights", call[1:])[0])[backend]
        if refusal is not None and not isinstance(refusal, Slower):
            with pytest.raises(NotImplementedError, match="cannot run this call"):
                op(call)
            return
        got = op(call)
    for worst, allowed in errors(case.call(dtype=dtype, device=device, frames=frames), got, backend):
        assert worst <= allowed, f"off by {worst:.2e}; {allowed:.2e} is allowed"
    own = reason is None or isinstance(reason, Slower) or not op.composed
    assert last_backends()[op.name] == (backend if own else "reference")


@pytest.mark.parametrize(
    ("op", "case"),
    cases_of("conv1d", "conv1d_backward", "upsample", "upsample_backward", "strided_conv1d", model=False),
)
def test_in_tf32_the_definition_multiplies_rounded_operands_and_rounds_nothing_else(op: Any, case: Case) -> None:
    call = case.call(frames=frames_of(case))
    call = call if op.name == "strided_conv1d" else call._replace(slope=1.0)  # what is multiplied is then an argument
    with MultiplyInTf32():
        got = results(call.reference())
    multiplied = [name for name in ("x", "weight", "grad") if name in call._fields]
    rounded = call._replace(**{name: in_tf32(getattr(call, name)) for name in multiplied})
    expected = list(results(widen(rounded).reference()))
    if op.name.endswith("_backward") and expected[2].numel():
        expected[2] = call.grad.double().sum((0, 2))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.float32
        # what is left is the rounding of results: to float32 behind the sum, and behind residual and tanh
        torch.testing.assert_close(
            one.double(), other, rtol=2**-22, atol=2**-22 * float(other.abs().max() if other.numel() else 0)
        )


@pytest.mark.parametrize("inference", [False, True])
def test_in_tf32_the_parts_of_a_composed_operator_round_what_they_multiply_too(inference: bool) -> None:
    case = next(case for case in OPS["residual"].cases() if not case.model)
    call = case.call(frames=frames_of(case))
    with torch.inference_mode(inference), MultiplyInTf32():
        rounded = call.reference()
    exact = widen(call).reference()
    off = float((rounded - exact).abs().max() / exact.abs().max())
    assert 2**-15 < off < 2**-9  # operands have 11 bits, and float32 would be off by 2^-22 or so


@pytest.mark.parametrize(("op", "case"), cases_of("conv1d", "upsample", "residual", "gate", "gated"))
def test_the_result_has_the_memory_order_of_the_input(op: Any, case: Case) -> None:
    call = case.call(frames=frames_of(case))
    for x in (call.x.contiguous(), to_channels_last(call.x)):
        for got, expected in zip(results(op(call._replace(x=x))), results(op(call)), strict=True):
            assert channels_last(got) == channels_last(x) or not {0, 1}.isdisjoint(got.shape)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "case"), cases_of("strided_conv1d", model=False))
def test_strided_conv1d_makes_channels_last_of_any_memory_order(op: Any, case: Case) -> None:
    call = case.call(frames=frames_of(case))
    for x in (call.x.contiguous(), to_channels_last(call.x)):
        got = op(call._replace(x=x))
        assert got.transpose(1, 2).is_contiguous()
        torch.testing.assert_close(got, op(call), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "case"), cases_of("conv1d", "strided_conv1d", "gate"))
def test_the_formula_is_the_gradient_of_the_definition(op: Any, case: Case) -> None:
    def gradients(function: Callable[..., Tensor]) -> list[Tensor]:
        call = case.call(dtype=torch.float64, frames=min(case.frames, 61))
        tensors = [value.requires_grad_() for value in call if isinstance(value, Tensor)]
        y = function(call)
        return list(torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), tensors))

    for got, exact in zip(gradients(op), gradients(op.kind.reference), strict=True):
        # The same sums of at most 61 * 512 terms, in another order.
        torch.testing.assert_close(got, exact, rtol=0, atol=61 * 512 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize(
    ("op", "case"), cases_of("conv1d", "strided_conv1d", "upsample", "residual", "gate", "gated", model=False)
)
def test_gradients_match_finite_differences(op: Any, case: Case) -> None:
    call = case.call(dtype=torch.float64, frames=min(case.frames, 17))
    if op.name == "conv1d" and case.frames > 17:
        call = case.call(dtype=torch.float64, frames=31)
    tensors = [value for value in call if isinstance(value, Tensor)]
    for tensor in tensors:
        tensor.requires_grad_()

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        following = iter(values)
        made = results(op(op.kind(*[next(following) if isinstance(value, Tensor) else value for value in call])))
        return tuple(result for result in made if result.numel())

    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)


def test_the_gradient_at_zero_is_the_slope() -> None:
    x = torch.zeros(1, 1, 3, requires_grad=True)
    conv1d(x, torch.ones(1, 1, 1), slope=0.25).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[[0.25, 0.25, 0.25]]]


@pytest.mark.parametrize("name", list(OPS))
def test_opcheck(name: str) -> None:
    op = OPS[name]
    for case in [case for case in op.cases() if not case.model][2:5]:
        call = case.call(frames=frames_of(case))
        if op.has_formula:
            call = op.kind(*(value.requires_grad_() if isinstance(value, Tensor) else value for value in call))
        torch.library.opcheck(op.overload, tuple(call))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", ["conv1d_backward", "upsample_backward", "strided_conv1d_backward"])
def test_gradients_that_are_not_needed_share_nothing(name: str, run: str) -> None:
    case = [case for case in OPS[name].cases() if not case.model][2]
    call = case.call(frames=frames_of(case), device=DEVICES.get(run, "cpu"))
    *args, _ = call
    with forced(run) as backend:
        if OPS[name].explain(call)[backend] == f"{name} has no kernel for it":
            return
        for needed in range(-1, 3):
            needs = [place == needed for place in range(3)]
            torch.library.opcheck(OPS[name].overload, (*args, needs))
            assert [result.numel() > 0 for result in OPS[name].overload(*args, needs)] == needs


class Everything(nn.Module):
    """A stem, an upsampling, a residual unit and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Parameter(torch.randn(6, 4, 3) * 0.3)
        self.up = nn.Parameter(torch.randn(6, 5, 4) * 0.3)
        self.units = nn.ParameterList([torch.randn(5, 5, 3) * 0.3 for _ in range(2)])
        self.biases = nn.ParameterList([torch.randn(5) for _ in range(2)])
        self.head = nn.Parameter(torch.randn(1, 5, 7) * 0.3)

    def forward(self, mel: Tensor) -> Tensor:
        x = conv1d(mel, self.stem, padding=(1, 1))
        x = upsample(x, self.up, stride=2, crop=(1, 1), slope=0.1)
        x = residual(x, list(self.units), list(self.biases), [3, 1])
        return conv1d(x, self.head, padding=(3, 3), padding_mode="reflect", slope=0.01, tanh=True)


def test_compiled_whole_for_training_and_inference() -> None:
    model, mel = Everything(), torch.randn(2, 4, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    eager, traced = model(mel), compiled(mel)
    torch.testing.assert_close(traced, eager)
    expected = torch.autograd.grad(eager.square().sum(), list(model.parameters()))
    got = torch.autograd.grad(traced.square().sum(), list(model.parameters()))
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(mel), eager)


@needs_native
def test_a_backend_forced_at_run_time_reaches_compiled_code() -> None:
    weight, x = torch.randn(4, 3, 3), torch.randn(1, 3, 16)
    compiled = torch.compile(lambda x: conv1d(x, weight), fullgraph=True, backend="aot_eager")
    for backend in ("cpu", "reference", "cpu"):
        with use_backend(backend):
            compiled(x)
        assert last_backends()["conv1d"] == backend


def test_exported_as_ops_and_as_plain_torch() -> None:
    model, mel = Everything().requires_grad_(False), torch.randn(2, 4, 16)
    program = torch.export.export(model, (mel,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets == {f"fastvoc.{name}.default" for name in ("conv1d", "upsample", "residual")}
    torch.testing.assert_close(program.module()(mel), model(mel))


def test_autocast_gives_one_dtype_in_eager_and_compiled_code() -> None:
    model, mel = Everything(), torch.randn(2, 4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eager = model(mel)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(mel)
    assert eager.dtype == compiled.dtype == torch.bfloat16
    torch.testing.assert_close(compiled, eager)
    eager.float().sum().backward()
    assert model.stem.grad is not None and model.stem.grad.dtype == torch.float32


@needs_native
@pytest.mark.parametrize(
    ("op", "case"),
    cases_of(*(name for name in OPS if name != "residual"), model=True),
)
def test_threads_do_not_change_a_bit(op: Any, case: Case) -> None:
    call = case.call(frames=700 if case.flops(700) < 1e8 else SHORT)
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with use_backend("cpu"):
                runs.append(results(op(call)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for run in runs[1:] for one, other in zip(runs[0], run, strict=True))


@needs_native
def test_a_frame_does_not_depend_on_how_many_there_are() -> None:
    x, weight = torch.randn(1, 24, 400), torch.randn(40, 24, 7)
    with use_backend("cpu"):
        whole, part = conv1d(x, weight, dilation=3), conv1d(x[..., 100:200], weight, dilation=3)
    assert torch.equal(whole[..., 100:182], part)


@needs_native
@pytest.mark.parametrize("run", [run for run in RUNS if run.startswith("cpu")])
def test_not_a_number_reaches_all_that_it_touches_and_no_more(run: str) -> None:
    x, weight = torch.randn(1, 5, 40), torch.randn(21, 5, 3)
    x[0, 2, 20] = float("nan")
    with forced(run):
        for tanh in (False, True):
            y = conv1d(x, weight, padding=(1, 1), slope=0.1, tanh=tanh)
            assert y[..., 19:22].isnan().all()
            assert y[..., :19].isfinite().all() and y[..., 22:].isfinite().all()


@needs_native
def test_the_instruction_set_can_be_forced_from_outside() -> None:
    code = "from fastvoc import native as n; print([k for k, v in n.isas().items() if v == n.isa()][0])"
    environment = os.environ | {"FASTVOC_ISA": "portable"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "portable"
    with native.use_isa("mmx"), use_backend("cpu"), pytest.raises(ValueError, match="'mmx' cannot be used"):
        conv1d(torch.randn(1, 1, 16), torch.randn(1, 1, 1))


def test_explain_names_every_backend_and_why_not() -> None:
    table = explain(conv1d, torch.randn(1, 2, 16, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64))
    assert list(table) == ["cuda", "triton", "cpu", "reference"]
    assert table["reference"] is None and all(isinstance(table[name], str) for name in ("cuda", "triton", "cpu"))
    with pytest.raises(ValueError, match="'conv2d' is not an operator; known: conv1d"):
        explain("conv2d")


@needs_native
def test_a_refusal_is_measured_and_can_be_overruled() -> None:
    x, weight = torch.randn(1, 4, 3), torch.randn(4, 4, 3)
    reason = explain(conv1d, x, weight)["cpu"]
    assert reason is not None and "single frame" in reason
    conv1d(x, weight)
    assert last_backends()["conv1d"] == "reference"
    with use_backend("cpu"):
        conv1d(x, weight)
    assert last_backends()["conv1d"] == "cpu"


@needs_native
def test_a_forced_backend_that_cannot_raises_its_reason() -> None:
    with use_backend("cpu"), pytest.raises(NotImplementedError, match=r"conv1d: backend 'cpu' cannot run .*bfloat16"):
        conv1d(torch.ones(1, 1, 16, dtype=torch.bfloat16), torch.ones(1, 1, 1, dtype=torch.bfloat16))


def test_an_unknown_backend_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="'gpu' is not a backend; known: cuda, triton, cpu, reference"),
        use_backend("gpu"),
    ):
        pass


X = torch.ones(2, 3, 5)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: conv1d(X[0], X), ValueError, r"x has shape \(3, 5\); expected \(batch, channels, frames\)"),
        (lambda: conv1d(X, torch.ones(4, 2, 3)), ValueError, r"but x has 3 channels; expected \(C_out, 3, K\)"),
        (lambda: conv1d(X, torch.ones(4, 3, 7)), ValueError, "needs at least 7 for 7 taps at dilation 1"),
        (
            lambda: conv1d(X, torch.ones(4, 3, 1), padding_mode="circular"),
            ValueError,
            "known: zero, reflect, replicate",
        ),
        (lambda: conv1d(X, torch.ones(4, 3, 1), padding=(5, 0), padding_mode="reflect"), ValueError, "at least 6"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), padding=(-1, 0)), ValueError, "expected no negative number"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), dilation=0), ValueError, "dilation is 0; expected at least 1"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), torch.ones(3)), ValueError, r"bias has shape \(3,\); expected \(4,\)"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), residual=X), ValueError, r"residual has shape \(2, 3, 5\); expected"),
        (lambda: conv1d(X, torch.ones(4, 3, 1).double()), TypeError, "weight is torch.float64 but x is torch.float32"),
        (lambda: conv1d(X.int(), torch.ones(4, 3, 1)), TypeError, "x is torch.int32; expected a floating point dtype"),
        (lambda: strided_conv1d(X, torch.ones(4, 3, 2), groups=2), ValueError, "x has 3 channels in 2 groups"),
        (lambda: strided_conv1d(X, torch.ones(4, 1, 2), groups=3), ValueError, "expected a multiple of 3 groups"),
        (lambda: strided_conv1d(X, torch.ones(4, 3, 6)), ValueError, "x has 5 frames with padding; needs at least 6"),
        (lambda: strided_conv1d(X, torch.ones(4, 3, 1), stride=0), ValueError, "stride is 0; expected at least 1"),
        (
            lambda: strided_conv1d(X, torch.ones(4, 3, 1), slope=0.0),
            ValueError,
            "slope is 0.0; expected a positive number",
        ),
        (lambda: upsample(X, torch.ones(4, 3, 2), stride=2), ValueError, r"expected \(3, C_out, K\)"),
        (lambda: upsample(X, torch.ones(3, 4, 2), stride=0), ValueError, "stride is 0; expected at least 1"),
        (lambda: upsample(X, torch.ones(3, 4, 2), stride=1, crop=(3, 3)), ValueError, "one frame to be left"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), padding=1), ValueError, "padding is 1; expected two whole numbers"),
        (
            lambda: strided_conv1d(X, torch.ones(4, 3, 1), padding=(1,)),
            ValueError,
            r"padding is \(1,\); expected two whole numbers",
        ),
        (
            lambda: upsample(X, torch.ones(3, 4, 2), stride=1, crop=2),
            ValueError,
            "crop is 2; expected two whole numbers",
        ),
        (lambda: conv1d(X.numpy(), torch.ones(4, 3, 1)), TypeError, "x is a ndarray; expected a tensor"),
        (lambda: conv1d(X, torch.ones(4, 3, 1), [0.0] * 4), TypeError, "bias is a list; expected a tensor"),
        (
            lambda: upsample(torch.nested.nested_tensor([X[0]]), torch.ones(3, 4, 2), stride=1),
            TypeError,
            "x is a nested tensor; expected a dense one",
        ),
        (
            lambda: residual(X, [torch.ones(3, 3, 3), None], [torch.ones(3)] * 2, [1, 1]),
            TypeError,
            r"weights\[1\] is a",
        ),
        (lambda: residual(X, [torch.ones(3, 3, 3)], [torch.ones(3)], [1]), ValueError, "expected a multiple of"),
        (lambda: residual(X, [torch.ones(3, 3, 3)] * 2, [torch.ones(3)], [1, 1]), ValueError, "2 weights, 1 biases"),
    ],
)
def test_mistakes_are_one_sentence(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()

"""An operator that the package does not know: all that it needs is the record of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from test_ops import needs_native
from torch import Tensor

from fastvoc.ops import OPS, Op, conv1d, explain, last_backends, use_backend
from fastvoc.ops.op import Slower


class Wavy(NamedTuple):
    """x + sin²(αx) / α, with an α for each channel (Ziyin et al. 2020, arXiv:2006.08195)."""

    x: Tensor
    alpha: Tensor
    periods: int = 1

    def check(self) -> None:
        if self.alpha.shape != self.x.shape[1:2]:
            raise ValueError(f"wavy: alpha has shape {tuple(self.alpha.shape)}; expected {tuple(self.x.shape[1:2])}")

    def empty(self) -> Tensor:
        return torch.empty_like(self.x)

    def reference(self) -> Tensor:
        alpha = self.alpha[:, None] * self.periods
        return self.x + (alpha * self.x).sin().square() / alpha


class Scaled(NamedTuple):
    """x² times a gain, and the gradient as a formula."""

    x: Tensor
    gain: Tensor | None
    offset: Tensor | None = None

    def check(self) -> None:
        pass

    def empty(self) -> Tensor:
        return torch.empty_like(self.x)

    def reference(self) -> Tensor:
        y = self.x.square() if self.gain is None else self.x.square() * self.gain
        return y if self.offset is None else y + self.offset

    def saved(self, result: Tensor) -> tuple[Scaled, None]:
        return self._replace(offset=None), None

    def differentiate(self, result: None, grad: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
        gain = torch.ones(()) if self.gain is None else self.gain
        return 2 * self.x * gain * grad, (grad * self.x.square()).sum(), grad


def scaled_kernel(call: Scaled) -> Any:
    if call.gain is None:
        return "there is no gain"
    if call.x.shape[0] == 1:
        return Slower("a single item was measured to be slower", call.reference)
    return call.reference


@pytest.fixture(scope="module")
def wavy() -> Iterator[Op[Wavy]]:
    yield Op(Wavy)
    del OPS["wavy"]


@pytest.fixture(scope="module")
def scaled() -> Iterator[Op[Scaled]]:
    yield Op(Scaled, cpu=scaled_kernel)
    del OPS["scaled"]


def a_wavy(dtype: torch.dtype = torch.float32) -> Wavy:
    torch.manual_seed(0)
    return Wavy(torch.randn(2, 3, 7, dtype=dtype), torch.rand(3, dtype=dtype) + 0.5, 2)


def test_the_schema_is_that_of_the_record(wavy: Op[Wavy], scaled: Op[Scaled]) -> None:
    assert str(wavy.overload._schema) == "fastvoc::wavy(Tensor x, Tensor alpha, int periods) -> Tensor"
    assert str(scaled.overload._schema) == "fastvoc::scaled(Tensor x, Tensor? gain, Tensor? offset) -> Tensor"


SCHEMAS = {
    "conv1d": (
        "(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int dilation, int left, int right, "
        "str padding_mode, float slope, bool tanh) -> Tensor"
    ),
    "conv1d_backward": (
        "(Tensor grad, Tensor x, Tensor weight, int dilation, int left, int right, str padding_mode, "
        "float slope, bool[3] needs) -> (Tensor, Tensor, Tensor)"
    ),
    "upsample": "(Tensor x, Tensor weight, Tensor? bias, int stride, int left, int right, float slope) -> Tensor",
    "upsample_backward": (
        "(Tensor grad, Tensor x, Tensor weight, int stride, int left, int right, float slope, "
        "bool[3] needs) -> (Tensor, Tensor, Tensor)"
    ),
    "strided_conv1d": (
        "(Tensor x, Tensor weight, Tensor? bias, int stride, int left, int right, int groups, float slope) -> Tensor"
    ),
    "strided_conv1d_backward": (
        "(Tensor grad, Tensor x, Tensor weight, Tensor y, int stride, int left, int right, int groups, "
        "float slope, bool[3] needs) -> (Tensor, Tensor, Tensor)"
    ),
    "gated": (
        "(Tensor x, Tensor weight, Tensor? bias, Tensor? condition, Tensor out_weight, Tensor? out_bias, "
        "Tensor? skip, int skip_channels, int dilation, int left, int right, bool causal, bool sigmoid_first, "
        "float scale) -> (Tensor, Tensor)"
    ),
    "residual": (
        "(Tensor x, Tensor[] weights, Tensor[] biases, int[] dilations, int branches, int convs_per_unit, "
        "bool shortcut, float slope, str padding_mode, bool causal, bool activate_first) -> Tensor"
    ),
}
"""Exported programs name operators with their arguments, and stay valid as long as these do not change."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_of_exported_programs_are_kept(name: str) -> None:
    assert str(OPS[name].overload._schema) == f"fastvoc::{name}{SCHEMAS[name]}"


def test_pytorch_finds_nothing_wrong_with_it(wavy: Op[Wavy]) -> None:
    done = torch.library.opcheck(wavy.overload, tuple(a_wavy()))
    assert len(done) == 4 and set(done.values()) == {"SUCCESS"}


def test_it_computes_its_definition_and_is_differentiated_through_it(wavy: Op[Wavy]) -> None:
    call = a_wavy(torch.float64)
    assert torch.equal(wavy(call), call.reference()) and last_backends()["wavy"] == "reference"
    call.x.requires_grad_()
    call.alpha.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, alpha: wavy(Wavy(x, alpha, 2)), call[:2])
    assert torch.autograd.gradgradcheck(lambda x, alpha: wavy(Wavy(x, alpha, 2)), call[:2])


def test_it_is_one_node_for_compilers(wavy: Op[Wavy]) -> None:
    call = a_wavy()
    compiled = torch.compile(lambda x, alpha: wavy(Wavy(x, alpha, 2)), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*call[:2]), wavy(call))

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, alpha: Tensor) -> Any:
            return wavy(Wavy(x, alpha, 2))

    program = torch.export.export(Module(), call[:2])
    assert [str(n.target) for n in program.graph.nodes if n.op == "call_function"] == ["fastvoc.wavy.default"]
    assert torch.equal(program.module()(*call[:2]), wavy(call))


def test_it_follows_autocast(wavy: Op[Wavy]) -> None:
    call = a_wavy()
    with torch.autocast("cpu", torch.bfloat16):
        assert wavy(call).dtype == torch.bfloat16


def test_what_does_not_fit_is_one_sentence_everywhere(wavy: Op[Wavy]) -> None:
    call = a_wavy()._replace(alpha=torch.ones(2))
    sentence = r"wavy: alpha has shape \(2,\); expected \(3,\)"
    for backend in (None, "reference"):
        with use_backend(backend), pytest.raises(ValueError, match=sentence):
            wavy(call)
    for raw in (call, Wavy(call.x.to("meta"), call.alpha.to("meta"))):
        with pytest.raises(ValueError, match=sentence):
            wavy.overload(*raw)


def test_what_runs_it_is_explained(wavy: Op[Wavy]) -> None:
    for name in (wavy, "wavy"):
        table = explain(name, a_wavy())
        assert list(table) == ["cuda", "triton", "cpu", "reference"] and table["reference"] is None
        assert all(table[backend] is not None for backend in ("cuda", "triton", "cpu"))
    with use_backend("cpu"), pytest.raises(NotImplementedError, match="wavy: backend 'cpu' cannot run this call: "):
        wavy(a_wavy())


@needs_native
def test_a_kernel_prepares_a_call_or_says_why_not(scaled: Op[Scaled]) -> None:
    many, gain = torch.randn(2, 5), torch.tensor(3.0)
    reasons = {
        "runs": (Scaled(many, gain), None),
        "is slower": (Scaled(many[:1], gain), "a single item was measured to be slower"),
        "cannot": (Scaled(many, None), "there is no gain"),
    }
    for what, (call, reason) in reasons.items():
        assert explain(scaled, call)["cpu"] == reason
        assert torch.equal(scaled(call), call.reference())
        assert last_backends()["scaled"] == ("cpu" if what == "runs" else "reference")
        with use_backend("cpu"):
            if what == "cannot":
                with pytest.raises(NotImplementedError, match="cannot run this call: there is no gain"):
                    scaled(call)
            else:
                assert torch.equal(scaled(call), call.reference()) and last_backends()["scaled"] == "cpu"


def test_its_formula_is_its_gradient_and_keeps_what_it_says(scaled: Op[Scaled]) -> None:
    x, gain, offset = (torch.randn(2, 5, requires_grad=True, dtype=torch.float64) for _ in range(3))
    gain = gain[0, 0].detach().requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = scaled(Scaled(x, gain, offset))
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), gain.data_ptr()}
    got = torch.autograd.grad(y.sin().sum(), (x, gain, offset))
    exact = torch.autograd.grad(Scaled(x, gain, offset).reference().sin().sum(), (x, gain, offset))
    torch.testing.assert_close(got, exact)
    scaled(Scaled(x, None, offset.detach())).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    assert offset.grad is None and gain.grad is None


class Misshapen(NamedTuple):
    x: Tensor
    table: dict[str, int]

    def check(self) -> None:
        pass

    def empty(self) -> Tensor:
        return self.x

    def reference(self) -> Tensor:
        return self.x


class Numbered(NamedTuple):
    number: int

    check, empty, reference = Misshapen.check, Misshapen.empty, Misshapen.reference  # type: ignore[misc]


class Behind(NamedTuple):
    x: Tensor
    number: int
    other: Tensor

    check, empty, reference = Misshapen.check, Misshapen.empty, Misshapen.reference  # type: ignore[misc]
    differentiate = Scaled.differentiate  # type: ignore[misc]


class Listed(NamedTuple):
    x: Tensor
    others: list[Tensor]

    check, empty, reference = Misshapen.check, Misshapen.empty, Misshapen.reference  # type: ignore[misc]
    differentiate = Scaled.differentiate  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Misshapen, r"field table of Misshapen is a dict\[str, int\]; expected Tensor, Tensor \| None, list"),
        (Numbered, r"field number of Numbered is a int; expected Tensor$"),
        (Listed, r"field others of Listed is a list\[Tensor\], which a formula cannot save there; expected tensors"),
        (Behind, r"field other of Behind is a Tensor, which a formula cannot save there; expected tensors"),
    ],
)
def test_a_record_that_can_be_no_operator_is_refused(kind: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        Op(kind)
    assert kind.__name__.lower() not in OPS


def test_a_kernel_is_of_a_backend() -> None:
    with pytest.raises(ValueError, match="'gpu' is no backend that can have a kernel; known: cuda, triton, cpu"):
        Op(Wavy, gpu=lambda call: "never")


def test_a_name_is_taken_once(wavy: Op[Wavy]) -> None:
    with pytest.raises(ValueError, match="there is an operator 'wavy' already"):
        Op(Wavy)


def test_a_function_that_reaches_no_operator_cannot_be_explained(
    wavy: Op[Wavy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wavy, "function", lambda: None)
    with pytest.raises(RuntimeError, match="wavy was not called by its public function"):
        explain("wavy")


def test_a_public_function_is_explained_by_its_name_too() -> None:
    args = torch.ones(1, 1, 9), torch.ones(1, 1, 3)
    assert explain("conv1d", *args) == explain(conv1d, *args) == explain(OPS["conv1d"], OPS["conv1d"].kind(*args))

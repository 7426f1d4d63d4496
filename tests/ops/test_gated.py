"""The gated layer, against its formula written out sample by sample, and against parts of a longer signal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.ops import OPS, gated, last_backends, use_backend
from fastvoc.ops.case import Case
from fastvoc.ops.gated.call import Gated
from fastvoc.ops.layout import to_channels_last

CHANNELS, GATES, SKIPS, TAPS = 3, 2, 4, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arguments(frames: int = 11, *, last: bool = False) -> dict[str, Tensor]:
    rows = SKIPS if last else CHANNELS + SKIPS
    return {
        "x": draw(2, CHANNELS, frames),
        "weight": draw(2 * GATES, CHANNELS, TAPS, seed=1),
        "bias": draw(2 * GATES, seed=2),
        "condition": draw(2, 2 * GATES, frames, seed=3),
        "out_weight": draw(rows, GATES, 1, seed=4),
        "out_bias": draw(rows, seed=5),
        "skip": draw(2, SKIPS, frames, seed=6),
    }


def by_hand(
    given: dict[str, Tensor], dilation: int, *, causal: bool, sigmoid_first: bool, scale: float
) -> tuple[list[float], list[float]]:
    """One frame of the second item of the batch, number by number."""
    frame, item = 6, 1
    values = {name: value.tolist() for name, value in given.items()}
    x = values["x"][item]
    activations = []
    for row in range(2 * GATES):
        total = values["bias"][row] + values["condition"][item][row][frame]
        for tap in range(TAPS):
            place = frame + (tap - (TAPS - 1 if causal else TAPS // 2)) * dilation
            if 0 <= place < len(x[0]):
                total += sum(values["weight"][row][c][tap] * x[c][place] for c in range(CHANNELS))
        activations.append(total)

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    first, second = (sigmoid, math.tanh) if sigmoid_first else (math.tanh, sigmoid)
    gate = [first(activations[g]) * second(activations[GATES + g]) for g in range(GATES)]
    out = [
        bias + sum(weight[g][0] * gate[g] for g in range(GATES))
        for weight, bias in zip(values["out_weight"], values["out_bias"], strict=True)
    ]
    residual, skip = out[:-SKIPS], out[-SKIPS:]
    return (
        [scale * (x[c][frame] + value) for c, value in enumerate(residual)],
        [values["skip"][item][k][frame] + value for k, value in enumerate(skip)],
    )


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"causal": False, "sigmoid_first": False, "scale": 1.0},  # WaveGlow
        {"causal": True, "sigmoid_first": False, "scale": math.sqrt(0.5)},  # WaveNet of r9y9
        {"causal": True, "sigmoid_first": True, "scale": 1.0},  # NSynth
    ],
)
def test_it_is_its_formula(settings: dict[str, Any], dilation: int, last: bool) -> None:
    given = arguments(last=last)
    residual, skip = gated(**given, skip_channels=SKIPS, dilation=dilation, **settings)
    wanted = by_hand(given, dilation, **settings)
    for made, numbers in zip((residual, skip), wanted, strict=True):
        torch.testing.assert_close(made[1, :, 6].tolist(), numbers, rtol=1e-12, atol=1e-12)
    assert residual.shape == (2, 0 if last else CHANNELS, 11) and last_backends()["gated"] == "reference"


@pytest.mark.parametrize("causal", [False, True])
def test_a_part_of_a_signal_with_its_surroundings_is_a_part_of_the_result(causal: bool) -> None:
    given, span = arguments(40), (TAPS - 1) * 3
    whole = gated(**given, skip_channels=SKIPS, dilation=3, causal=causal)
    before = span if causal else span // 2
    part = {name: value[..., 10:20] if name in ("condition", "skip") else value for name, value in given.items()}
    part["x"] = given["x"][..., 10 - before : 20 + span - before]
    made = gated(**part, skip_channels=SKIPS, dilation=3, causal=causal, padding=(0, 0))
    for one, other in zip(made, whole, strict=True):
        torch.testing.assert_close(one, other[..., 10:20], rtol=1e-12, atol=1e-12)
    start = {name: value[..., :20] if name in ("condition", "skip") else value for name, value in given.items()}
    start["x"] = given["x"][..., : 20 + span - before]
    for one, other in zip(
        gated(**start, skip_channels=SKIPS, dilation=3, causal=causal, padding=(before, 0)), whole, strict=True
    ):
        torch.testing.assert_close(one, other[..., :20], rtol=1e-12, atol=1e-12)


def test_a_causal_layer_sees_no_later_frame() -> None:
    given = arguments(20)
    changed = given | {"x": given["x"].clone()}
    changed["x"][..., 12] += 1
    for causal, first in ((True, 12), (False, 8)):
        made, other = (gated(**one, skip_channels=SKIPS, dilation=4, causal=causal)[1] for one in (given, changed))
        differs = (made != other).any(dim=(0, 1)).nonzero()
        assert int(differs.min()) == first


LAYERS = [pytest.param(case, id=case.name) for case in OPS["gated"].cases() if case.call(frames=67).x.numel()]


def gradients(case: Case[Gated], dtype: torch.dtype, backend: str | None = None) -> list[Tensor]:
    call = case.call(dtype=dtype, frames=min(case.frames, 67))
    tensors = [value.requires_grad_() for value in call if isinstance(value, Tensor)]
    with use_backend(backend):
        made = [result for result in OPS["gated"](call) if result.numel()]
    grads = [torch.linspace(-1, 1, result.numel(), dtype=dtype).view_as(result) for result in made]
    return list(torch.autograd.grad(made, tensors, grads))


@pytest.mark.parametrize("case", LAYERS)
def test_gradients_of_a_layer_are_as_exact_as_plain_pytorch(case: Case[Gated]) -> None:
    exact = gradients(case, torch.float64, "reference")
    for got, plain, true in zip(
        gradients(case, torch.float32), gradients(case, torch.float32, "reference"), exact, strict=True
    ):
        ulp = torch.finfo(torch.float32).eps * true.abs().max()
        assert (got - true).abs().max() <= 2 * (plain - true).abs().max() + ulp


def test_second_derivatives_are_those_of_the_definition() -> None:
    given = [value.requires_grad_() for value in arguments(5).values()]

    def layer(*values: Tensor) -> tuple[Tensor, Tensor]:
        return gated(**dict(zip(arguments(), values, strict=True)), skip_channels=SKIPS, dilation=2)

    assert torch.autograd.gradgradcheck(layer, given, fast_mode=True)


@pytest.mark.parametrize("last", [False, True])
def test_training_keeps_the_input_of_each_convolution_and_of_the_gate(last: bool) -> None:
    x, weight, out = torch.randn(2, 6, 40), torch.randn(10, 6, 3), torch.randn(9, 5, 1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.shape[-1] == 40:
            kept[tensor.data_ptr()] = tensor.shape[1]
        return tensor

    x = to_channels_last(x) if last else x
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = gated(x.requires_grad_(), weight.requires_grad_(), out.requires_grad_(), skip_channels=3)
    torch.autograd.grad(sum(result.sum() for result in made), [x, weight, out])
    assert sorted(kept.values()) == [5, 6, 10]


X = torch.ones(2, 3, 9)
W, V = torch.ones(4, 3, 3), torch.ones(5, 2, 1)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: gated(X[0], W, V, skip_channels=2), ValueError, r"x has shape \(3, 9\); expected \(batch, channels"),
        (lambda: gated(X, W[:3], V, skip_channels=2), ValueError, r"x has 3 channels; expected \(2 G, 3, K\)"),
        (lambda: gated(X, W[:, :2], V, skip_channels=2), ValueError, "x has 3 channels; expected"),
        (
            lambda: gated(X, W, V[:, :1], skip_channels=2),
            ValueError,
            r"out_weight has shape .* expected \(channels, 2, 1",
        ),
        (lambda: gated(X, W, V, skip_channels=4), ValueError, "5 rows and skip_channels is 4; the others must be 3"),
        (lambda: gated(X, W, V, skip_channels=-1), ValueError, "skip_channels is -1"),
        (lambda: gated(X, W, V, skip_channels=2, dilation=0), ValueError, "dilation is 0; expected at least 1"),
        (lambda: gated(X, W, V, skip_channels=2, padding=(2, 1)), ValueError, r"padding is \(2, 1\); expected at most"),
        (lambda: gated(X, W, V, skip_channels=2, padding=(0, -1)), ValueError, "expected no negative number"),
        (lambda: gated(X, W, V, skip_channels=2, dilation=9, padding=(0, 0)), ValueError, "needs at least 19 for 3"),
        (lambda: gated(X, W, V, skip_channels=2, scale=math.inf), ValueError, "scale is inf; expected a finite"),
        (lambda: gated(X, W, V, skip_channels=2, bias=torch.ones(3)), ValueError, r"bias has shape \(3,\)"),
        (lambda: gated(X, W, V, skip_channels=2, out_bias=torch.ones(4)), ValueError, r"expected \(5,\), one number"),
        (lambda: gated(X, W, V, skip_channels=2, condition=X), ValueError, r"condition .* expected \(2, 4, 9\)"),
        (lambda: gated(X, W, V, skip_channels=2, skip=X), ValueError, r"skip has shape .* expected \(2, 2, 9\)"),
        (lambda: gated(X, W, V.double(), skip_channels=2), TypeError, "out_weight is torch.float64 but x is"),
        (lambda: gated(X, W, V, skip_channels=2, condition=[1.0]), TypeError, "condition is a list; expected a tensor"),
    ],
)
def test_mistakes_are_one_sentence(call: Callable[[], Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"gated: .*{sentence}"):
        call()

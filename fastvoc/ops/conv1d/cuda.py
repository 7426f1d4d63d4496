"""`conv1d` and its gradient on a GPU: a network of one layer."""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops._cuda import gradients, operator
from fastvoc.ops._network import INPUT, NOTHING, OTHER_INPUT, Layer


def refuses(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    return operator.refuses(x, _layers(weight, bias, residual, dilation, left, right, padding_mode, slope, tanh))


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> Tensor:
    """Run the kernels."""
    layers = _layers(weight, bias, residual, dilation, left, right, padding_mode, slope, tanh)
    return operator.run(layers, x, residual)


def refuses_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    (layer,) = _layers(weight, None, None, dilation, left, right, padding_mode, slope, False)
    return gradients.refuses(grad, x, layer, needs)


def conv1d_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels."""
    (layer,) = _layers(weight, None, None, dilation, left, right, padding_mode, slope, False)
    return gradients.gradients(grad, x, layer, needs)


def _layers(
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    dilation: int,
    left: int,
    right: int,
    padding_mode: str,
    slope: float,
    tanh: bool,
) -> list[Layer]:
    return [
        Layer(
            kind="conv1d",
            input=INPUT,
            weight=weight,
            bias=bias,
            padding=(left, right),
            padding_mode=padding_mode,
            dilation=dilation,
            slope=slope,
            residual=NOTHING if residual is None else OTHER_INPUT,
            tanh=tanh,
        )
    ]

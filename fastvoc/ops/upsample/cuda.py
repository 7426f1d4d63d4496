"""`upsample` and its gradient on a GPU: a network of one layer."""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops._cuda import gradients, operator
from fastvoc.ops._network import INPUT, Layer


def refuses(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    return operator.refuses(x, _layers(weight, bias, stride, left, right, slope))


def upsample(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float
) -> Tensor:
    """Run the kernels."""
    return operator.run(_layers(weight, bias, stride, left, right, slope), x)


def refuses_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> str | None:
    """Return why the kernels cannot run this call, or None."""
    (layer,) = _layers(weight, None, stride, left, right, slope)
    return gradients.refuses(grad, x, layer, needs)


def upsample_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernels."""
    (layer,) = _layers(weight, None, stride, left, right, slope)
    return gradients.gradients(grad, x, layer, needs)


def _layers(weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float) -> list[Layer]:
    layer = Layer(
        kind="upsample", input=INPUT, weight=weight, bias=bias, padding=(left, right), stride=stride, slope=slope
    )
    return [layer]

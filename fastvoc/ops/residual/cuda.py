"""`residual` on a GPU: a network with a layer for each convolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastvoc.ops._cuda import operator
from fastvoc.ops._network import INPUT, Layer
from fastvoc.ops.residual.layers import add_residual


def refuses(x: Tensor, *settings: Any) -> str | None:
    """Return why the kernels cannot run this call, or None; `settings` are the other arguments of the schema."""
    return operator.refuses(x, _layers(*settings))


def residual(x: Tensor, *settings: Any) -> Tensor:
    """Run the kernels; `settings` are the other arguments of the schema."""
    return operator.run(_layers(*settings), x)


def _layers(*settings: Any) -> list[Layer]:
    layers: list[Layer] = []
    add_residual(layers, INPUT, *settings)
    return layers

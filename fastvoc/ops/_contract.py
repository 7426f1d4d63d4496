"""What every kernel owes its op: to be as exact as plain PyTorch in the same dtype.

The tolerance is derived, never chosen (the idea is that of flash-attention's tests, arXiv:2205.14135):
``|kernel - exact| <= 2 |plain PyTorch in the same dtype - exact| + 1 ulp of the largest value``, exact in float64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc.ops._op import Op


def results(value: Any) -> tuple[Tensor, ...]:
    """Return the results of an op as a tuple, even if there is one."""
    return value if isinstance(value, tuple) else (value,)


def errors(op: Op, args: tuple[Any, ...], got: Any) -> list[tuple[float, float]]:
    """Return, for each result of an op, its largest error and the largest that is allowed.

    Parameters
    ----------
    op : Op
        The operator.
    args : tuple
        Its arguments.
    got : Tensor or tuple of Tensor
        What a kernel made of them.
    """
    plain, exact = results(op.reference(*args)), results(op.reference(*map(_widen, args)))
    return [_errors(*three) for three in zip(results(got), plain, exact, strict=True)]


def _errors(got: Tensor, plain: Tensor, exact: Tensor) -> tuple[float, float]:
    if got.shape != plain.shape or got.dtype != plain.dtype:
        return float("inf"), 0.0
    if got.numel() == 0:
        return 0.0, 0.0
    ulp = torch.finfo(got.dtype).eps * exact.abs().max()
    allowed = 2 * (plain.double() - exact).abs().max() + ulp
    return float((got.double() - exact).abs().max()), float(allowed)


def _widen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double()
    return [_widen(item) for item in value] if isinstance(value, list) else value

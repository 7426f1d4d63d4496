"""What every kernel owes its op: to be as exact as plain PyTorch in the same dtype.

The tolerance is derived, never chosen (the idea is that of flash-attention's tests, arXiv:2205.14135):
``|kernel - exact| <= 2 |plain PyTorch in the same dtype - exact| + 1 ulp of the largest value``, exact in float64.

A kernel that multiplies float32 in TF32 is held against plain PyTorch on operands that are rounded to TF32. What cuDNN
makes of float32 says nothing there: it takes TF32 for some shapes only, as it likes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastvoc.ops.availability import interpreted, tf32_allowed
from fastvoc.ops.op import OPS, Op

TF32_ULP = 2.0**-10


def results(value: Any) -> tuple[Tensor, ...]:
    """Return the results of an op as a tuple, even if there is one."""
    return value if isinstance(value, tuple) else (value,)


def backend_of(op: Op[Any]) -> str | None:
    """Return the backend of the latest call of an op: of its convolutions, where it has no kernel there itself."""
    return OPS["conv1d"].last if op.composed and op.last == "reference" else op.last


def in_tf32(x: Tensor) -> Tensor:
    """Round float32 to the 10 bits that TF32 has behind the point, to the nearest even one."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class MultiplyInTf32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make convolutions of float32 multiply operands in TF32 and sum in float64, on any device, inside a `with` block.

    Operators run as they are defined, whatever backend is asked for.
    Biases, and the sums that are their gradients, are not multiplied, and so not rounded.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator of PyTorch."""
        kwargs = kwargs or {}
        if func is torch.ops.aten.convolution.default:
            x, weight, bias, *others = args
            bias = None if bias is None else bias.double()
            return func(in_tf32(x).double(), in_tf32(weight).double(), bias, *others).float()
        if func is torch.ops.aten.convolution_backward.default:
            grad, x, weight, *others, wanted = args
            rounded = [in_tf32(tensor).double() for tensor in (grad, x, weight)]
            made = func(*rounded, *others, [*wanted[:2], False])
            bias = grad.double().sum((0, 2)).float() if wanted[2] else None
            return (*(None if one is None else one.float() for one in made[:2]), bias)
        with self:  # since no mode is on inside an operator
            if func in (torch.ops.aten.conv1d.default, torch.ops.aten.conv_transpose1d.default):
                return func.decompose(*args, **kwargs)  # in inference mode nothing has done so yet
            if func.namespace == "fastvoc":
                return OPS[func._schema.name.partition("::")[2]].kind(*args, **kwargs).reference()
        return func(*args, **kwargs)


def errors(call: Any, got: Any, backend: str | None = None) -> list[tuple[float, float]]:
    """Return, for each result of a call, its largest error and the largest that is allowed.

    Parameters
    ----------
    call : Call
        The record of any operator.
    got : Tensor or tuple of Tensor
        What a kernel made of it.
    backend : str, optional
        Of the kernel; those of GPUs multiply float32 in TF32, where torch allows that.
    """
    exact = results(widen(call).reference())
    dtype = call[0].dtype
    if dtype == torch.float32 and _multiplies_in_tf32(backend):
        with MultiplyInTf32():  # type: ignore[no-untyped-call]
            plain = results(call.reference())
        return [_errors(*three, TF32_ULP) for three in zip(results(got), plain, exact, strict=True)]
    plain = results(call.reference())
    return [_errors(*three, torch.finfo(dtype).eps) for three in zip(results(got), plain, exact, strict=True)]


def _multiplies_in_tf32(backend: str | None) -> bool:
    return tf32_allowed() and (backend == "cuda" or (backend == "triton" and not interpreted()))


def _errors(got: Tensor, plain: Tensor, exact: Tensor, eps: float) -> tuple[float, float]:
    if got.shape != plain.shape or got.dtype != plain.dtype:
        return float("inf"), 0.0
    if got.numel() == 0:
        return 0.0, 0.0
    ulp = eps * exact.abs().max()
    allowed = 2 * (plain.double() - exact).abs().max() + ulp
    return float((got.double() - exact).abs().max()), float(allowed)


def widen(call: Any) -> Any:
    """Return a call whose tensors are in float64."""
    return type(call)(*map(_widened, call))


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double()
    return [_widened(item) for item in value] if isinstance(value, list) else value

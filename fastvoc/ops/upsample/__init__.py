"""`upsample`: activation, transposed convolution, crop and bias as one operator.

Kong et al. 2020, arXiv:2010.05646, §2.2; Kumar et al. 2019, arXiv:1910.06711, §2.1.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastvoc.ops import _check
from fastvoc.ops._layout import empty_like_layout
from fastvoc.ops._op import Op
from fastvoc.ops.upsample import cases, cpu, cuda, reference, triton


def upsample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int,
    crop: tuple[int, int] = (0, 0),
    slope: float = 1.0,
) -> Tensor:
    """Leaky ReLU, transposed convolution, crop, add bias.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory; the result has the same memory order.
    weight : Tensor, shape (C, C_out, K)
        The kernel, input channels first, as in `torch.nn.functional.conv_transpose1d`.
    bias : Tensor, shape (C_out,), optional
        Added after the convolution.
    stride : int
        Output frames per input frame.
    crop : (int, int)
        Frames cut off at the start and at the end of the full transposed convolution.
    slope : float
        Of the leaky ReLU for negative values; 1 is no activation.

    Returns
    -------
    Tensor, shape (B, C_out, T_out), T_out = (T - 1) * stride + K - sum(crop)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        If shapes do not fit, or the crop leaves nothing.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Examples
    --------
    >>> import torch
    >>> upsample(torch.ones(1, 1, 3), torch.ones(1, 1, 4), stride=2, crop=(1, 1))[0, 0].tolist()
    [1.0, 2.0, 2.0, 2.0, 2.0, 1.0]
    """
    return _upsample(*_arguments(x, weight, bias, stride=stride, crop=crop, slope=slope))  # type: ignore[no-any-return]


def _arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int,
    crop: tuple[int, int] = (0, 0),
    slope: float = 1.0,
) -> tuple[Any, ...]:
    left, right = crop
    _check.activation("upsample", "x", x)
    _check.alike("upsample", x, weight=weight, bias=bias)
    channels, frames = x.shape[1:]
    if weight.dim() != 3 or weight.shape[0] != channels:
        raise ValueError(
            f"upsample: weight has shape {tuple(weight.shape)} but x has {channels} channels; "
            f"expected ({channels}, C_out, K)"
        )
    if stride < 1:
        raise ValueError(f"upsample: stride is {stride}; expected at least 1")
    if left < 0 or right < 0:
        raise ValueError(f"upsample: crop is {(left, right)}; expected no negative number of frames")
    full = (frames - 1) * stride + weight.shape[2]
    if frames < 1 or full <= left + right:
        raise ValueError(
            f"upsample: x has {frames} frames, which become {max(full, 0)} before the crop of {(left, right)}; "
            "expected at least one frame to be left"
        )
    _check.shape("upsample", "bias", bias, (weight.shape[1],), "one number per output channel")
    return x, weight, bias, stride, left, right, float(slope)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, slope: float) -> Tensor:
    return empty_like_layout(x, weight.shape[1], (x.shape[2] - 1) * stride + weight.shape[2] - left - right)


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, left: int, right: int, slope: float, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else x.new_empty(0),
        x.new_empty(tuple(weight.shape)) if needs[1] else x.new_empty(0),
        x.new_empty(weight.shape[1]) if needs[2] else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *settings = inputs
    ctx.save_for_backward(x, weight)
    ctx.settings = settings


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:3])
    grads = _upsample_backward(grad, *ctx.saved_tensors, *ctx.settings, needs)
    return (*(value if needed else None for value, needed in zip(grads, needs, strict=True)), *[None] * 4)


_upsample_backward = Op(
    "upsample_backward(Tensor grad, Tensor x, Tensor weight, int stride, int left, int right, float slope, "
    "bool[3] needs) -> (Tensor, Tensor, Tensor)",
    reference.upsample_backward,
    fake=_fake_backward,
    cases=cases.backward,
)
_upsample = Op(
    "upsample(Tensor x, Tensor weight, Tensor? bias, int stride, int left, int right, float slope) -> Tensor",
    reference.upsample,
    fake=_fake,
    gradient=(_differentiate, _save),
    arguments=_arguments,
    cases=cases.forward,
)
_upsample.kernel("cuda", cuda.upsample, refuses=cuda.refuses)
_upsample.kernel("triton", triton.upsample, refuses=triton.refuses)
_upsample.kernel("cpu", cpu.upsample, refuses=cpu.refuses)
_upsample_backward.kernel("cuda", cuda.upsample_backward, refuses=cuda.refuses_backward)
_upsample_backward.kernel("triton", triton.upsample_backward, refuses=triton.refuses_backward)
_upsample_backward.kernel("cpu", cpu.upsample_backward, refuses=cpu.refuses_backward)

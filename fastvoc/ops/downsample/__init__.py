"""`downsample`: padding, strided convolution in groups, bias and activation as one operator.

What discriminators are made of. Kumar et al. 2019, arXiv:1910.06711, §2.2; Kong et al. 2020, arXiv:2010.05646, §2.3,
whose period discriminator is one along time for every column of the folded wave.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fastvoc.ops import _check
from fastvoc.ops._layout import empty_channels_last, empty_like_layout
from fastvoc.ops._op import Op
from fastvoc.ops.downsample import cases, cpu, reference, triton


def downsample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    slope: float = 1.0,
) -> Tensor:
    """Pad with zeros, convolve with a stride, add bias, leaky ReLU.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory, which is faster.
    weight : Tensor, shape (C_out, C / groups, K)
        The kernel, not flipped, as in `torch.nn.functional.conv1d`.
    bias : Tensor, shape (C_out,), optional
        Added after the convolution.
    stride : int
        Input frames per output frame.
    padding : (int, int)
        Zeros before the first frame and behind the last one.
    groups : int
        Equal parts of the channels that do not meet; it divides C and C_out.
    slope : float
        Of the leaky ReLU at the end for negative values, positive; 1 is no activation.

    Returns
    -------
    Tensor, shape (B, C_out, T_out), T_out = (T + sum(padding) - K) // stride + 1
        In the dtype of `x`, channels-last in memory whatever `x` is: a wave, with its single channel, is both.

    Raises
    ------
    ValueError
        If shapes do not fit, or the padded input is shorter than the kernel.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Examples
    --------
    >>> import torch
    >>> downsample(torch.arange(6.0).view(1, 1, 6), torch.ones(1, 1, 3), stride=2, padding=(1, 1))[0, 0].tolist()
    [1.0, 6.0, 12.0]
    """
    arguments = _arguments(x, weight, bias, stride=stride, padding=padding, groups=groups, slope=slope)
    return _downsample(*arguments)  # type: ignore[no-any-return]


def _arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    slope: float = 1.0,
) -> tuple[Any, ...]:
    left, right = padding
    _check.activation("downsample", "x", x)
    _check.alike("downsample", x, weight=weight, bias=bias)
    channels, frames = x.shape[1:]
    if groups < 1 or channels % groups or weight.dim() != 3 or weight.shape[1] * groups != channels:
        raise ValueError(
            f"downsample: weight has shape {tuple(weight.shape)} but x has {channels} channels in {groups} groups; "
            f"expected (C_out, {channels} / groups, K)"
        )
    if weight.shape[0] % groups:
        raise ValueError(
            f"downsample: weight has {weight.shape[0]} output channels; expected a multiple of {groups} groups"
        )
    if stride < 1:
        raise ValueError(f"downsample: stride is {stride}; expected at least 1")
    if left < 0 or right < 0:
        raise ValueError(f"downsample: padding is {(left, right)}; expected no negative number of frames")
    if not 0 < slope < math.inf:
        raise ValueError(f"downsample: slope is {slope}; expected a positive number, which keeps signs apart")
    taps = weight.shape[2]
    if frames + left + right < taps:
        raise ValueError(f"downsample: x has {frames + left + right} frames with padding; needs at least {taps}")
    _check.shape("downsample", "bias", bias, (weight.shape[0],), "one number per output channel")
    return x, weight, bias, stride, left, right, groups, float(slope)


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, left: int, right: int, groups: int, slope: float
) -> Tensor:
    return empty_channels_last(x, weight.shape[0], (x.shape[2] + left + right - weight.shape[2]) // stride + 1)


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    stride: int,
    left: int,
    right: int,
    groups: int,
    slope: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else x.new_empty(0),
        x.new_empty(tuple(weight.shape)) if needs[1] else x.new_empty(0),
        x.new_empty(weight.shape[0]) if needs[2] else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, *settings = inputs
    ctx.save_for_backward(x, weight, output)
    ctx.settings = settings


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = list(ctx.needs_input_grad[:3])
    grads = _downsample_backward(grad, *ctx.saved_tensors, *ctx.settings, needs)
    return (*(value if needed else None for value, needed in zip(grads, needs, strict=True)), *[None] * 5)


_downsample_backward = Op(
    "downsample_backward(Tensor grad, Tensor x, Tensor weight, Tensor y, int stride, int left, int right, int groups, "
    "float slope, bool[3] needs) -> (Tensor, Tensor, Tensor)",
    reference.downsample_backward,
    fake=_fake_backward,
    cases=cases.backward,
)
_downsample = Op(
    "downsample(Tensor x, Tensor weight, Tensor? bias, int stride, int left, int right, int groups, float slope) "
    "-> Tensor",
    reference.downsample,
    fake=_fake,
    gradient=(_differentiate, _save),
    arguments=_arguments,
    cases=cases.forward,
)
_downsample.kernel("triton", triton.downsample, refuses=triton.refuses)
_downsample.kernel("cpu", cpu.downsample, refuses=cpu.refuses)
_downsample_backward.kernel("triton", triton.downsample_backward, refuses=triton.refuses_backward)
_downsample_backward.kernel("cpu", cpu.downsample_backward, refuses=cpu.refuses_backward)

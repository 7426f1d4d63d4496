"""`conv1d`: activation, padding, dilated convolution, bias, residual and tanh as one operator.

With the leaky ReLU in front and the addition behind, it is every layer of the generators of MelGAN
(Kumar et al. 2019, arXiv:1910.06711) and HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), from stem to head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastvoc.ops import _check
from fastvoc.ops._layout import empty_like_layout
from fastvoc.ops._op import Op
from fastvoc.ops.conv1d import cases, cpu, cuda, reference, triton

PADDING_MODES = ("zero", "reflect", "replicate")


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    padding_mode: str = "zero",
    slope: float = 1.0,
    residual: Tensor | None = None,
    tanh: bool = False,
) -> Tensor:
    """Leaky ReLU, pad, convolve, add bias, add residual, tanh.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory; the result has the same memory order.
    weight : Tensor, shape (C_out, C, K)
        The kernel; as in `torch.nn.functional.conv1d`, it is not flipped.
    bias : Tensor, shape (C_out,), optional
        Added after the convolution.
    dilation : int
        Distance between taps, in frames.
    padding : (int, int)
        Frames added before the start and after the end.
    padding_mode : {"zero", "reflect", "replicate"}
        What they hold. The activation comes first, so that zeros stay zeros.
    slope : float
        Of the leaky ReLU for negative values; 1 is no activation.
    residual : Tensor, shape (B, C_out, T_out), optional
        Added after the bias.
    tanh : bool
        Whether the result goes through the hyperbolic tangent.

    Returns
    -------
    Tensor, shape (B, C_out, T_out), T_out = T + sum(padding) - dilation * (K - 1)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        If shapes do not fit, the padded input is shorter than the kernel, or reflection is longer than the input.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Examples
    --------
    >>> import torch
    >>> y = conv1d(torch.ones(1, 2, 5), torch.ones(3, 2, 3), padding=(1, 1))
    >>> y[0, 0].tolist()
    [4.0, 6.0, 6.0, 6.0, 4.0]
    """
    return _conv1d(  # type: ignore[no-any-return]
        *_arguments(
            x,
            weight,
            bias,
            dilation=dilation,
            padding=padding,
            padding_mode=padding_mode,
            slope=slope,
            residual=residual,
            tanh=tanh,
        )
    )


def _arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    padding_mode: str = "zero",
    slope: float = 1.0,
    residual: Tensor | None = None,
    tanh: bool = False,
) -> tuple[Any, ...]:
    left, right = padding
    _check.activation("conv1d", "x", x)
    _check.alike("conv1d", x, weight=weight, bias=bias, residual=residual)
    batch, channels, frames = x.shape
    if weight.dim() != 3 or weight.shape[1] != channels:
        raise ValueError(
            f"conv1d: weight has shape {tuple(weight.shape)} but x has {channels} channels; "
            f"expected (C_out, {channels}, K)"
        )
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"conv1d: padding_mode is {padding_mode!r}; known: {', '.join(PADDING_MODES)}")
    if dilation < 1:
        raise ValueError(f"conv1d: dilation is {dilation}; expected at least 1")
    if left < 0 or right < 0:
        raise ValueError(f"conv1d: padding is {(left, right)}; expected no negative number of frames")
    if padding_mode == "reflect" and max(left, right) >= frames:
        raise ValueError(
            f"conv1d: x has {frames} frames; "
            f"needs at least {max(left, right) + 1} to reflect {max(left, right)} of them"
        )
    if padding_mode == "replicate" and frames == 0:
        raise ValueError("conv1d: x has 0 frames; needs at least 1 to replicate")
    span = dilation * (weight.shape[2] - 1)
    if frames + left + right <= span:
        raise ValueError(
            f"conv1d: x has {frames} frames, {frames + left + right} with padding; "
            f"needs at least {span + 1} for {weight.shape[2]} taps at dilation {dilation}"
        )
    out = weight.shape[0]
    _check.shape("conv1d", "bias", bias, (out,), "one number per output channel")
    _check.shape("conv1d", "residual", residual, (batch, out, frames + left + right - span), "as the result")
    return x, weight, bias, residual, dilation, left, right, padding_mode, float(slope), tanh


def _fake(
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
    return empty_like_layout(x, weight.shape[0], x.shape[2] + left + right - dilation * (weight.shape[2] - 1))


def _fake_backward(
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
    return (
        empty_like_layout(x, x.shape[1], x.shape[2]) if needs[0] else x.new_empty(0),
        x.new_empty(tuple(weight.shape)) if needs[1] else x.new_empty(0),
        x.new_empty(weight.shape[0]) if needs[2] else x.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, _, *settings, tanh = inputs
    ctx.save_for_backward(x, weight, output if tanh else None)
    ctx.settings = settings


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, output = ctx.saved_tensors
    if output is not None:
        grad = grad * (1 - output * output)
    needs = list(ctx.needs_input_grad[:3])
    grads = _conv1d_backward(grad, x, weight, *ctx.settings, needs) if any(needs) else (None, None, None)
    wanted = [value if needed else None for value, needed in zip(grads, needs, strict=True)]
    return (*wanted, grad if ctx.needs_input_grad[3] else None, *[None] * 6)


_conv1d_backward = Op(
    "conv1d_backward(Tensor grad, Tensor x, Tensor weight, int dilation, int left, int right, str padding_mode, "
    "float slope, bool[3] needs) -> (Tensor, Tensor, Tensor)",
    reference.conv1d_backward,
    fake=_fake_backward,
    cases=cases.backward,
)
_conv1d = Op(
    "conv1d(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int dilation, int left, int right, "
    "str padding_mode, float slope, bool tanh) -> Tensor",
    reference.conv1d,
    fake=_fake,
    gradient=(_differentiate, _save),
    arguments=_arguments,
    cases=cases.forward,
)
_conv1d.kernel("cuda", cuda.conv1d, refuses=cuda.refuses)
_conv1d.kernel("triton", triton.conv1d, refuses=triton.refuses)
_conv1d.kernel("cpu", cpu.conv1d, refuses=cpu.refuses)
_conv1d_backward.kernel("cuda", cuda.conv1d_backward, refuses=cuda.refuses_backward)
_conv1d_backward.kernel("triton", triton.conv1d_backward, refuses=triton.refuses_backward)
_conv1d_backward.kernel("cpu", cpu.conv1d_backward, refuses=cpu.refuses_backward)

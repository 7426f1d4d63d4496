"""`conv1d`: activation, padding, dilated convolution, bias, residual and tanh as one operator.

With the leaky ReLU in front and the addition behind, it is every layer of the generators of MelGAN
(Kumar et al. 2019, arXiv:1910.06711) and HiFi-GAN (Kong et al. 2020, arXiv:2010.05646), from stem to head.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.conv1d import cases, cpu, cuda, triton
from fastvoc.ops.conv1d.call import Conv1d, Conv1dBackward
from fastvoc.ops.op import Op

_conv1d = Op(Conv1d, cases=cases.forward, cuda=cuda.prepare, triton=triton.prepare, cpu=cpu.prepare)
Op(
    Conv1dBackward,
    cases=cases.backward,
    cuda=cuda.prepare_backward,
    triton=triton.prepare_backward,
    cpu=cpu.prepare_backward,
)


@_conv1d.public
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
    check.tensors("conv1d", x=x, weight=weight, bias=bias, residual=residual)
    left, right = check.pair("conv1d", "padding", padding)
    call = Conv1d(x, weight, bias, residual, dilation, left, right, padding_mode, float(slope), tanh)
    return _conv1d(call)  # type: ignore[no-any-return]

"""`strided_conv1d`: padding, strided convolution in groups, bias and activation as one operator.

What discriminators are made of. Kumar et al. 2019, arXiv:1910.06711, §2.2; Kong et al. 2020, arXiv:2010.05646, §2.3,
whose period discriminator is one along time for every column of the folded wave.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.op import Op
from fastvoc.ops.strided_conv1d import cases, cpu, triton
from fastvoc.ops.strided_conv1d.call import StridedConv1d, StridedConv1dBackward

_strided_conv1d = Op(StridedConv1d, cases=cases.forward, triton=triton.prepare, cpu=cpu.prepare)
Op(StridedConv1dBackward, cases=cases.backward, triton=triton.prepare_backward, cpu=cpu.prepare_backward)


@_strided_conv1d.public
def strided_conv1d(
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
    >>> strided_conv1d(torch.arange(6.0).view(1, 1, 6), torch.ones(1, 1, 3), stride=2, padding=(1, 1))[0, 0].tolist()
    [1.0, 6.0, 12.0]
    """
    check.tensors("strided_conv1d", x=x, weight=weight, bias=bias)
    left, right = check.pair("strided_conv1d", "padding", padding)
    call = StridedConv1d(x, weight, bias, stride, left, right, groups, float(slope))
    return _strided_conv1d(call)  # type: ignore[no-any-return]

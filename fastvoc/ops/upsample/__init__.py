"""`upsample`: activation, transposed convolution, crop and bias as one operator.

Kong et al. 2020, arXiv:2010.05646, §2.2; Kumar et al. 2019, arXiv:1910.06711, §2.1.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.op import Op
from fastvoc.ops.upsample import cases, cpu, cuda, triton
from fastvoc.ops.upsample.call import Upsample, UpsampleBackward

_upsample = Op(Upsample, cases=cases.forward, cuda=cuda.prepare, triton=triton.prepare, cpu=cpu.prepare)
Op(
    UpsampleBackward,
    cases=cases.backward,
    cuda=cuda.prepare_backward,
    triton=triton.prepare_backward,
    cpu=cpu.prepare_backward,
)


@_upsample.public
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
    check.tensors("upsample", x=x, weight=weight, bias=bias)
    left, right = check.pair("upsample", "crop", crop)
    return _upsample(Upsample(x, weight, bias, stride, left, right, float(slope)))  # type: ignore[no-any-return]

"""`convnext`: a depthwise convolution, layer norm, two products with GELU between, a scale and the input, as one.

Liu et al. 2022, arXiv:2201.03545, §2; in vocoders Siuzdak 2023, arXiv:2306.00814, §3.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.convnext import cases, cpu, cuda, triton
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.op import Op

_convnext = Op(Convnext, cases=cases.forward, cuda=cuda.prepare, cpu=cpu.prepare, triton=triton.prepare)


@_convnext.public
def convnext(
    x: Tensor,
    depthwise: Tensor,
    depthwise_bias: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    contract: Tensor,
    contract_bias: Tensor,
    scale: Tensor,
    *,
    padding: tuple[int, int] = (0, 0),
    eps: float = 1e-6,
) -> Tensor:
    """Convolve each channel, normalise each frame, expand, GELU, contract, scale, add the input.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory, which is faster.
    depthwise : Tensor, shape (C, 1, K)
        A kernel for each channel, not flipped; K is odd.
    depthwise_bias : Tensor, shape (C,)
    norm, norm_bias : Tensor, shape (C,)
        What the layer norm multiplies by and adds. Where they depend on a condition, they are those of one.
    expand : Tensor, shape (hidden, C)
    expand_bias : Tensor, shape (hidden,)
        Of the product before the exact (erf) GELU.
    contract : Tensor, shape (C, hidden)
    contract_bias : Tensor, shape (C,)
        Of the product behind it.
    scale : Tensor, shape (C,)
        Multiplies what is added to the input (the paper's layer scale, γ).
    padding : (int, int)
        Zeros before the first frame and behind the last one, of the convolution and of the input that is added.
    eps : float
        Added to the variance of a frame.

    Returns
    -------
    Tensor, shape (B, C, T_out), T_out = T + sum(padding) - K + 1
        In the dtype of `x`, channels-last in memory whatever `x` is. Frame ``t`` is added to what the middle tap sees.

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
    >>> one, no = torch.ones(2), torch.zeros(2)
    >>> x = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 2.0, 4.0]]])
    >>> y = convnext(x, torch.ones(2, 1, 1), no, one, no, torch.eye(2), no, torch.eye(2), no, one)
    >>> [round(value, 4) for value in y[0, 0].tolist()]
    [1.0, 2.0, 2.8413]
    """
    weights = (depthwise, depthwise_bias, norm, norm_bias, expand, expand_bias, contract, contract_bias, scale)
    check.tensors("convnext", x=x, **dict(zip(Convnext._fields[1:10], weights, strict=True)))
    left, right = check.pair("convnext", "padding", padding)
    return _convnext(Convnext(x, *weights, left, right, float(eps)))  # type: ignore[no-any-return]

"""`residual`: whole residual blocks over one input, and their mean.

Kong et al. 2020, arXiv:2010.05646, §2.2 (multi-receptive field fusion); Kumar et al. 2019, arXiv:1910.06711, §2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.op import Op
from fastvoc.ops.residual import cases, cuda, triton
from fastvoc.ops.residual.call import Residual

_residual = Op(Residual, composed=True, cases=cases.forward, cuda=cuda.prepare, triton=triton.prepare)


@_residual.public
def residual(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    dilations: Sequence[int],
    *,
    branches: int = 1,
    convs_per_unit: int = 2,
    shortcut: bool = False,
    slope: float = 0.1,
    padding_mode: str = "zero",
    causal: bool = False,
    activate_first: bool = True,
) -> Tensor:
    """Run residual blocks side by side over one input and return their mean.

    A branch is a chain of units; a unit adds to its input what some convolutions, each behind a leaky ReLU, make of it.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory; the result has the same memory order.
    weights : sequence of Tensor, each of shape (C, C, K)
        Branch by branch, unit by unit: the convolutions, then the 1x1 convolution of the shortcut if there is one.
    biases : sequence of Tensor, each of shape (C,)
        One per weight.
    dilations : sequence of int
        One per weight, in frames.
    branches : int
        Chains side by side, with equally many weights each; the result is their mean.
    convs_per_unit : int
        Convolutions in a unit, without the shortcut.
    shortcut : bool
        Whether a unit's input is added through a 1x1 convolution (MelGAN) or as it is (HiFi-GAN).
    slope : float
        Of the leaky ReLU for negative values.
    padding_mode : {"zero", "reflect", "replicate"}
        What each convolution sees beyond the ends, so that every one keeps the length.
    causal : bool
        Whether a frame of the result sees only frames of `x` up to its own.
    activate_first : bool
        Whether the first convolution of a branch has a leaky ReLU before it.

    Returns
    -------
    Tensor, shape (B, C, T)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        If the numbers of weights, biases and dilations do not fit, or shapes do not.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(1, 2, 5)
    >>> y = residual(x, [torch.zeros(2, 2, 3)] * 2, [torch.ones(2)] * 2, [1, 1])
    >>> y[0, 0].tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    check.tensors("residual", x=x)
    check.all_tensors("residual", "weights", weights)
    check.all_tensors("residual", "biases", biases)
    call = Residual(
        x,
        list(weights),
        list(biases),
        list(dilations),
        branches,
        convs_per_unit,
        shortcut,
        float(slope),
        padding_mode,
        causal,
        activate_first,
    )
    return _residual(call)  # type: ignore[no-any-return]

"""`gated`: a layer of WaveNet, with its residual and skip connections, as one operator.

van den Oord et al. 2016, arXiv:1609.03499, §2.3 and §2.4; Prenger et al. 2018, arXiv:1811.00002, §2.2 (WaveGlow);
Yamamoto et al. 2019, arXiv:1910.11480 (Parallel WaveGAN); Engel et al. 2017, arXiv:1704.01279 (NSynth).
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.gated import cases, cpu, cuda, triton
from fastvoc.ops.gated.call import Gated, around
from fastvoc.ops.op import Op

_gated = Op(Gated, composed=True, cases=cases.forward, cpu=cpu.prepare, cuda=cuda.prepare, triton=triton.prepare)


@_gated.public
def gated(
    x: Tensor,
    weight: Tensor,
    out_weight: Tensor,
    *,
    skip_channels: int,
    bias: Tensor | None = None,
    out_bias: Tensor | None = None,
    condition: Tensor | None = None,
    skip: Tensor | None = None,
    dilation: int = 1,
    padding: tuple[int, int] | None = None,
    causal: bool = False,
    sigmoid_first: bool = False,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Convolve, add a condition, gate by tanh and sigmoid, and make residual and skip connections of the result.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        Contiguous, or channels-last in memory; the results have the same memory order.
    weight : Tensor, shape (2 G, C, K)
        Of the dilated convolution. Half of its rows go through the one function, half through the other.
    out_weight : Tensor, shape (C + skip_channels, G, 1), or (skip_channels, G, 1) without a residual connection
        Of the products of the gated signal: the rows of the residual connection, then those of the skip connection.
    skip_channels : int
        Of the skip connection; 0 is none.
    bias : Tensor, shape (2 G,), optional
        Added to the convolution.
    out_bias : Tensor, shape of the rows of `out_weight`, optional
        Added to the products.
    condition : Tensor, shape (B, 2 G, T_out), optional
        Added to the convolution: a product of what the signal is conditioned on, in any memory.
    skip : Tensor, shape (B, skip_channels, T_out), optional
        The sum of the skip connections of earlier layers, to which this one's is added.
    dilation : int
        Distance between taps, in frames.
    padding : (int, int), optional
        Zeros before the start and after the end; by default as many as keep the length. Fewer are for a part of a
        longer signal.
    causal : bool
        Whether a frame sees only frames of `x` up to its own; otherwise as many on both sides, or for an even number
        of taps one more behind.
    sigmoid_first : bool
        Whether the first half of the rows goes through the sigmoid (NSynth) or through tanh (all others).
    scale : float
        Of the sum of the residual connection: 1, or √½ in r9y9's WaveNet and in Parallel WaveGAN.

    Returns
    -------
    residual : Tensor, shape (B, C, T_out), or (B, 0, T_out) without a residual connection
        ``scale · (x + product)``, of the frames of `x` that the results are of. T_out = T + sum(padding) -
        dilation * (K - 1).
    skip : Tensor, shape (B, skip_channels, T_out)

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
    >>> x = torch.ones(1, 2, 5)
    >>> residual, skip = gated(x, torch.zeros(6, 2, 3), torch.zeros(5, 3, 1), skip_channels=3, out_bias=torch.ones(5))
    >>> residual[0, 0].tolist(), tuple(skip.shape)
    ([2.0, 2.0, 2.0, 2.0, 2.0], (1, 3, 5))
    """
    check.tensors("gated", x=x, weight=weight, out_weight=out_weight)
    given = {"bias": bias, "out_bias": out_bias, "condition": condition, "skip": skip}
    check.tensors("gated", **{name: value for name, value in given.items() if value is not None})
    taps = weight.shape[2] if weight.dim() == 3 else 1
    left, right = around(taps, dilation, causal=causal) if padding is None else check.pair("gated", "padding", padding)
    call = Gated(
        x,
        weight,
        bias,
        condition,
        out_weight,
        out_bias,
        skip,
        skip_channels,
        dilation,
        left,
        right,
        causal,
        sigmoid_first,
        float(scale),
    )
    return _gated(call)  # type: ignore[no-any-return]

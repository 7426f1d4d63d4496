"""`smooth_snake`: BigVGAN's anti-aliased activation, Snake at twice the rate between two low-pass filters.

Lee, Ping, Ginsburg, Catanzaro and Yoon 2022, arXiv:2206.04658, §3.2 and §3.3; original: NVIDIA/BigVGAN 7d2b454,
alias_free_activation/torch.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.op import Op
from fastvoc.ops.smooth_snake import cases, cpu, cuda, triton
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward

_smooth_snake = Op(SmoothSnake, cases=cases.forward, cuda=cuda.prepare, cpu=cpu.prepare, triton=triton.prepare)
Op(
    SmoothSnakeBackward,
    cases=cases.backward,
    cuda=cuda.prepare_backward,
    cpu=cpu.prepare_backward,
    triton=triton.prepare_backward,
)


@_smooth_snake.public
def smooth_snake(x: Tensor, alpha: Tensor, beta: Tensor | None = None, *, logarithmic: bool = True) -> Tensor:
    """Double the rate, apply Snake, halve the rate.

    ``y = down(s)``, ``s = u + sin²(a·u) / (b + 1e-9)``, ``u = up(x)``, with ``a = e^alpha`` and ``b = e^beta``, or the
    parameters themselves. Both filters have the same 12 taps; x and s are repeated beyond their ends. A frame depends
    on the 5 before and the 5 behind it.

    Parameters
    ----------
    x : Tensor, shape (B, C, T), float
        At least one frame. Contiguous, or channels-last in memory; the result follows it.
    alpha : Tensor, shape (C,)
        Frequency in the sine, or its logarithm.
    beta : Tensor, shape (C,), optional
        What the sine is divided by, or its logarithm; by default the frequency (Snake instead of SnakeBeta).
    logarithmic : bool
        Whether the parameters are logarithms (``snake_logscale``).

    Returns
    -------
    Tensor, shape (B, C, T)
        In the dtype of `x`. In 16 bits the inside is float32, and rounded once.

    Raises
    ------
    ValueError
        If shapes do not fit, or x has no channel or no frame.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Notes
    -----
    This is the original's PyTorch module, with which networks are trained. Its CUDA kernel repeats only x beyond the
    ends and applies Snake to what lies there, so that the first three and the last three frames differ (by 4e-3, 2e-3
    and 7e-4 for values around one).

    Examples
    --------
    >>> import torch
    >>> y = smooth_snake(torch.full((1, 1, 3), torch.pi / 2), torch.zeros(1))
    >>> round(y[0, 0, 1].item() - torch.pi / 2, 4)
    1.0
    """
    check.tensors("smooth_snake", x=x, alpha=alpha, **({} if beta is None else {"beta": beta}))
    return _smooth_snake(SmoothSnake(x, alpha, beta, bool(logarithmic)))  # type: ignore[no-any-return]

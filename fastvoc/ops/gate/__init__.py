"""`gate`: the gate of WaveNet alone, and its gradient in one pass: what lies between the convolutions in training.

van den Oord et al. 2016, arXiv:1609.03499, §2.3.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.gate import cases, cpu, triton
from fastvoc.ops.gate.call import Gate, GateBackward
from fastvoc.ops.op import Op

# the definition is made of operators of PyTorch, to which a backend without a kernel of this one goes
_gate = Op(Gate, composed=True, cases=cases.forward, triton=triton.prepare, cpu=cpu.prepare)
Op(GateBackward, composed=True, cases=cases.backward, triton=triton.prepare_backward, cpu=cpu.prepare_backward)


@_gate.public
def gate(x: Tensor, *, sigmoid_first: bool = False) -> Tensor:
    """Multiply the hyperbolic tangent of one half of the channels with the sigmoid of the other.

    Parameters
    ----------
    x : Tensor, shape (B, 2 G, T), float
        Contiguous, or channels-last in memory; the result has the same memory order.
    sigmoid_first : bool
        Whether the first half of the channels goes through the sigmoid (NSynth) or through tanh (all others).

    Returns
    -------
    Tensor, shape (B, G, T)
        In the dtype of `x`.

    Raises
    ------
    ValueError
        If the number of channels is odd.

    Notes
    -----
    For its gradient `x` is kept, and both functions are computed again; PyTorch would keep the two of them instead.

    Examples
    --------
    >>> import torch
    >>> gate(torch.tensor([[[100.0], [0.0]]])).tolist()
    [[[0.5]]]
    """
    check.tensors("gate", x=x)
    return _gate(Gate(x, bool(sigmoid_first)))  # type: ignore[no-any-return]

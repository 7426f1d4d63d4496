"""`griffin_lim`: the wave of a mel, by magnitudes that it allows and that are corrected, and rounds that find phases.

Griffin and Lim 1984, *Signal estimation from modified short-time Fourier transform*; with momentum Perraudin, Balazs
and Søndergaard 2013, *A fast Griffin-Lim algorithm*.
"""

from __future__ import annotations

from torch import Tensor

from fastvoc.ops import check
from fastvoc.ops.griffin_lim import cases, cpu
from fastvoc.ops.griffin_lim.call import GriffinLim
from fastvoc.ops.op import Op

_griffin_lim = Op(GriffinLim, cases=cases.forward, cpu=cpu.prepare)


@_griffin_lim.public
def griffin_lim(
    x: Tensor,
    mel: Tensor,
    filters: Tensor,
    *,
    hop: int,
    updates: tuple[int, int] = (8, 4),
    iterations: int = 16,
    revisions: int = 16,
    momentum: float = 0.99,
    floor: float = 1e-5,
) -> Tensor:
    """Estimate the magnitudes of a mel, correct them, and find the wave whose transforms come closest to them.

    Parameters
    ----------
    x : Tensor, shape (B, bins, T), float
        Logarithms of what the estimate is multiplied by; `bins` are ``fft_size // 2 + 1`` of an even `fft_size`, which
        is a multiple of `hop`.
    mel : Tensor, shape (B, bands, T)
        Natural logarithms of what the filters make of magnitudes.
    filters : Tensor, shape (bands, bins)
        None of them negative.
    hop : int
        Samples between frames. The window is a periodic Hann of `fft_size`.
    updates : (int, int)
        Multiplicative updates towards the mel before and behind the correction (Lee and Seung 2000, eq. 5).
    iterations : int
        Rounds in which every spectrum takes the corrected magnitudes.
    revisions : int
        Rounds that follow, in which it takes those that it has reached, moved towards the mel by one update.
    momentum : float
        0 is the original method, 0.99 arrives sooner.
    floor : float
        The smallest magnitude that counts.

    Returns
    -------
    Tensor, shape (B, 1, T·hop)
        In the dtype of `x`; whatever that is, it is computed in single precision at least.

    Raises
    ------
    ValueError
        If shapes do not fit, or a setting is out of range.
    TypeError
        If dtypes differ while autocast is off.
    NotImplementedError
        If a forced backend cannot run this call.

    Examples
    --------
    >>> import torch
    >>> filters = torch.eye(5)
    >>> mel = torch.full((1, 5, 3), -1.0)
    >>> wave = griffin_lim(torch.zeros(1, 5, 3), mel, filters, hop=2, iterations=1, revisions=0)
    >>> wave.shape
    torch.Size([1, 1, 6])
    """
    check.tensors("griffin_lim", x=x, mel=mel, filters=filters)
    before, after = check.pair("griffin_lim", "updates", updates)
    return _griffin_lim(  # type: ignore[no-any-return]
        GriffinLim(x, mel, filters, hop, before, after, iterations, revisions, float(momentum), float(floor))
    )

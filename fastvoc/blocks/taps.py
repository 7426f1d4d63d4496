"""What autoregressive networks share: causal convolutions whose taps are matrices, and the choice of a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Taps(nn.Module):
    """The weights of a causal convolution, (taps, in, out): each tap is a matrix that one sample is multiplied with."""

    def __init__(self, channels_in: int, channels_out: int, taps: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(taps, channels_in, channels_out))
        self.bias = nn.Parameter(torch.zeros(channels_out))

    @property
    def convolution(self) -> Tensor:
        """The weights as convolutions have them, (out, in, taps)."""
        return self.weight.permute(2, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, T) → (B, out, T)."""
        past = (self.weight.shape[0] - 1) * self.dilation
        return F.conv1d(F.pad(x, (past, 0)), self.convolution, self.bias, dilation=self.dilation)


def draw_class(logits: Tensor, chosen: Tensor, temperature: Tensor) -> Tensor:
    """Return the first class whose cumulated probability reaches a number.

    Parameters
    ----------
    logits : Tensor, shape (B, classes)
    chosen : Tensor, shape (B,)
        Between 0 and 1, of which the original draws uniform ones.
    temperature : Tensor, shape (B,)
        Divides the logits; at 0 it is the most probable class.

    Returns
    -------
    Tensor, shape (B,), int64
    """
    centred = (logits - logits.amax(dim=-1, keepdim=True)).double()
    divisor = torch.where(temperature == 0, 1, temperature).double()[:, None]
    reached = torch.softmax(centred / divisor, dim=-1).cumsum(dim=-1)
    # the sum of all is 1 but for rounding
    classes = (reached < chosen.double()[:, None] * reached[:, -1:]).sum(dim=-1)
    return torch.where(temperature == 0, logits.argmax(dim=-1), classes)

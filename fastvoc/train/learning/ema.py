"""An exponential moving average of a network's weights, which sounds better than the last of them.

Yazıcı 2019, arXiv:1806.04498.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A network whose variables follow those of another one slowly.

    Parameters
    ----------
    network : nn.Module
        The one that learns; it may have weight norm, and its magnitudes and directions are averaged then.
    decay : float
        What the average keeps at each update. In the beginning it keeps less, ``(1 + n) / (10 + n)`` after ``n``
        updates, so that it forgets where it started.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = deepcopy(network).requires_grad_(False)
        self._averages: list[Tensor] = [*self.network.parameters()]
        self._variables: list[Tensor] = [*network.parameters()]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the network, which has made this many updates before the latest."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._averages, self._variables, 1 - decay)

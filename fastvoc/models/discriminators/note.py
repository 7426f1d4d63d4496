"""GANSynth's discriminator, which also names the pitch of a note.

Engel et al. 2019, arXiv:1902.08710, § 3; reference: magenta/magenta 526d3eb, magenta/models/gansynth/lib/networks.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models.gansynth import LAYERS, SLOPE, Convolution, GANSynthConfig

_TINY = 1e-6
"""Added to the variance over a batch."""


class Narrowing(nn.Module):
    """The mirror of a generator's block: two convolutions and a mean over four pixels, and what reads a picture."""

    def __init__(self, width: int, narrower: int) -> None:
        super().__init__()
        self.from_picture = Convolution(LAYERS, width, (1, 1))
        self.conv0 = Convolution(width, width, (3, 3))
        self.conv1 = Convolution(width, narrower, (3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, T, F) → (B, narrower, T / 2, F / 2)."""
        x = F.leaky_relu(self.conv0(x), SLOPE)
        return F.avg_pool2d(F.leaky_relu(self.conv1(x), SLOPE), 2)


class Last(nn.Module):
    """What ends in a score and in a class: it also sees how much the pictures of a batch differ."""

    def __init__(self, config: GANSynthConfig) -> None:
        super().__init__()
        width = config.channels[0]
        self.from_picture = Convolution(LAYERS, width, (1, 1))
        self.conv0 = Convolution(width + 1, width, (3, 3))
        self.conv1 = Convolution(width, width, config.first, same=False)
        self.score = Convolution(width, 1, (1, 1), gain=1.0)
        self.pitch = Convolution(width, config.pitches, (1, 1), gain=1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width, *first) → (B,) and (B, pitches)."""
        spread = (x.var(dim=0, correction=0) + _TINY).sqrt().mean()
        x = torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], dim=1)
        x = F.leaky_relu(self.conv0(x), SLOPE)
        # a kernel as large as the picture: a product, whose gradients are faster than a convolution's
        x = F.linear(x.flatten(1), self.conv1.weight.flatten(1), self.conv1.bias)[..., None, None]
        x = F.leaky_relu(x, SLOPE)
        return self.score(x).flatten(), self.pitch(x).flatten(1)


class NoteDiscriminator(nn.Module):
    """From a picture of a note to a score, and to logits of its pitch.

    Parameters
    ----------
    config : GANSynthConfig
        Of the generator whose mirror it is.
    """

    def __init__(self, config: GANSynthConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.last = Last(config)
        self.narrowing: Sequence[Narrowing] = nn.ModuleList(  # type: ignore[assignment]
            Narrowing(widths[n], widths[n - 1]) for n in range(1, config.blocks)
        )

    def forward(self, picture: Tensor, progress: float | None = None) -> tuple[Tensor, Tensor]:
        """Judge pictures.

        Parameters
        ----------
        picture : Tensor, shape (B, 2, frames, bins)
            In [-1, 1].
        progress : float, optional
            As in `fastvoc.models.GANSynth.forward`.

        Returns
        -------
        score : Tensor, shape (B,)
        pitch : Tensor, shape (B, pitches)
            Logits.
        """
        progress = self.config.grown if progress is None else progress
        top = math.ceil(progress)
        x = self._seen(picture, top)
        for n in range(top, 0, -1):
            x = self.narrowing[n - 1](x)
            share = min(max(n - progress, 0.0), 1.0)
            if share > 0:
                x = share * self._seen(picture, n - 1) + (1 - share) * x
        result: tuple[Tensor, Tensor] = self.last(x)
        return result

    def _seen(self, picture: Tensor, block: int) -> Tensor:
        """Read a picture at the resolution of a block."""
        factor = 1 << len(self.config.channels) - 1 - block
        reader = self.narrowing[block - 1] if block else self.last
        seen = picture if factor == 1 else F.avg_pool2d(picture, factor)
        return F.leaky_relu(reader.from_picture(seen), SLOPE)

"""GANSynth: a pitch and a point of timbre become a picture of a note, all of it at once.

Engel, Agrawal, Chen, Gulrajani, Donahue and Roberts 2019, arXiv:1902.08710, § 3 and appendix A; reference:
magenta/magenta 526d3eb, magenta/models/gansynth/lib/networks.py and layers.py. The pictures are those of
`fastvoc.audio.instantaneous_frequency`. Weights are as they are used, where the original stores each divided by a
constant and multiplies its results; `Convolution.deviation` is that constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.config import config
from fastvoc.models.generator import Positive

SLOPE = 0.2
"""Of every leaky ReLU."""

LAYERS = 2
"""Of a picture."""

_TINY = 1e-8
"""Added to the mean square of the channels."""

Widths = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=12)]


@config
class GANSynthConfig:
    """Blocks, each of which makes a picture twice as high and wide as the one before; by default the published ones."""

    kind: Literal["gansynth"] = "gansynth"
    latent: Positive = 256
    """Numbers of a point of timbre."""
    lowest_pitch: int = Field(24, ge=0, le=127)
    """The lowest note, by its MIDI number."""
    pitches: int = Field(61, gt=0, le=128)
    """Notes, one above another."""
    first: tuple[Positive, Positive] = (2, 16)
    """Frames and bins that the first block makes: (2, 16) ends in (128, 1024), and (4, 8) in (256, 512)."""
    channels: Widths = (256, 256, 256, 256, 128, 64, 32)
    """Width of each block."""
    progress: float | None = Field(None, ge=0)
    """How far the network has grown, in blocks from 0: between two whole numbers its picture is a mixture of those of
    two blocks. By default it is full-grown."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.progress is not None and self.progress > len(self.channels) - 1:
            raise ValueError(f"progress {self.progress:g} is more than {len(self.channels)} blocks have")
        if self.lowest_pitch + self.pitches > 128:
            raise ValueError(f"{self.pitches} pitches from {self.lowest_pitch} go beyond 127, the highest MIDI number")
        return self

    @property
    def grown(self) -> float:
        """The progress as a number."""
        return len(self.channels) - 1.0 if self.progress is None else self.progress

    @property
    def blocks(self) -> int:
        """Blocks that there are at this progress."""
        return math.ceil(self.grown) + 1

    @property
    def frames(self) -> int:
        """Of a picture."""
        return self.first[0] << len(self.channels) - 1

    @property
    def bins(self) -> int:
        """Of a picture."""
        return self.first[1] << len(self.channels) - 1

    def build(self) -> GANSynth:
        """Build the generator with fresh weights."""
        return GANSynth(self)


class Convolution(nn.Conv2d):
    """A convolution whose first weights have the variance gain / fan-in, and whose first biases are zeros.

    Attributes
    ----------
    deviation : float
        The first weights' standard deviation, by which the learning rate of all of them is scaled.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], *, gain: float = 2.0, same: bool = True):
        super().__init__(inputs, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2) if same else 0)
        self.deviation = math.sqrt(gain / (inputs * kernel[0] * kernel[1]))
        nn.init.normal_(self.weight, std=self.deviation)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


def normalise_pixels(x: Tensor) -> Tensor:
    """Scale the channels of each pixel to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + _TINY)


def activated(x: Tensor) -> Tensor:
    """Apply leaky ReLU and `normalise_pixels` to what nothing else reads: (B, C, T, F).

    Where no gradient is asked for, all of it happens in place: a third of the time, since the features of the last
    blocks are larger than caches.
    """
    if x.requires_grad:
        return normalise_pixels(F.leaky_relu(x, SLOPE))
    F.leaky_relu_(x, SLOPE)
    # float16 has no 1e-8, and no squares of what is less than 2e-4
    wide = torch.float32 if x.dtype == torch.float16 else None
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=wide)
    return x.mul_(length.square_().div_(x.shape[1]).add_(_TINY).rsqrt_().to(x.dtype))


def doubled(weight: Tensor) -> Tensor:
    """Return the weights that do to pixels what a 3 × 3 convolution does to four times as many, each repeated.

    Of its nine taps, those that meet the same pixel are added: four are left.

    Parameters
    ----------
    weight : Tensor, shape (out, in, 3, 3)

    Returns
    -------
    Tensor, shape (in, out, 4, 4)
        Of a transposed convolution of stride 2, with a padding of 1.
    """
    for axis in (2, 3):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, middle + last, first + middle, first], dim=axis)
    return weight.transpose(0, 1)


class Block(nn.Module):
    """Two convolutions, and the picture that is read from them."""

    def __init__(self, inputs: int, width: int, first: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.first = first
        self.conv0 = Convolution(inputs, width, first or (3, 3), same=first is None)
        self.conv1 = Convolution(width, width, (3, 3))
        self.to_picture = Convolution(width, LAYERS, (1, 1), gain=1.0)

    def taps(self) -> Tensor:
        """Return the weights of the first convolution as `forward` multiplies them."""
        if self.first is None:
            return doubled(self.conv0.weight).contiguous(memory_format=torch.channels_last)
        # a single pixel amid zeros meets each tap once, the last one first: a product, not a convolution of zeros
        return self.conv0.weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2)

    def forward(self, x: Tensor, taps: Tensor | None = None) -> Tensor:
        """(B, inputs, T, F) → (B, width, 2T, 2F); in the first block (B, inputs, 1, 1) → (B, width, *first)."""
        taps = self.taps() if taps is None else taps
        if self.first is None:
            x = F.conv_transpose2d(x, taps, self.conv0.bias, stride=2, padding=1)
        else:
            # pixel by pixel, as what follows is computed faster
            x = F.linear(x.flatten(1), taps).reshape(len(x), *self.first, -1).permute(0, 3, 1, 2)
            assert self.conv0.bias is not None
            x = x + self.conv0.bias[:, None, None]
        return activated(self.conv1(activated(x)))


class GANSynth(nn.Module):
    """The generator."""

    def __init__(self, config: GANSynthConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.latent + config.pitches, *config.channels)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(widths[n], widths[n + 1], None if n else config.first) for n in range(config.blocks)
        )

    def taps(self) -> list[Tensor]:
        """Return what the first convolutions of all blocks multiply: a sixth of a note's time, where they are kept."""
        return [block.taps() for block in self.blocks]

    def forward(
        self,
        latent: Tensor,
        pitch: Tensor,
        progress: float | None = None,
        *,
        taps: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Make pictures of notes.

        Parameters
        ----------
        latent : Tensor, shape (B, latent)
            Points of timbre.
        pitch : Tensor, shape (B,), int64
            Counted from the lowest one, from 0.
        progress : float, optional
            As in the configuration, up to what is there.
        taps : sequence of Tensor, optional
            What `taps` returned, since when no weight has changed.

        Returns
        -------
        Tensor, shape (B, 2, frames, bins)
            In [-1, 1], as `fastvoc.audio.instantaneous_frequency.normalise` has both layers.
        """
        progress = self.config.grown if progress is None else progress
        note = F.one_hot(pitch, self.config.pitches).to(latent)
        # in the precision of the point: narrower ones have no squares of large numbers
        x = normalise_pixels(torch.cat([latent, note], dim=1)[..., None, None]).to(self.blocks[0].conv0.weight.dtype)
        picture: Tensor | None = None
        for n, block in enumerate(self.blocks[: math.ceil(progress) + 1]):
            x = block(x, None if taps is None else taps[n])
            share = 1 - abs(progress - n)
            if share > 0:
                factor = 1 << len(self.config.channels) - 1 - n
                # what is repeated after the tanh is repeated before it
                one = F.interpolate(share * torch.tanh(block.to_picture(x)), scale_factor=float(factor), mode="nearest")
                picture = one if picture is None else picture + one
        assert picture is not None
        return picture

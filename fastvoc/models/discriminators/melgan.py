"""MelGAN's discriminator.   Kumar et al. 2019, arXiv:1910.06711, §2.2; original: descriptinc/melgan-neurips 6488045."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from fastvoc.config import config
from fastvoc.models.discriminators.chain import Maps, WaveChain


@config
class MelGANDiscriminatorConfig:
    """Several scales of a grouped, strided network."""

    kind: Literal["melgan"] = "melgan"
    scales: PositiveInt = 3
    """Sub-discriminators; each gets the wave at half the rate of the one before."""
    channels: Annotated[int, Field(gt=0, multiple_of=4)] = 16
    """Of the first convolution."""
    downsampling: tuple[PositiveInt, ...] = (4, 4, 4, 4)
    """Stride of each grouped convolution; its kernel is ten times that plus one."""
    largest: PositiveInt = 1024
    """Upper bound of the channels."""
    slope: float = 0.2
    """Of every leaky ReLU."""
    keras: bool = False
    """The Keras tutorial's "same" padding, whose strided convolutions pad 18 samples on the left and 19 on the right,
    and its pooling of two."""

    def build(self) -> MelGANDiscriminator:
        """Build it with fresh weights."""
        return MelGANDiscriminator(self)


class MelGANDiscriminator(nn.Module):
    """Scale by scale: wide convolution → grouped, strided convolutions → score; average pooling between scales."""

    def __init__(self, config: MelGANDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(_scale(config) for _ in range(config.scales))

    def forward(self, wave: Tensor) -> list[Maps]:
        """(B, 1, T) → per scale, the feature maps and the score (B, 1, T / stride)."""
        results = []
        for n, scale in enumerate(self.scales):
            if n and self.config.keras:
                wave = F.avg_pool1d(wave, 2, 2)
            elif n:
                wave = F.avg_pool1d(wave, 4, 2, padding=1, count_include_pad=False)
            results.append(scale(wave))
        return results


def _scale(config: MelGANDiscriminatorConfig) -> WaveChain:
    width = config.channels
    convs: list[nn.Module] = [nn.Conv1d(1, width, 15)]
    paddings = [(7, 7)]
    for stride in config.downsampling:
        wider = min(width * stride, config.largest)
        taps = 10 * stride + 1
        convs.append(nn.Conv1d(width, wider, taps, stride, groups=width // 4))
        total = taps - stride  # "same" for a length that is a multiple of the stride
        paddings.append((total // 2, total - total // 2) if config.keras else (taps // 2, taps // 2))
        width = wider
    wider = min(2 * width, config.largest)
    convs += [nn.Conv1d(width, wider, 5), nn.Conv1d(wider, 1, 3)]
    paddings += [(2, 2), (1, 1)]
    mode = "constant" if config.keras else "reflect"
    return WaveChain([weight_norm(conv) for conv in convs], paddings, mode, config.slope)

"""Griffin-Lim on magnitudes that a network has learned: a small vocoder that trains in an hour on a CPU.

Of what a wave needs, a mel spectrogram holds nearly all of the magnitudes and none of the phases. The network starts
from the magnitudes that the mel's filter bank allows and corrects them; rounds of the fast Griffin-Lim algorithm
(Perraudin, Balazs and Søndergaard 2013) then find phases. As the magnitudes are
an estimate and the mel is not, the later rounds hold on to the mel only. All of it can be trained through. Unlike a
generator that has to invent everything, this one begins where Griffin-Lim ends.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio.griffin_lim import retrieve_phase
from fastvoc.blocks import Conv1d, ResidualBlocks
from fastvoc.config import config
from fastvoc.models.generator import Generator

Positive = Annotated[int, Field(gt=0)]


@config
class GriffinLimNetConfig:
    """A network at the mel's own rate and the transform that it ends in."""

    kind: Literal["griffin-lim-net"] = "griffin-lim-net"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram, which is a natural logarithm of magnitudes."""
    mel_floor: float = 1e-5
    """Smallest magnitude that counts, that of the mel's convention."""
    mel_mean: float = -5.0
    """Subtracted from the mel before the network sees it, roughly the mean of speech."""
    mel_scale: float = 3.0
    """Divides the difference, roughly the spread of speech."""
    channels: Positive = 160
    """Width of the residual blocks."""
    stem_kernel_size: Positive = 7
    """Taps of the first convolution, in frames."""
    kernel_sizes: tuple[Positive, ...] = (3, 5)
    """Taps of the residual blocks that run side by side, in frames."""
    dilations: tuple[Positive, ...] = (1, 3, 5)
    """Dilations of each of them, in frames."""
    slope: float = 0.1
    """Of every leaky ReLU."""
    fft_size: Positive = 1024
    """Of the inverse transform, in samples; its window is a Hann of the same length."""
    hop: Positive = 256
    """Samples per mel frame."""
    updates: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (8, 4)
    """Multiplicative updates towards the mel, of the estimate that the network corrects and after its correction."""
    iterations: Annotated[int, Field(ge=0)] = 16
    """Rounds of Griffin-Lim with the network's magnitudes."""
    revisions: Annotated[int, Field(ge=0)] = 16
    """Rounds that follow, which keep the magnitudes that the wave has come to, as far as they agree with the mel."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of Griffin-Lim: 0 is the original method, 0.99 arrives sooner."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fft_size % self.hop or (self.fft_size - self.hop) % 2:
            raise ValueError(f"fft_size {self.fft_size} must be a multiple of hop {self.hop}, and even beyond it")
        return self

    def build(self) -> GriffinLimNet:
        """Build the generator with fresh weights."""
        return GriffinLimNet(self)


class GriffinLimNet(Generator):
    """Stem → mean of residual blocks → corrected magnitudes → Griffin-Lim → wave."""

    filters: Tensor

    def __init__(self, config: GriffinLimNetConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.bins = config.fft_size // 2 + 1
        self.stem = Conv1d(config.mel_bands, 2 * config.channels, config.stem_kernel_size)
        self.narrow = Conv1d(2 * config.channels, config.channels, 1)
        branches = [[[(size, d), (size, 1)] for d in config.dilations] for size in config.kernel_sizes]
        self.residual = ResidualBlocks(config.channels, branches, slope=config.slope)
        self.correction = Conv1d(config.channels, self.bins, 1)
        self.register_buffer("filters", torch.zeros(config.mel_bands, self.bins))

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.config.hop

    def start_from(self, filters: Tensor) -> None:
        """Begin training with what linear algebra knows.

        Parameters
        ----------
        filters : Tensor, shape (bands, fft_size // 2 + 1)
            The filter bank of the mel's convention. The first correction is nearly none.
        """
        with torch.no_grad():
            self.filters.copy_(filters)
            self.correction.weight.mul_(0.1)
            self.correction.bias.zero_()

    def magnitude(self, mel: Tensor) -> Tensor:
        """Estimate the magnitudes of the wave's short-time spectrum.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)

        Returns
        -------
        Tensor, shape (B, fft_size // 2 + 1, T), at least single precision
        """
        config = self.config
        x = (mel - config.mel_mean) / config.mel_scale
        x = self.residual(self.narrow(self.stem(x), slope=config.slope))
        correction = _at_least_single(self.correction(x, slope=config.slope))
        prior = self.towards(mel, torch.ones_like(correction), config.updates[0])
        log_magnitude = prior.clamp(min=config.mel_floor).log() + correction
        return self.towards(mel, log_magnitude.clamp(max=self.loudest).exp(), config.updates[1])

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) → (B, 1, T·hop)."""
        magnitude = self.magnitude(mel)
        # first phases: a pulse at the centre of a frame turns by half a circle from bin to bin
        pulse = 1 - 2 * (torch.arange(self.bins, device=mel.device) % 2)[:, None]
        window = torch.hann_window(self.config.fft_size, device=mel.device, dtype=magnitude.dtype)
        wave = retrieve_phase(
            magnitude,
            pulse.to(magnitude.dtype.to_complex()).expand_as(magnitude),
            window,
            self.config.hop,
            iterations=self.config.iterations,
            momentum=self.config.momentum,
            revise=lambda reached: self.towards(mel, reached, 1),
            revisions=self.config.revisions,
        )
        side = (self.config.fft_size - self.config.hop) // 2
        return wave[:, None, side : side + mel.shape[-1] * self.config.hop].to(mel.dtype)

    def towards(self, mel: Tensor, magnitude: Tensor, updates: int) -> Tensor:
        """Move magnitudes towards those that have a mel (Lee and Seung 2000, eq. 5, for the filters held fixed).

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        magnitude : Tensor, shape (B, fft_size // 2 + 1, T)
        updates : int

        Returns
        -------
        Tensor, shape (B, fft_size // 2 + 1, T)
        """
        filters = self.filters.to(magnitude.dtype)
        target = mel.to(magnitude.dtype).clamp(max=self.loudest).exp()
        reach = filters.sum(dim=0)[:, None]
        for _ in range(updates):
            ratio = target / (filters @ magnitude).clamp(min=self.config.mel_floor)
            # where no filter reaches, the mel says nothing and the magnitude stays
            factor = torch.where(reach > 0, filters.T @ ratio / reach.clamp(min=1e-12), 1.0)
            magnitude = magnitude * factor
        return magnitude

    @property
    def loudest(self) -> float:
        """Logarithm of the window's sum: no wave in [−1, 1] has a larger magnitude, and exp stays finite."""
        return math.log(self.config.fft_size / 2)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples `first … last` read."""
        side = (self.config.fft_size - self.config.hop) // 2
        # frame f covers samples f·hop − side … f·hop − side + fft_size − 1
        frames = -((self.config.fft_size - 1 - side - first) // self.config.hop), (last + side) // self.config.hop
        overlap = (self.config.fft_size - 1) // self.config.hop  # frames on each side that share samples with one
        reach = overlap * (self.config.iterations + self.config.revisions)
        first, last = self.residual.needs(frames[0] - reach, frames[1] + reach)
        return self.stem.needs(first, last)


def _at_least_single(x: Tensor) -> Tensor:
    """Magnitudes span five decades and an FFT needs single precision, whatever the network computes in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

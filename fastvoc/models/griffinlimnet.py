"""Griffin-Lim on magnitudes that a network has learned: a small vocoder that trains in an hour on a CPU.

Of what a wave needs, a mel spectrogram holds nearly all of the magnitudes and none of the phases. The network starts
from the magnitudes that the mel's filter bank allows and corrects them; rounds of the fast Griffin-Lim algorithm
(Perraudin, Balazs and Søndergaard 2013) then find phases. As the magnitudes are
an estimate and the mel is not, the later rounds hold on to the mel only. All of it can be trained through. Unlike a
generator that has to invent everything, this one begins where Griffin-Lim ends.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.audio import MelConfig, Normalization
from fastvoc.audio.griffin_lim import retrieve_phase
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.blocks import Conv1d, ResidualBlocks
from fastvoc.blocks.heads import Inverse, OverlapAdd, hann_window, overlap_of
from fastvoc.config import config
from fastvoc.graph import Delayed, Graph, Node, Pointwise, Window
from fastvoc.models.generator import Generator, Positive, Sizes


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
    kernel_sizes: Sizes = (3, 5)
    """Taps of the residual blocks that run side by side, in frames."""
    dilations: Sizes = (1, 3, 5)
    """Dilations of each of them, in frames."""
    slope: float = 0.1
    """Of every leaky ReLU."""
    fft_size: Positive = 1024
    """Of the inverse transform, in samples; its window is a Hann of the same length."""
    hop: Positive = 256
    """Samples per mel frame."""
    updates: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] = (8, 4)
    """Multiplicative updates towards the mel, of the estimate that the network corrects and after its correction."""
    iterations: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rounds of Griffin-Lim with the network's magnitudes."""
    revisions: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rounds that follow, which keep the magnitudes that the wave has come to, as far as they agree with the mel."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of Griffin-Lim: 0 is the original method, 0.99 arrives sooner."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fft_size % self.hop or (self.fft_size - self.hop) % 2:
            raise ValueError(f"fft_size {self.fft_size} must be a multiple of hop {self.hop}, and even beyond it")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """What losses can compare: the wave, and the magnitudes (B, fft_size // 2 + 1, T) that it is made of."""
        return ("wave", "magnitude")

    def check_mel(self, mel: MelConfig) -> None:
        """Raise unless a mel is the logarithm of magnitudes of the network's own transform."""
        size = self.fft_size
        needed = {"fft_size": size, "window_size": size, "padding": "same", "power": 1, "logarithm": "natural"}
        needed |= {"gain": 1, "floor": self.mel_floor, "floor_mode": "clamp", "normalization": Normalization()}
        for name, value in needed.items():
            if getattr(mel, name) != value:
                raise ValueError(f"generator {self.kind} needs mel.{name} {value}; it is {getattr(mel, name)}")

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

    def prepare(self, mel: MelConfig) -> None:
        """Begin training with what linear algebra knows: the filters of the mel, and nearly no correction."""
        with torch.no_grad():
            self.filters.copy_(torch.from_numpy(mel_filters(mel)))
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
        return self.wave(mel, self.magnitude(mel))

    def outputs(self, mel: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Make what losses compare with recordings; the wave takes ten times as long as its magnitudes."""
        magnitude = self.magnitude(mel)
        return {"magnitude": magnitude} | ({"wave": self.wave(mel, magnitude)} if "wave" in names else {})

    def wave(self, mel: Tensor, magnitude: Tensor) -> Tensor:
        """Find phases for magnitudes: (B, bands, T), (B, fft_size // 2 + 1, T) → (B, 1, T·hop)."""
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

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add the network, and the rounds one by one, to a graph."""
        config, size = self.config, self.config.fft_size
        # fewer frames than overlap are a wave of its own kind, see `_Wave`
        mel = graph.add(Delayed(size // config.hop), x)
        y = graph.add(Pointwise(self._standardised), mel)
        y = graph.lower(self.narrow, graph.lower(self.stem, y), slope=config.slope)
        y = graph.lower(self.correction, graph.lower(self.residual, y), slope=config.slope)
        magnitude = graph.add(Pointwise(self._estimate), y, mel)
        spectrum = graph.add(Pointwise(self._pulse), magnitude)
        before: list[int] = []
        for number in range(config.iterations + config.revisions):
            frames = graph.add(Inverse(size), spectrum)
            rebuilt = graph.add(_Spectra(size, config.hop), graph.add(_Wave(size, config.hop), frames))
            if number >= config.iterations:
                magnitude = graph.add(Pointwise(self._revised), rebuilt, mel)
            spectrum = graph.add(Pointwise(self._ahead), rebuilt, magnitude, *before)
            before = [rebuilt]
        wave = graph.add(_Wave(size, config.hop, side=(size - config.hop) // 2), graph.add(Inverse(size), spectrum))
        dtype = self.stem.weight.dtype
        return graph.add(Pointwise(lambda wave: wave.to(dtype)), wave)

    def _standardised(self, mel: Tensor) -> Tensor:
        return (mel - self.config.mel_mean) / self.config.mel_scale

    def _estimate(self, correction: Tensor, mel: Tensor) -> Tensor:
        """`magnitude` for some frames."""
        correction = _at_least_single(correction)
        prior = self._towards(mel, torch.ones_like(correction), self.config.updates[0])
        log_magnitude = prior.clamp(min=self.config.mel_floor).log() + correction
        return self._towards(mel, log_magnitude.clamp(max=self.loudest).exp(), self.config.updates[1])

    def _pulse(self, magnitude: Tensor) -> Tensor:
        """Give magnitudes their first phases: a pulse at the centre of a frame turns by half a circle per bin."""
        pulse = 1 - 2 * (torch.arange(self.bins, device=magnitude.device) % 2)[:, None]
        return magnitude * pulse.to(magnitude.dtype.to_complex())

    def _revised(self, rebuilt: Tensor, mel: Tensor) -> Tensor:
        reached = (rebuilt.real.square() + rebuilt.imag.square()).clamp(min=1e-14).sqrt()
        return self._towards(mel, reached, 1)

    def _ahead(self, rebuilt: Tensor, magnitude: Tensor, before: Tensor | None = None) -> Tensor:
        momentum = self.config.momentum / (1 + self.config.momentum)
        ahead = rebuilt if before is None else torch.sub(rebuilt, before, alpha=momentum)
        power = ahead.real.square() + ahead.imag.square()
        return ahead * (magnitude * (power + 1e-16).rsqrt())

    def _towards(self, mel: Tensor, magnitude: Tensor, updates: int) -> Tensor:
        """Do as `towards` does for all frames at once.

        Products with a matrix of few columns add in another order, and Griffin-Lim makes much of the smallest rounding.
        """
        count = mel.shape[-1]
        few = (0, max(0, FEWEST_COLUMNS - count))
        frames = F.pad(magnitude.mT, (0, 0, *few)).mT  # bins stay neighbours in memory
        return self.towards(F.pad(mel, few), frames, updates)[..., :count]


FEWEST_COLUMNS = 16
"""From 12 columns on, products were measured to be those of many to the bit (MKL, AMD EPYC family 26, 2026-11-20)."""


class _Wave(OverlapAdd):
    """Frames to the wave whose transforms are nearest to them (Griffin and Lim 1984, eq. 6).

    Parameters
    ----------
    size, hop : int
    side : int, optional
        Samples to leave out at both ends.
    """

    amplifies = True

    def __init__(self, size: int, hop: int, *, side: int = 0) -> None:
        super().__init__(size, hop, start=side)

    def length(self, count: int) -> int:
        """Count the samples from the first frame to the last."""
        return (count - 1) * self.hop + self.size - 2 * self.start if count else 0

    def levelled(self, wave: Tensor, overlap: Tensor, window: Window) -> Tensor:
        """Bound the gain at the ends by the greatest overlap, which a wave of few frames does not reach."""
        most = self.size // self.hop
        most = min(window.known, most) if window.ended else most
        greatest = _greatest_overlap(self.size, self.hop, most, overlap.dtype, overlap.device)
        return wave * (1 / overlap.clamp(min=0.01 * greatest))


class _Spectra(Node):
    """A wave (B, 1, samples) to the spectra of its frames, (B, size // 2 + 1, n)."""

    def __init__(self, size: int, hop: int) -> None:
        self.size, self.hop = size, hop

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Return the samples of frames `first … last`."""
        return first * self.hop, last * self.hop + self.size - 1

    def length(self, count: int) -> int:
        """Count the frames of so many samples."""
        return max(0, (count - self.size) // self.hop + 1)

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Transform frames `first … last`."""
        (wave,) = window.rows
        hann = hann_window(self.size, wave.dtype, wave.device)
        spectra: Tensor = torch.fft.rfft(wave[:, 0].unfold(-1, self.size, self.hop) * hann)
        return spectra.mT


@functools.lru_cache(maxsize=64)
def _greatest_overlap(size: int, hop: int, frames: int, dtype: torch.dtype, device: torch.device) -> float:
    return float(overlap_of(size, hop, frames, True, dtype, device).max())


def _at_least_single(x: Tensor) -> Tensor:
    """Magnitudes span five decades and an FFT needs single precision, whatever the network computes in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

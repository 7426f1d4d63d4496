"""Griffin-Lim on magnitudes that a network has learned: a small vocoder that trains in an hour on a CPU.

Of what a wave needs, a mel spectrogram holds nearly all of the magnitudes and none of the phases. The network starts
from the magnitudes that the mel's filter bank allows and corrects them; rounds of the fast Griffin-Lim algorithm
(Perraudin, Balazs and Søndergaard 2013) then find phases. As the magnitudes are
an estimate and the mel is not, the later rounds hold on to the mel only. All of it can be trained through. Unlike a
generator that has to invent everything, this one begins where Griffin-Lim ends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig, Normalization
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.blocks import Conv1d, ResidualBlocks
from fastvoc.blocks.griffin_lim import GriffinLimCall
from fastvoc.config import config
from fastvoc.graph import Delayed, Graph, Pointwise
from fastvoc.models.generator import Generator, Positive, Sizes
from fastvoc.ops.griffin_lim.call import GriffinLim, at_least_single
from fastvoc.ops.op import run


@config
class GriffinLimNetConfig:
    """A network at the mel's own rate and the transform that it ends in."""

    kind: Literal["griffin-lim-net"] = "griffin-lim-net"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram, which is a natural logarithm of magnitudes."""
    mel_floor: Annotated[float, Field(gt=0, lt=1)] = 1e-5
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
    updates: tuple[Annotated[int, Field(ge=0, le=1024)], Annotated[int, Field(ge=0, le=1024)]] = (8, 4)
    """Multiplicative updates towards the mel, of the estimate that the network corrects and after its correction."""
    iterations: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rounds of Griffin-Lim with the network's magnitudes."""
    revisions: Annotated[int, Field(ge=0, le=1024)] = 16
    """Rounds that follow, which keep the magnitudes that the wave has come to, as far as they agree with the mel."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of Griffin-Lim: 0 is the original method, 0.99 arrives sooner."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fft_size % 2 or self.fft_size % self.hop or (self.fft_size - self.hop) % 2:
            raise ValueError(f"fft_size {self.fft_size} must be even, a multiple of hop {self.hop}, and even beyond it")
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
        needed["window"] = "periodic"
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
        return self._call(mel).magnitude()

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) → (B, 1, T·hop)."""
        return run(self._call(mel)).to(mel.dtype)  # type: ignore[no-any-return]

    def outputs(self, mel: Tensor, names: Collection[str]) -> dict[str, Tensor]:
        """Make what losses compare with recordings; the wave takes ten times as long as its magnitudes."""
        call = self._call(mel)
        magnitude = call.magnitude()
        wave = {"wave": call.wave(magnitude).to(mel.dtype)} if "wave" in names else {}
        return {"magnitude": magnitude} | wave

    def _call(self, mel: Tensor) -> GriffinLim:
        """Return the call that makes the wave, in single precision at least."""
        slope = self.config.slope
        x = self.residual(self.narrow(self.stem(self._standardised(mel)), slope=slope))
        x = at_least_single(self.correction(x, slope=slope))
        return GriffinLim(x, mel.to(x.dtype), self.filters.to(x.dtype), self.config.hop, **self._settings())

    def _settings(self) -> dict[str, Any]:
        config = self.config
        names = ("iterations", "revisions", "momentum")
        settings = {name: getattr(config, name) for name in names}
        return settings | {"before": config.updates[0], "after": config.updates[1], "floor": config.mel_floor}

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add the network and the call of `griffin_lim` to a graph."""
        config = self.config
        y = graph.add(Pointwise(self._standardised), x)
        y = graph.lower(self.narrow, graph.lower(self.stem, y), slope=config.slope)
        y = graph.lower(self.correction, graph.lower(self.residual, y), slope=config.slope)
        rows = graph.add(Pointwise(lambda y, mel: torch.cat([y, mel.to(y.dtype)], dim=1)), y, x)
        # fewer frames than overlap are a wave of its own kind
        rows = graph.add(Delayed(config.fft_size // config.hop), rows)
        wave = graph.add(GriffinLimCall(self.filters, config.hop, **self._settings()), rows)
        dtype = self.stem.weight.dtype
        return graph.add(Pointwise(lambda wave: wave.to(dtype)), wave)

    def _standardised(self, mel: Tensor) -> Tensor:
        return (mel - self.config.mel_mean) / self.config.mel_scale

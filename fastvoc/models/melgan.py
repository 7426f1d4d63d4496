"""MelGAN and multi-band MelGAN.

Kumar et al. 2019, arXiv:1910.06711, §2.1; original: descriptinc/melgan-neurips 6488045.
Yang et al. 2020, arXiv:2005.05106, §2; reference: kan-bayashi/ParallelWaveGAN 8674037.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio.pqmf import PqmfConfig
from fastvoc.blocks import PqmfHead, ResidualBlocks, Trunk, WaveHead
from fastvoc.config import config
from fastvoc.models.generator import Positive, Sizes, TrunkGenerator


@config
class MelGANConfig:
    """The whole family: descript's, the Keras tutorial's, multi-band and full-band."""

    kind: Literal["melgan"] = "melgan"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram."""
    channels: Positive = 512
    """Width behind the first convolution; each stage halves it."""
    rates: Sizes = (8, 8, 2, 2)
    """Up-sampling factor of each stage; times the sub-bands, their product is the hop in samples."""
    rate_kernel_sizes: Sizes = (16, 16, 4, 4)
    """Taps of each stage's transposed convolution."""
    units: Annotated[int, Field(gt=0, le=16)] = 3
    """Residual units behind each transposed convolution; unit j has dilation 3**j."""
    unit_kernel_sizes: tuple[Positive, Positive] = (3, 1)
    """Taps of the two convolutions of a unit: (3, 1) in the original, (3, 3) in the paper's figure and in Keras."""
    shortcut: bool = True
    """Whether a unit adds a 1×1 convolution of its input (the original) or the input itself (Keras)."""
    slope: float = 0.2
    """Of every leaky ReLU."""
    padding_mode: Literal["zero", "reflect", "replicate"] = "reflect"
    """What stands outside the signal: reflect in the original, zero in Keras. Reflection needs 4 frames."""
    crop_rule: Literal["centred", "output-padded"] = "output-padded"
    """How a transposed convolution is cut."""
    causal: bool = False
    """Let no sample depend on a later frame (ParallelWaveGAN's use_causal_conv)."""
    activated_stack: bool = False
    """Whether the residual units work on the activated output of the transposed convolution (Keras)."""
    pqmf: PqmfConfig | None = None
    """Filter bank that joins sub-bands into the wave; none for a generator of the full band."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.rates) != len(self.rate_kernel_sizes):
            raise ValueError(f"{len(self.rates)} rates need as many rate_kernel_sizes, not {self.rate_kernel_sizes}")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels {self.channels} cannot be halved {len(self.rates)} times")
        if any(size % 2 == 0 for size in self.unit_kernel_sizes):
            raise ValueError(f"unit_kernel_sizes {self.unit_kernel_sizes} must be odd, so that units keep the length")
        for rate, taps in zip(self.rates, self.rate_kernel_sizes, strict=True):
            if self.crop_rule == "output-padded" and taps != 2 * rate:
                raise ValueError(f"rate {rate} needs {2 * rate} taps with this crop_rule, not {taps}")
            if self.crop_rule == "centred" and (taps < rate or (taps - rate) % 2):
                raise ValueError(
                    f"a transposed convolution of {taps} taps does not multiply the length by {rate} exactly"
                )
        return self

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.rates) * (self.pqmf.bands if self.pqmf else 1)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What losses can compare: the wave, and the sub-bands (B, bands, T / bands) before `pqmf` joins them."""
        return ("wave", "subbands") if self.pqmf else ("wave",)

    def build(self) -> MelGAN:
        """Build the generator with fresh weights."""
        return MelGAN(self)


class MelGAN(TrunkGenerator):
    """Stem → (transposed convolution → residual stack)* → wave, or sub-bands joined by a filter bank."""

    def __init__(self, config: MelGANConfig) -> None:
        first, second = config.unit_kernel_sizes
        stack = [[[(first, 3**unit), (second, 1)] for unit in range(config.units)]]
        trunk = Trunk(
            config.mel_bands,
            config.channels,
            config.rates,
            config.rate_kernel_sizes,
            lambda channels: ResidualBlocks(
                channels,
                stack,
                slope=config.slope,
                shortcut=config.shortcut,
                padding_mode=config.padding_mode,
                causal=config.causal,
                activate_first=not config.activated_stack,
            ),
            slope=config.slope,
            slope_after=config.slope if config.activated_stack else 1.0,
            padding_mode=config.padding_mode,
            crop_rule=config.crop_rule,
            causal=config.causal,
        )
        head = (
            PqmfHead(
                trunk.channels,
                slope=config.slope,
                pqmf=config.pqmf,
                padding_mode=config.padding_mode,
                causal=config.causal,
            )
            if config.pqmf
            else WaveHead(trunk.channels, slope=config.slope, padding_mode=config.padding_mode, causal=config.causal)
        )
        super().__init__(trunk, head, mel_bands=config.mel_bands)
        self.config = config

    def finish(self, x: Tensor) -> dict[str, Tensor]:
        """Turn features into all outputs."""
        if not isinstance(self.head, PqmfHead):
            return super().finish(x)
        subbands = self.head.subbands(x)
        return {"subbands": subbands, "wave": self.head.join(subbands)}

    def up_to_subbands(self) -> TrunkGenerator:
        """Return what makes the sub-bands, (B, bands, T) → (B, sub-bands, T·hop / sub-bands), of the same modules."""
        config, bank = self.config, self.head
        if config.pqmf is None or not isinstance(bank, PqmfHead):
            raise ValueError("MelGAN: config.pqmf is None; only a multi-band generator makes sub-bands")
        head = WaveHead(
            self.trunk.channels,
            slope=config.slope,
            bands=config.pqmf.bands,
            padding_mode=config.padding_mode,
            causal=config.causal,
        )
        head.conv = bank.conv
        return TrunkGenerator(self.trunk, head, mel_bands=self.mel_bands)


DESCRIPT = MelGANConfig()
"""4.27 M parameters: the original."""

DESCRIPT_16K = MelGANConfig(rates=(10, 5, 2, 2), rate_kernel_sizes=(20, 10, 4, 4))
"""The original at 16 kHz and hop 200, for the mel convention "melgan-16k"."""

KERAS = MelGANConfig(
    rate_kernel_sizes=(16, 16, 16, 16),
    unit_kernel_sizes=(3, 3),
    shortcut=False,
    slope=0.3,
    padding_mode="zero",
    crop_rule="centred",
    activated_stack=True,
)
"""The Keras tutorial's: "same" padding, all transposed kernels 16, identity shortcuts, slope 0.3."""

FULL_BAND = MelGANConfig(rates=(8, 8, 4), rate_kernel_sizes=(16, 16, 8), units=4)
"""4.71 M parameters: ParallelWaveGAN's full_band_melgan.v2, one stage less and one more unit per stack."""

MULTI_BAND = MelGANConfig(channels=384, rates=(8, 4, 2), rate_kernel_sizes=(16, 8, 4), units=4, pqmf=PqmfConfig())
"""2.54 M parameters: ParallelWaveGAN's multi_band_melgan.v2, four sub-bands."""

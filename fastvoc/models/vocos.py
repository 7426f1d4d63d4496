"""Vocos: a stack of ConvNeXt blocks at the mel's own rate under an inverse short-time Fourier transform.

Siuzdak 2023, arXiv:2306.00814; reference: gemelo-ai/vocos c859e3b. With another head it is WaveNeXt (Okamoto et al.
2023, ASRU; reference: wetdog/wavenext_pytorch d45d544).
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc.blocks import Conv1d
from fastvoc.blocks.convnext import ChannelNorm, ConvNext
from fastvoc.blocks.spectral import SampleHead, SpectralHead
from fastvoc.config import config
from fastvoc.graph import Graph
from fastvoc.models.generator import Generator, Positive, Sizes


@config
class VocosConfig:
    """A stack of blocks, and the head that makes a hop of samples of each frame."""

    kind: Literal["vocos"] = "vocos"
    mel_bands: Positive = 100
    """Bands of the mel spectrogram."""
    channels: Positive = 512
    """Width of the blocks."""
    hidden: Positive = 1536
    """Width between the two products of a block."""
    blocks: Annotated[int, Field(gt=0, le=256)] = 8
    """Blocks, one behind the other."""
    stem_kernel_size: Annotated[int, Field(gt=0, le=255)] = 7
    """Taps of the convolution before the blocks, in frames; an odd number."""
    kernel_size: Annotated[int, Field(gt=0, le=255)] = 7
    """Taps of each block's convolution, in frames; an odd number."""
    head: Literal["spectral", "samples"] = "spectral"
    """Whether the last product makes a spectrum, which is inverted, or (WaveNeXt) the samples themselves."""
    fft_size: Positive = 1024
    """Of the inverse transform, in samples; its window is a Hann of the same length."""
    hop: Positive = 256
    """Samples per mel frame."""
    padding: Literal["centre", "same"] = "centre"
    """Of the transform: ``"centre"`` begins in the middle of the first frame and ends in that of the last, so that
    waves are a hop shorter than ``hop`` for each frame; ``"same"`` has a whole hop of each."""
    bandwidths: Annotated[int, Field(ge=0, le=64)] = 0
    """Pairs of factors and offsets that each norm has, one for each bandwidth of the codec whose features it takes;
    0 for mels, with a single pair."""
    bandwidth: Annotated[int, Field(ge=0)] = 0
    """The number of the pair that is used, from 0."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("stem_kernel_size", "kernel_size"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} {getattr(self, name)} is even; a frame is in the middle of an odd number")
        if self.head == "spectral":
            if self.fft_size <= self.hop or self.fft_size % 2:
                raise ValueError(f"fft_size {self.fft_size} must be even and more than hop {self.hop}")
            if self.padding == "same" and (self.fft_size - self.hop) % 2:
                raise ValueError(f"fft_size {self.fft_size} must exceed hop {self.hop} by an even number")
        if self.bandwidth >= max(self.bandwidths, 1):
            raise ValueError(f"bandwidth {self.bandwidth} is none of {max(self.bandwidths, 1)}; they count from 0")
        return self

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame: negative where a hop is missing."""
        return -self.hop if self.head == "spectral" and self.padding == "centre" else 0

    def build(self) -> Vocos:
        """Build the generator with fresh weights."""
        return Vocos(self)


class Vocos(Generator):
    """Stem → norm → blocks → norm → magnitude and phase → wave."""

    def __init__(self, config: VocosConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        norms = {"conditions": config.bandwidths, "condition": config.bandwidth}
        self.stem = Conv1d(config.mel_bands, config.channels, config.stem_kernel_size)
        nn.init.trunc_normal_(self.stem.weight, std=0.02)
        nn.init.zeros_(self.stem.bias)
        self.first_norm = ChannelNorm(config.channels, **norms)
        self.blocks = nn.ModuleList(
            ConvNext(config.channels, config.hidden, kernel_size=config.kernel_size, scale=1 / config.blocks, **norms)
            for _ in range(config.blocks)
        )
        self.last_norm = ChannelNorm(config.channels)
        self.head: SpectralHead | SampleHead
        if config.head == "spectral":
            self.head = SpectralHead(config.channels, fft_size=config.fft_size, hop=config.hop, padding=config.padding)
        else:
            self.head = SampleHead(config.channels, hop=config.hop)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.config.hop

    @property
    def extra_samples(self) -> int:
        """Samples that a wave has at its end beyond `hop` for each frame."""
        return self.config.extra_samples

    def features(self, mel: Tensor) -> Tensor:
        """Make what the head turns into a wave: (B, bands, T) → (B, C, T)."""
        x = self.first_norm(self.stem(mel))
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)  # type: ignore[no-any-return]

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) → (B, 1, T·hop + extra_samples)."""
        return self.head(self.features(mel))  # type: ignore[no-any-return]

    def lower(self, graph: Graph, x: int, condition: int | None = None) -> int:
        """Add stem, norms, blocks and head to a graph."""
        for part in (self.stem, self.first_norm, *self.blocks, self.last_norm, self.head):
            x = graph.lower(part, x)
        return x


MEL_24K = VocosConfig()
"""13.53 M parameters: charactr/vocos-mel-24khz."""

ENCODEC_24K = VocosConfig(
    mel_bands=128, channels=384, hidden=1152, fft_size=1280, hop=320, padding="same", bandwidths=4
)
"""7.98 M parameters: the decoder of charactr/vocos-encodec-24khz, which takes sums of EnCodec's codebook vectors."""

WAVENEXT = VocosConfig(mel_bands=80, head="samples", padding="same")
"""BSC-LT/wavenext-mel at 22050 Hz; its two last products, between which nothing is, are one here."""


@config
class CodeVocosConfig:
    """A Vocos of the codes of a codec: its codebooks, and the network that takes sums of their vectors."""

    kind: Literal["vocos-codes"] = "vocos-codes"
    decoder: VocosConfig = ENCODEC_24K
    """The network; its `mel_bands` are the width of the vectors, and of its `bandwidths` each has codebooks of its own
    number."""
    codebooks: Sizes = (2, 4, 8, 16)
    """Of each bandwidth: how many codebooks it uses, from the first on; ascending."""
    codewords: Positive = 1024
    """Vectors of each codebook."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.codebooks) != max(1, self.decoder.bandwidths):
            raise ValueError(
                f"codebooks {self.codebooks} are of {len(self.codebooks)} bandwidths but the decoder has norms of "
                f"{max(1, self.decoder.bandwidths)}"
            )
        if any(one >= other for one, other in zip(self.codebooks, self.codebooks[1:], strict=False)):
            raise ValueError(f"codebooks {self.codebooks} do not ascend")
        if self.decoder.bandwidth:
            raise ValueError(f"decoder.bandwidth is {self.decoder.bandwidth}; the codes say it, so it is 0 here")
        return self

    @property
    def hop(self) -> int:
        """Samples per frame of codes."""
        return self.decoder.hop

    def build(self) -> CodeVocos:
        """Build both with fresh weights."""
        return CodeVocos(self)


class CodeVocos(nn.Module):
    """Codebooks, and a Vocos of the sums of their vectors."""

    def __init__(self, config: CodeVocosConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.codebooks[-1], config.codewords, config.decoder.mel_bands)
        self.codebooks = nn.Parameter(torch.randn(shape))
        self.decoder = config.decoder.build()

    def features(self, codes: Tensor) -> Tensor:
        """Sum the vectors of codes: (B, codebooks, T), integers → (B, width, T)."""
        books = self.codebooks.to(torch.promote_types(self.codebooks.dtype, torch.float32))
        # one by one, since a sum over an axis has another order beside other frames
        vectors = (F.embedding(row, book) for row, book in zip(codes.unbind(1), books, strict=False))
        return functools.reduce(torch.add, vectors).to(self.codebooks).mT


CODES_ENCODEC_24K = CodeVocosConfig()
"""10.1 M parameters: charactr/vocos-encodec-24khz, of 1.5, 3, 6 and 12 kbit/s."""

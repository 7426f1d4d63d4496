"""What a generator minimises, each loss with its computation; `LOSSES` lists them, and others can be added.

Adversarial: Lim and Ye 2017, arXiv:1705.02894 (hinge); Mao 2017, arXiv:1611.04076 (least squares). Features: Kumar
2019, arXiv:1910.06711, eq. 3, and Kong 2020, arXiv:2010.05646, eq. 6. Spectra: `fastvoc.audio.metrics`, and Kumar
2023, arXiv:2306.06546, § 3.5, for mels at several scales. Magnitudes, without a wave: Arik 2018, arXiv:1808.06719,
eqs. 3 and 4.

Notes
-----
Whether the recording's feature maps are detached (MelGAN, ParallelWaveGAN) or not (HiFi-GAN, Keras) changes no
update: they do not depend on the generator, and its loss moves nothing but the generator. So they carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio import FULL_BAND, SUB_BAND, MelConfig, mel_l1, multi_resolution_stft, pqmf_analysis
from fastvoc.audio.mels.spectrogram import frame_window, mel_filters
from fastvoc.config import Kinds, config
from fastvoc.models.discriminators import Maps

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig

Resolutions = Annotated[tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...], Field(min_length=1)]

SCALES = ((5, 32), (10, 64), (20, 128), (40, 256), (80, 512), (160, 1024), (320, 2048))
"""Mel bands and window, in samples, of each scale of `MultiScaleMel` (Kumar 2023, table 1)."""

_WHOLE_BAND: dict[str, Any] = {
    "low": 0,
    "high": None,
    "padding": "centre",
    "logarithm": "decimal",
    "root_epsilon": 1e-9,
}


@dataclass(eq=False)
class Example:
    """Recordings and what networks make of them: a batch, or as much of one as is computed at once."""

    wave: Tensor
    """(B, T), in [-1, 1]."""
    mel: Tensor
    """(B, bands, T / hop)."""
    made: dict[str, Tensor] = field(default_factory=dict)
    """What the generator makes of the mel, by name, once it has; its ``wave`` as (B, T)."""
    fake: Tensor | None = None
    """Its wave as discriminators take it, (B, 1, T)."""
    fake_maps: list[Maps] = field(default_factory=list)
    """Feature maps of the generated wave, of each sub-discriminator."""
    real_maps: list[Maps] = field(default_factory=list)
    """Those of the recording, without gradients; empty where they are not known."""
    shares: tuple[float, ...] = ()
    """What the losses of each sub-discriminator are multiplied by across "mean-of-each"."""


@config
class Loss:
    """What all losses have in common; one computes `distance`, or all of what `__call__` does."""

    kind: str
    weight: NonNegativeFloat = 1.0
    """Factor of the term in the sum that is minimised; a loss of 0 is left out."""
    of: str = "wave"
    """The output of the generator that it reads."""

    maps: ClassVar[tuple[str, ...]] = ()
    """Which feature maps of an example it reads, if any: ``("fake",)`` or ``("real", "fake")``."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if a run lacks what the loss needs."""

    def __call__(self, example: Example, run: TrainConfig) -> Tensor:
        """Compute the term, without its weight: a scalar."""
        return self.distance(example.made[self.of], example.wave, run)

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """Compare an output of the generator with recordings (B, T), in single precision at least."""
        raise NotImplementedError


@config
class Magnitude(Loss):
    """Distance of magnitudes from those of a recording: of their logarithms, spectral convergence, and of two mels.

    The mels count double: that of the convention, and one as fine of all frequencies up to half the sample rate. Alone,
    it needs no wave to be made.
    """

    kind: Literal["magnitude"] = "magnitude"
    of: str = "magnitude"

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if magnitudes would be rounded."""
        if run.precision != "float32":
            raise ValueError(
                f"losses.magnitude needs precision float32, not {run.precision}: magnitudes span five decades"
            )

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """(B, fft_size // 2 + 1, T / hop), (B, T) → scalar; T is a multiple of the hop."""
        mel = run.mel
        constants: _Spectra = _spectra(mel, wave.device, wave.dtype)
        side = (mel.fft_size - mel.hop) // 2
        padded = F.pad(wave, (side, side), "reflect")
        spectrum = torch.stft(padded, mel.fft_size, mel.hop, window=constants.window, center=False, return_complex=True)
        target = spectrum.abs()
        # as if no magnitude were smaller than those that `multi_resolution_stft` compares: digital silence has none
        least = 1e-7**0.5 * target.numel() ** 0.5
        convergence = torch.linalg.vector_norm(made - target) / torch.linalg.vector_norm(target).clamp(min=least)
        total: Tensor = convergence + _log_distance(made, target, mel.floor)
        for filters in constants.filters:
            total = total + 2 * _log_distance(filters @ made, filters @ target, mel.floor)
        return total


@config
class Mel(Loss):
    """Distance of log-mels in the convention `loss_mel` of the run."""

    kind: Literal["mel"] = "mel"

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """(B, T), (B, T) → scalar."""
        return mel_l1(made, wave, run.loss_mel or run.mel)


@config
class MultiScaleMel(Loss):
    """Sum over `SCALES` of the distance of decimal log-mels of the whole band, hop a quarter of the window."""

    kind: Literal["multi_scale_mel"] = "multi_scale_mel"

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """(B, T), (B, T) → scalar."""
        return torch.stack([mel_l1(made, wave, scale) for scale in scales(run.mel.sample_rate)]).sum()


@config
class Stft(Loss):
    """Multi-resolution STFT loss: spectral convergence plus log-magnitude distance.

    Notes
    -----
    The convergence is one ratio for the waves of a process: over several processes the mean of their ratios is near
    that of the whole batch, not equal to it.
    """

    kind: Literal["stft"] = "stft"
    resolutions: Resolutions = FULL_BAND
    """FFT size, hop and window of each, in samples."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if segments are too short for a resolution."""
        bands = run.generator.pqmf.bands if self.of == "subbands" else 1  # type: ignore[attr-defined]
        for size, _, window in self.resolutions:
            if window > size:
                raise ValueError(f"losses.{self.kind}: a window of {window} samples is longer than its FFT of {size}")
            if run.segment // bands <= size // 2:  # both ends are reflected
                raise ValueError(
                    f"losses.{self.kind}: an FFT of {size} samples needs a segment of more than {size // 2 * bands}, "
                    f"not {run.segment}; set segment or resolutions"
                )

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """(B, T) or (B, bands, T), the same → scalar."""
        convergence, log_magnitude = multi_resolution_stft(made, wave, self.resolutions)
        return convergence + log_magnitude


@config
class SubbandStft(Stft):
    """The same of the sub-bands before the filter bank `pqmf` of the generator joins them."""

    kind: Literal["subband_stft"] = "subband_stft"  # type: ignore[assignment]
    of: str = "subbands"
    resolutions: Resolutions = SUB_BAND
    """FFT size, hop and window of each, in samples of a band."""

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        """(B, bands, T / bands), (B, T) → scalar."""
        return super().distance(made, pqmf_analysis(wave, run.generator.pqmf), run)  # type: ignore[attr-defined]


@config
class Adversarial(Loss):
    """To be taken for a recording, as `adversary.objective` says.

    ``-D(G)`` (hinge), ``relu(1 - D(G))`` (hinge-both) or ``(1 - D(G))²`` (least-squares).
    """

    kind: Literal["adversarial"] = "adversarial"
    maps: ClassVar[tuple[str, ...]] = ("fake",)

    def __call__(self, example: Example, run: TrainConfig) -> Tensor:
        """Read the scores of the generated wave."""
        assert run.adversary is not None
        scores = [maps[-1] for maps in example.fake_maps]
        objective = _OBJECTIVES[run.adversary.objective]
        return combine([mean(objective(y)) for y in scores], run.adversary.across, example.shares)


_OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda score: -score,
    "hinge-both": lambda score: F.relu(1 - score),
    "least-squares": lambda score: (1 - score).square(),
}
"""What a generator minimises of a score."""


@config
class Features(Loss):
    """Mean absolute difference of the discriminators' feature maps.

    `adversary.features_score` says whether the score is one of them, and `adversary.features_scale` how they are
    joined: ``"sum"`` of the means of all maps (HiFi-GAN), their ``"mean"`` (Keras, ParallelWaveGAN), or ``"descript"``:
    ``4 / (n + 1) / discriminators`` times the sum, where ``n`` strided layers make ``n + 3`` maps.
    """

    kind: Literal["features"] = "features"
    maps: ClassVar[tuple[str, ...]] = ("real", "fake")

    def __call__(self, example: Example, run: TrainConfig) -> Tensor:
        """Read the maps of the recording and of the generated wave."""
        assert run.adversary is not None
        scale, score = run.adversary.features_scale, run.adversary.features_score
        losses, shares = [], []
        for place, (real, fake) in enumerate(zip(example.real_maps, example.fake_maps, strict=True)):
            count = len(fake) if score else len(fake) - 1
            factor = 4 / (len(fake) - 2) / len(example.fake_maps) if scale == "descript" else 1.0
            pairs = zip(real[:count], fake[:count], strict=True)
            losses += [factor * mean((x.detach() - y).abs()) for x, y in pairs]
            shares += list(example.shares[place : place + 1]) * count
        across = run.adversary.across if run.adversary.across == "mean-of-each" else "sum"
        return combine(losses, "mean" if scale == "mean" else across, shares)


LOSSES = Kinds("loss")
for _loss in (Magnitude, Mel, MultiScaleMel, Stft, SubbandStft, Adversarial, Features):
    LOSSES.add(_loss)


def mean(x: Tensor) -> Tensor:
    """Average in single precision at least, without a copy of a map in half precision."""
    return x.mean(dtype=torch.promote_types(x.dtype, torch.float32))


def combine(
    losses: Sequence[Tensor], across: Literal["sum", "mean", "mean-of-each"], shares: Sequence[float] = ()
) -> Tensor:
    """Add or average the losses of sub-discriminators or of their maps; across "mean-of-each" each has its share."""
    if across == "mean-of-each":
        return torch.stack([share * loss for share, loss in zip(shares, losses, strict=True)]).sum()
    reduce: Callable[[Tensor], Tensor] = torch.sum if across == "sum" else torch.mean
    return reduce(torch.stack(list(losses)))


@lru_cache(maxsize=8)
def scales(sample_rate: int) -> tuple[MelConfig, ...]:
    """Return the conventions of `SCALES` at a sample rate in Hz."""
    return tuple(
        MelConfig(
            sample_rate=sample_rate, fft_size=window, hop=window // 4, window_size=window, bands=bands, **_WHOLE_BAND
        )
        for bands, window in SCALES
    )


def _log_distance(x: Tensor, y: Tensor, floor: float) -> Tensor:
    return (x.clamp(min=floor).log() - y.clamp(min=floor).log()).abs().mean()


class _Spectra(NamedTuple):
    window: Tensor  # (fft_size,)
    filters: tuple[Tensor, Tensor]  # (bands, fft_size // 2 + 1), of the mel and of all frequencies


@lru_cache(maxsize=8)
def _spectra(mel: MelConfig, device: torch.device, dtype: torch.dtype) -> _Spectra:
    shown, whole = (
        torch.from_numpy(mel_filters(bank)).to(device, dtype) for bank in (mel, replace(mel, low=0, high=None))
    )
    return _Spectra(frame_window(mel, device, dtype), (shown, whole))

"""Losses by hand: their values on small tensors, and what the originals compare and what they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.audio import CONVENTIONS, SUB_BAND, mel_l1
from fastvoc.config import from_dict
from fastvoc.models.discriminators import Maps
from fastvoc.train.config import load_config
from fastvoc.train.tasks import losses
from fastvoc.train.tasks.adversary import Adversary, AdversaryConfig
from fastvoc.train.tasks.losses import Adversarial, Example, Features, Magnitude, MultiScaleMel, Stft

RUN = load_config("hifigan-v1", {"data.recordings": "x"})


def adversary_of(**settings: Any) -> AdversaryConfig:
    values = {"discriminators": [{"kind": "period"}], "optimiser": {"kind": "adam", "learning_rate": 1}}
    return from_dict(AdversaryConfig, values | {"objective": "least-squares"} | settings, "a test")


def discriminator_loss(real: list[Tensor], fake: list[Tensor], **settings: Any) -> Tensor:
    """What discriminators minimise that give these scores."""
    adversary = Adversary.__new__(Adversary)
    adversary.config = adversary_of(**settings)
    adversary.network = lambda waves: [[torch.cat(pair)] for pair in zip(real, fake, strict=True)]
    return adversary.loss(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))[0]


def adversarial_loss(fake: list[Tensor], **settings: Any) -> Tensor:
    example = Example(torch.zeros(1, 1), torch.zeros(1, 1, 1), fake_maps=[[score] for score in fake])
    return Adversarial()(example, replace(RUN, adversary=adversary_of(**settings)))


def feature_matching(real: list[Maps], fake: list[Maps], *, score: bool, scale: str) -> Tensor:
    example = Example(torch.zeros(1, 1), torch.zeros(1, 1, 1), real_maps=real, fake_maps=fake)
    run = replace(RUN, adversary=adversary_of(features_score=score, features_scale=scale))
    return Features()(example, run)


def stft(x: Tensor, y: Tensor, **settings: Any) -> Tensor:
    return Stft(**settings).distance(x, y, RUN)


def multi_scale_mel(x: Tensor, y: Tensor) -> Tensor:
    return MultiScaleMel().distance(x, y, RUN)


def scores(*values: float) -> list[Tensor]:
    return [torch.tensor([[value]], dtype=torch.float64) for value in values]


def test_hinge_is_flat_beyond_its_margin() -> None:
    loss = discriminator_loss(scores(2, 0.5), scores(-3, 0.25), objective="hinge", across="sum")
    assert loss.item() == pytest.approx((0 + 0) + (0.5 + 1.25))
    assert adversarial_loss(scores(-3, 0.25), objective="hinge", across="sum").item() == pytest.approx(2.75)


def test_least_squares_pull_recordings_to_one_and_fakes_to_zero() -> None:
    real, fake = scores(2, 0.5), scores(-3, 0.25)
    total = (1 + 9) + (0.25 + 0.0625)
    assert discriminator_loss(real, fake, objective="least-squares", across="sum").item() == pytest.approx(total)
    mean = discriminator_loss(real, fake, objective="least-squares", across="mean")
    assert mean.item() == pytest.approx(total / 2)
    judged = adversarial_loss(fake, objective="least-squares", across="mean")
    assert judged.item() == pytest.approx((16 + 0.5625) / 2)


def test_a_discriminator_that_says_one_half_of_everything() -> None:
    """The fixed point of least squares is 0.5 and 0.25, of the hinge at zero 2: losses do not tell how it sounds."""
    half = scores(0.5)
    assert discriminator_loss(half, half, objective="least-squares", across="sum").item() == 0.5
    assert adversarial_loss(half, objective="least-squares", across="sum").item() == 0.25
    assert discriminator_loss(scores(0), scores(0), objective="hinge", across="sum").item() == 2


def maps_of(count: int, offset: float) -> list[list[Tensor]]:
    """Two sub-discriminators of `count` maps of different sizes; map j differs by (j + 1)·offset, the score by 100."""
    return [
        [torch.full((1, 3, 5 + j), (j + 1) * offset, dtype=torch.float64) for j in range(count - 1)]
        + [torch.full((1, 1, 4), 100 * offset, dtype=torch.float64)]
        for _ in range(2)
    ]


def test_trap_hifigan_compares_the_scores_and_melgan_does_not() -> None:
    real, fake = maps_of(7, 0.0), maps_of(7, 1.0)
    six = 1 + 2 + 3 + 4 + 5 + 6
    assert feature_matching(real, fake, score=True, scale="sum").item() == pytest.approx(2 * (six + 100))
    assert feature_matching(real, fake, score=False, scale="sum").item() == pytest.approx(2 * six)
    assert feature_matching(real, fake, score=False, scale="mean").item() == pytest.approx(six / 6)


def test_descript_weighs_its_maps_by_four_fifths_of_a_discriminator() -> None:
    """Seven maps come from four strided layers: 4 / (4 + 1), divided by the number of discriminators."""
    loss = feature_matching(maps_of(7, 0.0), maps_of(7, 1.0), score=False, scale="descript")
    assert loss.item() == pytest.approx(2 * 21 * 4 / 5 / 2)


def test_features_teach_the_generator_and_not_the_maps_of_recordings() -> None:
    real = [[torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 1, 3)]]
    fake = [[torch.ones(1, 2, 3, requires_grad=True), torch.zeros(1, 1, 3)]]
    feature_matching(real, fake, score=True, scale="sum").backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None
    assert fake[0][0].grad.sum().item() == pytest.approx(1)


def test_maps_in_half_precision_are_averaged_in_single() -> None:
    """A mean of 2¹⁶ equal values of bfloat16, accumulated in it, would stop growing."""
    real, fake = ([[torch.full((1, 1, 1 << 16), value, dtype=torch.bfloat16)]] for value in (0.0, 1.0078125))
    loss = feature_matching(real, fake, score=True, scale="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == 1.0078125


def waves(length: int = 4096) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 2, length, generator=generator, dtype=torch.float64) - 0.5
    return noise[0], noise[1]


@pytest.mark.parametrize("name", ["stft", "multi_scale_mel"])
def test_spectral_losses_are_zero_for_equal_waves_and_have_gradients(name: str) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return stft(x, y) if name == "stft" else multi_scale_mel(x, y)

    x, y = waves()
    assert loss(x, x).item() == 0
    x.requires_grad_()
    value = loss(x, y)
    value.backward()
    assert value.item() > 0.1
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert x.grad.norm() > 0


SPECTRAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stft": stft,
    "subband_stft": partial(stft, resolutions=SUB_BAND),
    "multi_scale_mel": multi_scale_mel,
    **{f"mel of {name}": partial(mel_l1, config=config) for name, config in CONVENTIONS.items()},
    "magnitude": lambda x, y: Magnitude().distance(x[:, None, :16].expand(-1, 513, -1), y, RUN),
}


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("made", ["noise", "silence", "half"])
@pytest.mark.parametrize("recorded", ["noise", "silence", "half"])
def test_spectral_losses_of_digital_silence_are_finite_and_have_finite_gradients(
    name: str, made: str, recorded: str
) -> None:
    noise = waves()[0].float()
    kinds = {"noise": noise, "silence": torch.zeros_like(noise), "half": noise * torch.tensor([[0.0], [1.0]])}
    x = kinds[made].abs().requires_grad_()
    loss = SPECTRAL[name](x, kinds[recorded])
    loss.backward()
    assert bool(loss.isfinite())
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_a_tenth_of_the_amplitude_is_a_decade_at_each_scale() -> None:
    """Far above the floor every decimal log-mel moves by exactly one, at seven scales."""
    x, _ = waves()
    assert multi_scale_mel(100 * x, 10 * x).item() == pytest.approx(7, rel=1e-6)


def test_the_scales_are_those_of_the_paper() -> None:
    assert [bands for bands, _ in losses.SCALES] == [5, 10, 20, 40, 80, 160, 320]
    assert [window for _, window in losses.SCALES] == [32, 64, 128, 256, 512, 1024, 2048]
    configs = losses.scales(22050)
    assert all(config.hop == config.window_size // 4 and config.highest == 11025 for config in configs)
    x, y = waves()
    parts = sum(mel_l1(x, y, config).item() for config in configs)
    assert math.isclose(multi_scale_mel(x, y).item(), parts, rel_tol=1e-12)

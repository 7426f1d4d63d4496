"""Losses by hand: their values on small tensors, and what the originals compare and what they leave out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastvoc.audio import FULL_BAND, mel_l1
from fastvoc.train import losses


def scores(*values: float) -> list[Tensor]:
    return [torch.tensor([[value]], dtype=torch.float64) for value in values]


def test_hinge_is_flat_beyond_its_margin() -> None:
    loss = losses.discriminator_loss(scores(2, 0.5), scores(-3, 0.25), objective="hinge", across="sum")
    assert loss.item() == pytest.approx((0 + 0) + (0.5 + 1.25))
    assert losses.adversarial_loss(scores(-3, 0.25), objective="hinge", across="sum").item() == pytest.approx(2.75)


def test_least_squares_pull_recordings_to_one_and_fakes_to_zero() -> None:
    real, fake = scores(2, 0.5), scores(-3, 0.25)
    total = (1 + 9) + (0.25 + 0.0625)
    assert losses.discriminator_loss(real, fake, objective="least-squares", across="sum").item() == pytest.approx(total)
    mean = losses.discriminator_loss(real, fake, objective="least-squares", across="mean")
    assert mean.item() == pytest.approx(total / 2)
    judged = losses.adversarial_loss(fake, objective="least-squares", across="mean")
    assert judged.item() == pytest.approx((16 + 0.5625) / 2)


def test_a_discriminator_that_says_one_half_of_everything() -> None:
    """The fixed point of least squares is 0.5 and 0.25, of the hinge at zero 2: losses do not tell how it sounds."""
    half = scores(0.5)
    assert losses.discriminator_loss(half, half, objective="least-squares", across="sum").item() == 0.5
    assert losses.adversarial_loss(half, objective="least-squares", across="sum").item() == 0.25
    assert losses.discriminator_loss(scores(0), scores(0), objective="hinge", across="sum").item() == 2


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
    assert losses.feature_matching(real, fake, score=True, scale="sum").item() == pytest.approx(2 * (six + 100))
    assert losses.feature_matching(real, fake, score=False, scale="sum").item() == pytest.approx(2 * six)
    assert losses.feature_matching(real, fake, score=False, scale="mean").item() == pytest.approx(six / 6)


def test_descript_weighs_its_maps_by_four_fifths_of_a_discriminator() -> None:
    """Seven maps come from four strided layers: 4 / (4 + 1), divided by the number of discriminators."""
    loss = losses.feature_matching(maps_of(7, 0.0), maps_of(7, 1.0), score=False, scale="descript")
    assert loss.item() == pytest.approx(2 * 21 * 4 / 5 / 2)


def test_features_teach_the_generator_and_not_the_maps_of_recordings() -> None:
    real = [[torch.zeros(1, 2, 3, requires_grad=True), torch.zeros(1, 1, 3)]]
    fake = [[torch.ones(1, 2, 3, requires_grad=True), torch.zeros(1, 1, 3)]]
    losses.feature_matching(real, fake, score=True, scale="sum").backward()
    assert real[0][0].grad is None
    assert fake[0][0].grad is not None
    assert fake[0][0].grad.sum().item() == pytest.approx(1)


def test_maps_in_half_precision_are_averaged_in_single() -> None:
    """A mean of 2¹⁶ equal values of bfloat16, accumulated in it, would stop growing."""
    real, fake = ([[torch.full((1, 1, 1 << 16), value, dtype=torch.bfloat16)]] for value in (0.0, 1.0078125))
    loss = losses.feature_matching(real, fake, score=True, scale="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == 1.0078125


def waves(length: int = 4096) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 2, length, generator=generator, dtype=torch.float64) - 0.5
    return noise[0], noise[1]


@pytest.mark.parametrize("name", ["stft", "multi_scale_mel"])
def test_spectral_losses_are_zero_for_equal_waves_and_have_gradients(name: str) -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        if name == "stft":
            return losses.stft(x, y, FULL_BAND)
        return losses.multi_scale_mel(x, y, sample_rate=22050)

    x, y = waves()
    assert loss(x, x).item() == 0
    x.requires_grad_()
    value = loss(x, y)
    value.backward()
    assert value.item() > 0.1
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert x.grad.norm() > 0


def test_spectral_losses_of_silence_have_finite_gradients() -> None:
    _, y = waves()
    x = torch.zeros_like(y, requires_grad=True)
    (losses.stft(x, y, FULL_BAND) + losses.multi_scale_mel(x, y, sample_rate=22050)).backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_a_tenth_of_the_amplitude_is_a_decade_at_each_scale() -> None:
    """Far above the floor every decimal log-mel moves by exactly one, at seven scales."""
    x, _ = waves()
    assert losses.multi_scale_mel(100 * x, 10 * x, sample_rate=22050).item() == pytest.approx(7, rel=1e-6)


def test_the_scales_are_those_of_the_paper() -> None:
    assert [bands for bands, _ in losses.SCALES] == [5, 10, 20, 40, 80, 160, 320]
    assert [window for _, window in losses.SCALES] == [32, 64, 128, 256, 512, 1024, 2048]
    configs = losses._scales(22050)
    assert all(config.hop == config.window_size // 4 and config.highest == 11025 for config in configs)
    x, y = waves()
    parts = sum(mel_l1(x, y, config).item() for config in configs)
    assert math.isclose(losses.multi_scale_mel(x, y, sample_rate=22050).item(), parts, rel_tol=1e-12)

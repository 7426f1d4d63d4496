"""Discriminators against the scores that their original code computed from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import (
    NUMBERED_WAVE,
    WAVE,
    descript_discriminator,
    dress,
    dressed_shapes,
    keras_values,
    named_values,
    numbered_values,
    period_discriminator,
    samples,
    scale_discriminator,
)
from torch import Tensor, nn

from fastvoc.models.discriminators import (
    MelGANDiscriminatorConfig,
    PeriodDiscriminatorConfig,
    ResolutionDiscriminatorConfig,
    ScaleDiscriminatorConfig,
)

PRINTED = 6e-7
"""Half of the last of the six printed decimals, and what float64 adds."""


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def scores(network: nn.Module, wave: Tensor) -> list[Tensor]:
    return [maps[-1] for maps in network(wave)]


def matches(score: Tensor, mean: float, deviation: float, first: list[float]) -> None:
    found = [float(score.mean()), float(score.std(correction=0)), *score.flatten()[: len(first)].tolist()]
    assert found == pytest.approx([mean, deviation, *first], rel=0, abs=PRINTED)


def test_melgan_discriminator_makes_the_original_scores() -> None:
    found = scores(dress(MelGANDiscriminatorConfig().build(), descript_discriminator(), named_values), WAVE)
    assert [score.shape for score in found] == [(1, 1, 16), (1, 1, 8), (1, 1, 4)]
    matches(found[0], -0.436993, 0.102049, [-0.174338, -0.322586, -0.342395])
    matches(found[2], 0.093359, 0.019187, [0.106094, 0.077535, 0.117874, 0.071934])


def test_period_discriminator_makes_the_original_scores() -> None:
    # the original's first and last alone: the names that its weights are drawn from do not change
    table = [(theirs.replace("discriminators.1", "discriminators.4"), ours) for theirs, ours in period_discriminator(2)]
    found = scores(dress(PeriodDiscriminatorConfig(periods=(2, 11)).build(), table, named_values), WAVE)
    assert found[0].numel() == 50 and found[1].numel() == 55
    matches(found[0], -0.029729, 0.084558, [0.028474, 0.042579, 0.039549])
    matches(found[1], 0.061213, 0.084332, [0.090716, 0.054914, 0.048425])


def test_scale_discriminator_makes_the_original_scores() -> None:
    found = scores(dress(ScaleDiscriminatorConfig().build(), scale_discriminator(), named_values), WAVE)
    matches(found[2], 0.149971, 0.024562, [0.192873, 0.203401, 0.166285])


# fmt: off
NUMBERED = {
    "MelGAN": (MelGANDiscriminatorConfig, descript_discriminator, {
        0: (32, [-0.00573115958, -0.03181034, -0.0181612678, -0.0095693706, 0.018025016]),
        1: (16, [-0.0464712879, -0.0269978258, -0.0420536005, -0.0453788951, -0.0721624933]),
        2: (8, [-0.100629555, -0.104488606, -0.103577916, -0.0763674859, -0.0763674859])}),
    "MPD": (PeriodDiscriminatorConfig, period_discriminator, {
        0: (102, [-0.0339073668, -0.0510685533]),
        1: (102, [-0.00132131012, -0.00341739289]),
        2: (105, [0.0262927899, 0.0239857555]),
        3: (105, [-0.0747799589, -0.0590113351]),
        4: (110, [0.0594108426, 0.0683524945])}),
    "MSD": (ScaleDiscriminatorConfig, scale_discriminator, {
        1: (65, [0.0402145785, 0.0839834929, 0.0473445131, 0.044700661, 0.0368287441]),
        2: (33, [-0.0734478426, -0.0549457027, -0.0679247271, -0.0647624339, -0.113906343])}),
}
"""Per score its length; its mean, and the samples 0, 1, 7 and -1, or the first alone."""
# fmt: on


@pytest.mark.parametrize("name", NUMBERED)
def test_numbered_weights_make_the_reference_scores(name: str) -> None:
    make, table, expected = NUMBERED[name]
    found = scores(dress(make().build(), table(), numbered_values), NUMBERED_WAVE)
    for index, (length, values) in expected.items():
        score = found[index]
        assert score.numel() == length
        listed = [float(score.mean()), *samples(score, (0, 1, 7, -1))][: len(values)]
        assert listed == pytest.approx(values, rel=0, abs=1e-8)


def test_keras_discriminator_makes_the_reference_scores_in_float32() -> None:
    network = MelGANDiscriminatorConfig(keras=True, slope=0.3).build()
    # Keras lists the layers of the three scales in turns
    convs = [scale.convs[depth] for depth in range(7) for scale in network.scales]
    for layer, conv in enumerate(convs):
        weight = conv.parametrizations.weight
        kernel, magnitude, bias = keras_values(tuple(weight.original1.shape), layer)
        weight.original0.copy_(magnitude.view_as(weight.original0))
        weight.original1.copy_(kernel)
        conv.bias.copy_(bias)
    found = [[float(s.mean()), *samples(s, (0, -1))] for s in scores(network, NUMBERED_WAVE.float())]
    assert found[0] == pytest.approx([-0.08417499, -0.09825198, -0.117999], rel=1e-4)
    assert found[1] == pytest.approx([0.004855758, 0.04205178, 0.02155743], rel=1e-4)
    assert found[2] == pytest.approx([0.0342017, 0.05196893, 0.06388004], rel=1e-4)


@pytest.mark.parametrize("resolution", [(1024, 120, 600), (512, 50, 240), (64, 16, 64)], ids=str)
def test_resolution_discriminator_sees_the_original_spectrum(resolution: tuple[int, int, int]) -> None:
    """maum-ai/univnet 9bb2b54, model/mrd.py, in NumPy: mirrored so that a frame begins every hop, and a rectangle."""
    fft_size, hop, window_size = resolution
    network = ResolutionDiscriminatorConfig(resolutions=[resolution], channels=1).build()
    heard: list[Tensor] = []
    network.networks[0].convs[0].register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
    wave = 0.5 * torch.rand(2, 1, 9 * hop * 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.25
    network.double()(wave)
    side = (fft_size - hop) // 2
    padded = np.pad(wave[:, 0].numpy(), ((0, 0), (side, side)), "reflect")
    rectangle = np.zeros(fft_size)
    left = (fft_size - window_size) // 2
    rectangle[left : left + window_size] = 1
    frames = np.stack([padded[:, start : start + fft_size] * rectangle for start in range(0, wave.shape[-1], hop)], -1)
    expected = np.abs(np.fft.rfft(frames, axis=1))
    assert heard[0].shape == (2, 1, fft_size // 2 + 1, wave.shape[-1] // hop)
    np.testing.assert_allclose(heard[0][:, 0].numpy(), expected, rtol=0, atol=1e-9)


def test_lengths_of_maps_and_scores() -> None:
    wave = torch.zeros(1, 1, 8192)
    for network in (MelGANDiscriminatorConfig().build(), MelGANDiscriminatorConfig(keras=True).build()):
        maps = network(wave)
        assert [m.shape[-1] for m in maps[0]] == [8192, 2048, 512, 128, 32, 32, 32]
        assert [m[-1].shape[-1] for m in maps] == [32, 16, 8]
    assert [score.numel() for score in scores(ScaleDiscriminatorConfig(channels=16).build(), wave)] == [128, 65, 33]
    assert [score.numel() for score in scores(PeriodDiscriminatorConfig(channels=2).build(), wave)] == [
        102,
        102,
        105,
        105,
        110,
    ]


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        descript, period, scale = (
            MelGANDiscriminatorConfig().build(),
            PeriodDiscriminatorConfig().build(),
            ScaleDiscriminatorConfig().build(),
        )
        parallel_wavegan = MelGANDiscriminatorConfig(downsampling=(4, 4, 4), largest=512).build()
    assert parameters(descript) == 16_924_086
    assert [parameters(one) for one in descript.scales] == [5_641_362] * 3
    assert parameters(parallel_wavegan) == 4_354_998
    assert parameters(period) == 41_105_770
    assert [parameters(one) for one in period.networks] == [8_221_154] * 5
    assert [parameters(one) for one in scale.scales] == [9_870_209, 9_874_306, 9_874_306]
    assert parameters(period) + parameters(scale) == 70_724_591
    magnitudes = sum(p.numel() for name, p in descript.named_parameters() if name.endswith("original0"))
    assert parameters(descript) - magnitudes == 16_913_859


def test_number_of_parameters_as_keras_counts_them() -> None:
    """Keras adds a flag to each layer under weight norm."""
    with torch.device("meta"):
        network = MelGANDiscriminatorConfig(keras=True, slope=0.3).build()
    layers = sum(len(scale.convs) for scale in network.scales)
    assert parameters(network) + layers == 16_924_107


def test_trap_weight_v_of_spectral_norm_is_a_vector_not_a_direction() -> None:
    network = ScaleDiscriminatorConfig(channels=16).build().double().eval()
    table = scale_discriminator()
    shapes = dressed_shapes(network, table)
    assert shapes["discriminators.0.convs.1.weight_v"] == (4 * 41,)
    assert shapes["discriminators.1.convs.1.weight_v"] == (16, 4, 41)

    values = numbered_values(shapes)
    dress(network, table, numbered_values)
    original, u, v = (values[f"discriminators.0.convs.1.weight_{ending}"] for ending in ("orig", "u", "v"))
    expected = original / (u @ original.flatten(1) @ v)
    torch.testing.assert_close(network.scales[0].convs[1].weight, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (MelGANDiscriminatorConfig(scales=2, channels=4).build(), [1, 1, 1, 1]),
        (ScaleDiscriminatorConfig(scales=2, channels=16).build(), [0.5, 1, 1, 1, 0.5]),
        (MelGANDiscriminatorConfig(scales=2, channels=4, keras=True).build(), [1, 1, 1, 1]),
    ],
    ids=["MelGAN excludes the padding", "HiFi-GAN counts it", "Keras has none"],
)
def test_trap_pooling_between_scales(network: nn.Module, expected: list[float]) -> None:
    heard: list[Tensor] = []

    def stop(module: nn.Module, inputs: tuple[Tensor]) -> None:
        heard.append(inputs[0])

    network.scales[1].register_forward_pre_hook(stop)
    ones = torch.ones(1, 1, 512)
    network(ones)
    ends = torch.cat([heard[0][0, 0, :2], heard[0][0, 0, -2:]])
    assert ends.tolist() == [*expected[:2], *expected[-2:]]
    assert heard[0].shape[-1] == 256 + (len(expected) == 5)


def test_trap_pooling_of_keras_takes_two_and_of_the_original_four() -> None:
    ramp = torch.arange(512.0).view(1, 1, 512)
    heard: list[Tensor] = []
    for keras in (True, False):
        network = MelGANDiscriminatorConfig(scales=2, channels=4, keras=keras).build()
        network.scales[1].register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
        network(ramp)
    assert heard[0][0, 0, :2].tolist() == [0.5, 2.5]
    assert heard[1][0, 0, :2].tolist() == [1.0, 2.5]  # the mean of 0, 1, 2, then of 1 … 4


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

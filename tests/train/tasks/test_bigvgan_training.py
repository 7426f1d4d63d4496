"""BigVGAN's discriminators, losses and recipes against the numbers of the original."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import NUMBERED_WAVE, hashed, samples
from torch import Tensor, nn

from fastvoc.models import bigvgan
from fastvoc.models.discriminators import ConstantQDiscriminatorConfig, ResolutionDiscriminatorConfig
from fastvoc.models.discriminators.constant_q import _half_band, doubled_rate
from fastvoc.train.config import load_config
from fastvoc.train.tasks.losses import MultiScaleMel

OTHER_WAVE = 0.5 * hashed(8192, 997).reshape(1, 1, 8192)
RESOLUTIONS = ResolutionDiscriminatorConfig(
    resolutions=((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)), slope=0.1
)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def fill(network: nn.Module, names: dict[str, str]) -> nn.Module:
    """Draw every parameter from its place among the sorted names of the original; `names` is theirs to ours."""
    network = network.double().eval()
    parameters = dict(network.named_parameters())
    assert sorted(names.values()) == sorted(parameters)
    for place, theirs in enumerate(sorted(names)):
        target = parameters[names[theirs]]
        noise = hashed(target.numel(), place).reshape(target.shape)
        if theirs.endswith("weight_g"):
            noise = 0.75 + 0.25 * noise
        elif theirs.endswith("bias"):
            noise = 0.1 * noise
        elif theirs.endswith(".weight"):
            noise = noise * np.sqrt(3 / np.prod(target.shape[1:]))
        target.copy_(noise)
    return network


def spelled(theirs: str, ours: str, *, normed: bool) -> dict[str, str]:
    endings = {"bias": "bias", "weight": "weight"}
    if normed:
        endings = {"bias": "bias"} | {
            f"weight_{old}": f"parametrizations.weight.original{n}" for n, old in enumerate("gv")
        }
    return {f"{theirs}.{old}": f"{ours}.{new}" for old, new in endings.items()}


def resolution_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for network in range(3):
        for layer in range(6):
            theirs = f"discriminators.{network}." + (f"convs.{layer}" if layer < 5 else "conv_post")
            names |= spelled(theirs, f"networks.{network}.convs.{layer}", normed=True)
    return names


def constant_q_names() -> dict[str, str]:
    names: dict[str, str] = {}
    for network in range(3):
        for octave in range(9):
            theirs, ours = f"discriminators.{network}.conv_pres.{octave}", f"networks.{network}.octaves.{octave}"
            names |= spelled(theirs, ours, normed=False)
        for layer in range(6):
            theirs = f"discriminators.{network}." + (f"convs.{layer}" if layer < 5 else "conv_post")
            names |= spelled(theirs, f"networks.{network}.convs.{layer}", normed=layer > 0)
    return names


def listed(y: Tensor) -> list[float]:
    return [float(y.mean()), *samples(y, (0, 1, 7, 100, -1))]


def test_resolution_discriminator_makes_the_original_scores_and_losses() -> None:
    network = fill(RESOLUTIONS.build(), resolution_names())
    assert sum(parameter.numel() for parameter in network.parameters()) == 280_902
    real, fake = network(NUMBERED_WAVE), network(OTHER_WAVE)
    expected = [0.0239225426, -0.0213885206, 0.0160032727, -0.0515453288, 0.183007097, -0.0620326831]
    assert real[0][-1].numel() == 4617
    assert listed(real[0][-1]) == pytest.approx(expected, rel=0, abs=1e-8)
    features = 2 * sum((x - y).abs().mean() for a, b in zip(real, fake, strict=True) for x, y in zip(a, b, strict=True))
    scores = [(a[-1], b[-1]) for a, b in zip(real, fake, strict=True)]
    of_discriminators = sum((1 - x).square().mean() + y.square().mean() for x, y in scores)
    of_generator = sum((1 - b[-1]).square().mean() for b in fake)
    found = [float(features), float(of_discriminators), float(of_generator)]
    assert found == pytest.approx([18.42462816, 2.940884908, 2.88769159], rel=1e-8)


def test_constant_q_discriminator_makes_the_original_transform_and_scores() -> None:
    """The originals' filters are float32, which nine octaves of filters before them carry to 1e-7."""
    network = fill(ConstantQDiscriminatorConfig(channels=8).build(), constant_q_names())
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_984
    wave = doubled_rate(NUMBERED_WAVE)
    expected = [0.00261636426, 0.323870448, 0.283125068, -0.294293152, -0.317597033, -0.119908426]
    assert wave.shape == (1, 1, 16384)
    assert listed(wave) == pytest.approx(expected, rel=0, abs=1e-8)
    spectrum = network.networks[0].transform(wave).permute(0, 3, 2, 1)
    expected = [-0.00224365709, -0.15012733, -0.399868932, -0.46127896, -0.232324358, 0.00278596464]
    assert spectrum.shape == (1, 216, 33, 2)
    assert listed(spectrum) == pytest.approx(expected, rel=0, abs=1e-6)
    scores = [maps[-1] for maps in network(NUMBERED_WAVE)]
    assert [score.shape[2:] for score in scores] == [(33, 27), (65, 41), (65, 54)]
    for score, expected in zip(
        scores,
        (
            [-0.0144578334, -0.0179019746, -0.00892405972, -0.00825751371, -0.0104916805, -0.0280385329],
            [0.0208636771, -0.0324788778, -0.0124150609, -0.00513413729, -0.0140642728, -0.0207563818],
            [-0.067595527, -0.0658791287, -0.0962363547, -0.0971391971, -0.0747455095, 0.0287526473],
        ),
        strict=True,
    ):
        assert listed(score) == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize(("channels", "count"), [(128, 4_454_304), (32, 286_368)])
def test_constant_q_discriminator_has_the_original_size(channels: int, count: int) -> None:
    network = ConstantQDiscriminatorConfig(channels=channels).build()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert all("transform" not in name for name in network.state_dict())  # filters are made, not saved


def test_the_half_band_filter_is_the_original_one() -> None:
    expected = [-1.1111024e-4, -0.0072824028, 0.15000066, 0.45014173]
    assert _half_band()[[0, 100, 126, 127]].tolist() == pytest.approx(expected, rel=0, abs=1e-8)


def test_constant_q_discriminator_hears_in_single_precision_under_autocast() -> None:
    network = ConstantQDiscriminatorConfig(channels=4).build()
    wave = NUMBERED_WAVE.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = network(wave)
    assert narrow[0][-1].dtype == torch.bfloat16
    exact = network(wave)[0][-1]
    assert float((narrow[0][-1].float() - exact).abs().max()) < 0.02 * float(exact.abs().max())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hops": (512, 256)}, "2 hops need as many bins per octave"),
        ({"hops": (512, 256, 128)}, "hop 128 cannot be halved 8 times"),
        ({"sample_rate": 16000}, "9 octaves end at 16742 Hz, beyond the sample rate 16000"),
    ],
)
def test_constant_q_settings_that_do_not_fit_are_told(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConstantQDiscriminatorConfig(**changes)


@pytest.mark.parametrize(("rate", "expected"), [(24000, 1.346068487), (22050, 1.341775003), (44100, 1.445678088)])
def test_multi_scale_mel_is_the_original_one(rate: int, expected: float) -> None:
    run = load_config("hifigan-v1", {"data.recordings": "x", "mel.sample_rate": rate, "loss_mel": None})
    loss = MultiScaleMel().distance(OTHER_WAVE[0], NUMBERED_WAVE[0], run)
    assert float(loss) == pytest.approx(expected, rel=0, abs=1e-6)  # the original's filters are float32


def test_recipes_are_the_original_settings() -> None:
    first = load_config("bigvgan-v1", {"data.recordings": "x"})
    assert first.generator == bigvgan.LARGE_24K
    assert first.losses["mel"].weight == 45 and first.adversary.discriminators[1] == RESOLUTIONS
    second = load_config("bigvgan-v2", {"data.recordings": "x"})
    assert second.generator == bigvgan.V2_24K
    assert second.losses["multi_scale_mel"].weight == 15
    assert second.adversary.discriminators[1] == ConstantQDiscriminatorConfig(channels=32)
    for run in (first, second):
        for optimiser in (run.optimiser, run.adversary.optimiser):
            assert (optimiser.learning_rate, optimiser.betas) == (1e-4, (0.8, 0.99))
            assert optimiser.schedule.decay == 0.9999996 and optimiser.schedule.per == "update"
    with pytest.raises(ValueError, match=r"discriminators\.1: the constant-q discriminator is of 24000 Hz and mel of"):
        load_config("bigvgan-v2", {"data.recordings": "x", "mel.sample_rate": 44100})

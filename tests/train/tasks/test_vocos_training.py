"""What Vocos is trained with: its discriminator of bands, its losses, and what a run refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import dress, hashed, numbered_values
from torch import Tensor

from fastvoc.models.discriminators import BandDiscriminatorConfig, PeriodDiscriminatorConfig
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.tasks.adversary import Adversary, Discriminators
from fastvoc.train.tasks.gan import GanTask
from fastvoc.train.tasks.losses import Example

PRINTED = 1e-8
WAVES = [0.5 * hashed(8192, seed).reshape(1, 1, 8192) for seed in (998, 997)]


def original(sizes: int = 3, bands: int = 5) -> list[tuple[str, str]]:
    table = []
    for number in range(sizes):
        theirs, ours = f"discriminators.{number}", f"networks.{number}"
        table += [
            (f"{theirs}.band_convs.{band}.{layer}", f"{ours}.convs.{band}.{layer}")
            for band in range(bands)
            for layer in range(5)
        ]
        table.append((f"{theirs}.conv_post", f"{ours}.last"))
    return table


@pytest.fixture(scope="module")
def bands() -> torch.nn.Module:
    return dress(BandDiscriminatorConfig().build(), original(), numbered_values)


def matches(y: Tensor, *expected: float) -> None:
    flat = y.flatten()
    found = [float(value) for value in (flat.mean(), *flat[[0, 1, 7, 100, -1]])]
    assert found == pytest.approx(expected, rel=0, abs=PRINTED)


# fmt: off
def test_band_discriminator_makes_the_original_scores(bands: torch.nn.Module) -> None:
    with torch.no_grad():
        found = bands(WAVES[0])
    assert [len(maps) for maps in found] == [21, 21, 21]
    assert found[0][-1].shape == (1, 1, 17, 130) and found[2][-1].shape == (1, 1, 65, 34)
    matches(found[0][-1], -0.116988899, -0.111314078, 0.0583744082, 0.162586544, 0.163914297, -0.0840605766)
    matches(found[2][-1], 0.149238348, 0.0959025044, 0.16637442, 0.0537207004, 0.186710631, 0.183534905)
    assert sum(p.numel() for p in bands.parameters()) == 1_413_990
# fmt: on


def run(**changes: Any) -> TrainConfig:
    return load_config("vocos", {"data.recordings": "x"} | changes)


def test_losses_are_the_originals(bands: torch.nn.Module) -> None:
    config = run(**{"adversary.discriminators": [{"kind": "band"}], "adversary.weights": [0.1]})
    assert config.adversary is not None
    device = torch.device("meta")
    adversary = Adversary(config.adversary, device, torch.float64, lambda *_: None)  # type: ignore[arg-type, return-value]
    adversary.network = Discriminators(config.adversary).double()
    adversary.network.networks[0] = bands
    real, fake = WAVES
    with torch.no_grad():
        loss, _ = adversary.loss(real, fake)
        example = Example(real[:, 0], real, fake=fake)
        example.real_maps = adversary.network(real)
        example.fake_maps = adversary.network(fake)
        example.shares = adversary.shares
        terms = {name: loss(example, config) for name, loss in config.losses.items() if loss.maps}
    assert float(loss) == pytest.approx(0.1 * 1.999660377, abs=1e-9)
    assert float(terms["adversarial"]) == pytest.approx(0.1 * 0.9043463687, abs=1e-9)
    assert float(terms["features"]) == pytest.approx(0.1 * 12.23529956, abs=1e-8)


def test_each_discriminator_has_the_mean_of_its_own_and_its_weight() -> None:
    small = [
        {"kind": "period", "channels": 2, "periods": [2, 3], "first_map": 1},
        {"kind": "band", "channels": 4, "fft_sizes": [256, 128, 64]},
    ]
    config = run(**{"adversary.discriminators": small})
    assert config.adversary is not None
    network = Discriminators(config.adversary)
    maps = network(WAVES[0].float())
    assert network.shares == pytest.approx((0.5, 0.5, *(0.1 / 3,) * 3))
    assert [len(found) for found in maps] == [5, 5, 21, 21, 21]  # the period discriminator's first is left out


def test_mel_loss_is_the_originals() -> None:
    config = run(**{"mel.padding": "centre", "generator.padding": "centre"})
    example = Example(WAVES[0][:, 0], WAVES[0], made={"wave": WAVES[1][:, 0]})
    assert float(config.losses["mel"](example, config)) == pytest.approx(0.3565094335, abs=1e-6)


def test_waves_that_are_shorter_than_recordings_are_refused() -> None:
    config = run(**{"mel.padding": "centre", "generator.padding": "centre"})
    with pytest.raises(ValueError, match=r'have 256 samples less than .*; padding "same" makes them as'):
        GanTask(config, torch.device("meta"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adversary.weights": [1, 1, 1]}, "weights are 3 for 2 discriminators"),
        ({"adversary.across": "sum"}, "weights are of discriminators that are added, across mean-of-each, not sum"),
        ({"adversary.discriminators.1.edges": [0, 0.5]}, "do not ascend from 0 to 1"),
        ({"adversary.discriminators.1.edges": [0, 0.5, 0.5, 1]}, "do not ascend from 0 to 1"),
        ({"adversary.discriminators.1.edges": [0, 0.0001, 1]}, "leave a band of an FFT of 2048 samples without a bin"),
        ({"adversary.discriminators.1.fft_sizes": []}, "fft_sizes"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(**changes)


def test_the_first_map_of_a_period_is_a_setting() -> None:
    with torch.no_grad():
        network = PeriodDiscriminatorConfig(channels=2, periods=(2,)).build()
        all_maps = network(WAVES[0].float())[0]
        network.first_map = 1
        assert all(map(torch.equal, network(WAVES[0].float())[0], all_maps[1:]))

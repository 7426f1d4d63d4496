"""A small WaveNet learns a clip by heart, in as many steps as the original's code needed."""

from __future__ import annotations

import math

import pytest
import torch

from fastvoc.blocks.conditioning import RepeatedConfig
from fastvoc.blocks.distributions import DistributionConfig, GaussianConfig, LogisticsConfig, MuLawConfig
from fastvoc.models import WaveNetConfig

HOP = 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distribution", "first", "last"),
    [(MuLawConfig(), math.log(256), 0.1), (LogisticsConfig(mixtures=2), None, None), (GaussianConfig(), None, None)],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_small_network_learns_a_clip(
    distribution: DistributionConfig, first: float | None, last: float | None
) -> None:
    torch.manual_seed(0)
    count = 16 * HOP
    time = torch.arange(count) / 8000
    noise = torch.randn(count, generator=torch.Generator().manual_seed(1))
    wave = (0.4 * (2 * torch.pi * 220 * time).sin() + 0.1 * noise)[None]
    mel = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(2))
    network = WaveNetConfig(
        mel_bands=8,
        conditioning=RepeatedConfig(hop=HOP),
        distribution=distribution,
        channels=64,
        gates=128,
        skip_channels=64,
        head_channels=64,
        layers=8,
        cycle=8,
    ).build()
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    losses = []
    for step in range(250 if last else 60):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * 0.5 ** (step // 100)
        loss = torch.stack([*network.negative_log_likelihood(wave, mel).values()]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    if first is None or last is None:
        assert losses[-1] < losses[0] - 1
    else:
        assert abs(losses[0] - first) < 0.2 and losses[-1] < last

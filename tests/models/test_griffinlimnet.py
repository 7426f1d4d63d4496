"""The network that ends in Griffin-Lim: the architecture of the vocoder that comes with the package."""

from __future__ import annotations

import torch
from golden import draw

from fastvoc.audio import CONVENTIONS, mel_spectrogram
from fastvoc.audio.mels.spectrogram import mel_filters
from fastvoc.models import GriffinLimNet, GriffinLimNetConfig

MEL = CONVENTIONS["hifigan"]


def network(**changes: object) -> GriffinLimNet:
    torch.manual_seed(0)
    generator = GriffinLimNetConfig(**{"channels": 8, "iterations": 1, "revisions": 1, **changes}).build()
    generator.prepare(MEL)
    return generator.double().eval()


def mel(samples: int = 20480) -> torch.Tensor:
    return mel_spectrogram(0.1 * draw(0, 1, samples), MEL)


def test_its_own_updates_make_the_magnitudes_agree_with_the_mel() -> None:
    target = mel()
    filters = torch.from_numpy(mel_filters(MEL))
    distances = []
    for updates in ((0, 0), (8, 0), (8, 4), (30, 10)):
        with torch.no_grad():
            magnitude = network(updates=updates).magnitude(target)
        distances.append(float((torch.log(filters @ magnitude) - target).abs().mean()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 50


def test_receptive_field_is_exact() -> None:
    generator = network()
    past, future = generator.receptive_field
    assert past == future
    frame, frames = past + 3, 2 * past + 7
    before = 0.3 * draw(1, 1, 80, frames) - 4
    after = before.clone()
    after[..., frame] += 1
    with torch.no_grad():
        changed = (generator(before) != generator(after))[0, 0].unflatten(0, (frames, 256)).any(dim=1)
    # a frame is heard in the samples of every frame whose field holds it, and in no other
    touched = torch.nonzero(changed)[:, 0]
    assert touched.min() == frame - future
    assert touched.max() == frame + past


def test_batch_equals_single() -> None:
    generator = network()
    mels = torch.cat([mel(), mel().flip(-1)])
    with torch.no_grad():
        together, apart = generator(mels), torch.cat([generator(one[None]) for one in mels])
    # the same sums, perhaps in another order
    assert (together - apart).abs().max() < 1e-12 * apart.abs().max() * mels.shape[-1]


def test_gradients_are_finite_in_digital_silence() -> None:
    generator = network().float()
    wave = torch.zeros(1, 8192)
    wave[:, :3000] = 0.1 * draw(2, 1, 3000).float()
    generator(mel_spectrogram(wave, MEL)).square().mean().backward()
    gradients = [parameter.grad for parameter in generator.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_extreme_mel_stays_finite() -> None:
    generator = network().float()
    with torch.no_grad():
        assert torch.isfinite(generator(torch.full((1, 80, 12), 60.0))).all()
        assert torch.isfinite(generator(torch.full((1, 80, 12), -60.0))).all()

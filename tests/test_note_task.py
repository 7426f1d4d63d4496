"""GANSynth's step: its losses, its growth, what it learns, and that it goes on to the same bits."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from fastvoc.audio.instantaneous_frequency import NoteSpectrum, normalise, note_spectrum
from fastvoc.models import GANSynthConfig
from fastvoc.models.gansynth import Convolution
from fastvoc.train.tasks.notes import NoteConfig, NoteTask, blurred, equalised_adam, growth

CONFIG = GANSynthConfig(latent=8, pitches=4, lowest_pitch=60, first=(2, 8), channels=(32, 32, 16, 8))
SPECTRUM = NoteSpectrum(samples=500, frames=16, fft_size=128, hop=32, sample_rate=1000)
GROWN = NoteConfig(steady=0, growth=0)


def four_notes() -> tuple[Tensor, Tensor]:
    """Two pictures of each of four tones of three partials that fade."""
    time = torch.arange(500) / 1000
    pitches = [80 * 2 ** (pitch / 3) for pitch in range(4)]
    waves = [sum(torch.sin(2 * math.pi * f * k * time) / k for k in (1, 2, 3)) * torch.exp(-2 * time) for f in pitches]
    pictures = normalise(note_spectrum(0.3 * torch.stack(waves), SPECTRUM)).permute(0, 3, 1, 2)
    return pictures.repeat(2, 1, 1, 1), torch.arange(4).repeat(2)


def test_pitches_are_learned_in_150_steps() -> None:
    task, (pictures, pitch) = NoteTask(CONFIG, GROWN), four_notes()
    latent = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def profile_error() -> float:
        """How far the mean spectra of made notes are from those of the real ones."""
        with torch.no_grad():
            made = task.generator(latent, pitch[:4])[:, 0].mean(dim=1)
        return float((made - pictures[:4, 0].mean(dim=1)).abs().mean())

    before = profile_error()
    numbers = [task.step(pictures, pitch) for _ in range(150)]
    assert float(numbers[0]["real_pitch"]) == pytest.approx(math.log(4), abs=0.05)
    assert float(numbers[-1]["real_pitch"]) < 0.1
    assert profile_error() < 0.75 * before
    assert all(bool(value.isfinite()) for step in numbers for value in step.values())
    assert float(numbers[-1]["penalty"]) < 0.2 * float(numbers[0]["penalty"])


def test_a_task_goes_on_to_the_same_bits_through_its_growth() -> None:
    steps, (pictures, pitch) = NoteConfig(steady=16, growth=24), four_notes()
    one = NoteTask(CONFIG, steps)
    progresses, expected = [], []
    for n in range(9):
        if n == 4:
            state = copy.deepcopy(one.state_dict())
        progresses.append(one.progress)
        expected.append(one.step(pictures, pitch))
    assert progresses == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1, 4 / 3])
    torch.manual_seed(99)
    other = NoteTask(CONFIG, steps.__class__(steady=16, growth=24))
    other.load_state_dict(state)
    assert other.progress == pytest.approx(2 / 3)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = [other.step(pictures, pitch) for _ in range(5)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert again == expected[4:]
    for name in ("generator", "average", "discriminator"):
        states = (getattr(task, name).state_dict() for task in (one, other))
        assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))


def test_growth_waits_and_then_goes_on_evenly() -> None:
    steps = NoteConfig()
    shown = [growth(n * 400_000, steps, 7) for n in (0, 1, 2, 3, 4, 6, 7, 24, 25, 40)]
    assert shown == [0, 0, 0, 0.5, 1, 1, 1.5, 6, 6, 6]
    assert growth(0, GROWN, 7) == 6


def test_real_notes_are_seen_as_coarsely_as_others_are_made() -> None:
    picture = torch.randn(2, 2, 16, 64, dtype=torch.float64)
    torch.testing.assert_close(blurred(picture, 3, 4), picture, rtol=0, atol=0)
    coarse = picture.reshape(2, 2, 8, 2, 32, 2).mean(dim=(3, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(blurred(picture, 2, 4), coarse, rtol=0, atol=1e-12)
    torch.testing.assert_close(blurred(picture, 2.25, 4), 0.75 * coarse + 0.25 * picture, rtol=0, atol=1e-12)


def test_learning_rates_are_equalised() -> None:
    """A weight that is stored divided by its deviation, and multiplied when it is used, comes to the same."""
    torch.manual_seed(3)
    steps, layer = NoteConfig(), Convolution(6, 5, (3, 3)).double()
    stored = (layer.weight.detach() / layer.deviation).requires_grad_(True)
    bias = layer.bias.detach().clone().requires_grad_(True)  # type: ignore[union-attr]
    ours = equalised_adam(torch.nn.Sequential(layer), steps)
    theirs = torch.optim.Adam([stored, bias], lr=8e-4, betas=(0.0, 0.99), eps=1e-8)
    for n in range(20):
        x = torch.randn(2, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        outputs = layer(x), torch.nn.functional.conv2d(x, stored * layer.deviation, bias, padding=1)
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
        for optimiser, made in zip((ours, theirs), outputs, strict=True):
            optimiser.zero_grad()
            (made.tanh() - 0.3).square().sum().backward()
            optimiser.step()


def test_the_penalty_is_that_of_the_paper() -> None:
    task, (pictures, _) = NoteTask(CONFIG, GROWN), four_notes()
    fake = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(4)).clamp(-1, 1)
    penalty = float(task._penalty(pictures, fake, 3.0).detach())
    # by differences in the direction of the gradient, for points that lie on the same lines
    from fastvoc.noise import uniform

    share = uniform(torch.tensor([task.steps.seed]), 0, channels=1, rows=8).reshape(8, 1, 1, 1).double()
    mixed = (share * fake + (1 - share) * pictures).requires_grad_(True)
    network = task.discriminator.double()
    (gradient,) = torch.autograd.grad(network(mixed, 3.0)[0].sum(), mixed)
    length = gradient.flatten(1).norm(dim=1).reshape(8, 1, 1, 1)
    with torch.no_grad():
        there, back = (network(mixed + sign * 1e-5 * gradient / length, 3.0)[0].sum() for sign in (1, -1))
    assert float((there - back) / 2e-5) == pytest.approx(float(length.sum()), rel=1e-3)
    assert penalty == pytest.approx(float((length - 1).square().mean()), rel=1e-4)

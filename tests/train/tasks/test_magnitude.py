"""Training on magnitudes: the loss by its formula, steps that make no sound, and what such a run needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import librosa
import pytest
import torch
from golden import draw
from torch import Tensor
from torch.nn import functional as F

import fastvoc
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, mel_spectrogram, write_audio
from fastvoc.models import GriffinLimNet
from fastvoc.ops.griffin_lim.call import GriffinLim
from fastvoc.train import state
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.report.report import Report
from fastvoc.train.tasks.gan import GanTask
from fastvoc.train.tasks.losses import Magnitude

MEL = CONVENTIONS["hifigan"]
SMALL: dict[str, Any] = {"generator.channels": 8, "data.recordings": "nowhere", "segment": 4096, "batch": 2}


def config(**changes: Any) -> TrainConfig:
    return load_config("griffin-lim-net", SMALL | {name.replace("__", "."): value for name, value in changes.items()})


def waves(seed: int = 0, size: int = 2, samples: int = 4096) -> Tensor:
    return 0.1 * draw(seed, size, samples)


def distance(estimate: Tensor, wave: Tensor) -> Tensor:
    return Magnitude().distance(estimate, wave, config())


def by_formula(estimate: Tensor, wave: Tensor) -> Tensor:
    """The four terms, written out, with the filter banks from librosa itself."""
    padded = F.pad(wave, (384, 384), "reflect")
    window = torch.hann_window(1024, dtype=wave.dtype)
    target = torch.stft(padded, 1024, 256, window=window, center=False, return_complex=True).abs()

    def log_distance(x: Tensor, y: Tensor) -> Tensor:
        return (x.clamp(min=1e-5).log() - y.clamp(min=1e-5).log()).abs().mean()

    total = (estimate - target).square().sum().sqrt() / target.square().sum().sqrt() + log_distance(estimate, target)
    for high in (8000, 11025):
        total = total + 2 * log_distance(bank(high) @ estimate, bank(high) @ target)
    return total


def test_the_loss_is_its_formula() -> None:
    wave = waves()
    estimate = draw(1, 2, 513, 16).abs() + 1e-7
    assert distance(estimate, wave).item() == pytest.approx(by_formula(estimate, wave).item(), rel=1e-12)
    side = F.pad(wave, (384, 384), "reflect")
    window = torch.hann_window(1024, dtype=wave.dtype)
    right = torch.stft(side, 1024, 256, window=window, center=False, return_complex=True).abs()
    assert distance(right, wave) < 1e-12


def test_a_step_follows_the_gradient_of_the_formula_and_makes_no_wave(monkeypatch: pytest.MonkeyPatch) -> None:
    task = GanTask(config(optimiser__clip=None), dtype=torch.float64)
    generator = task.generator
    assert isinstance(generator, GriffinLimNet)
    wave = waves()
    loss = by_formula(generator.magnitude(mel_spectrogram(wave, MEL)), wave)
    gradients = torch.autograd.grad(loss, list(generator.parameters()))
    monkeypatch.setattr(GriffinLim, "wave", lambda *arguments: pytest.fail("a wave was made"))
    numbers = task.step(wave, step=1)
    assert set(numbers) == {"magnitude", "generator_gradient"}
    assert numbers["magnitude"].item() == pytest.approx(loss.item(), rel=1e-12)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    assert numbers["generator_gradient"].item() == pytest.approx(norm.item(), rel=1e-9)


@pytest.mark.parametrize("part", ["one of the waves", "all of it"])
def test_digital_silence_trains_with_finite_numbers_and_changes_no_other_loss(part: str) -> None:
    task = GanTask(config())
    wave = waves().float() * (torch.tensor([[0.0], [1.0]]) if part == "one of the waves" else 0)
    for step in (1, 2):
        numbers = task.step(wave, step=step)
        assert all(bool(value.isfinite()) for value in numbers.values())
    # of two silent spectra nothing but the estimate is left, measured by the least magnitude of the STFT losses
    estimate = torch.full((2, 513, 16), 1e-4, dtype=torch.float64)
    silent = distance(estimate, torch.zeros(2, 4096, dtype=torch.float64))
    logs = distance(estimate, torch.full((2, 4096), 1e-30, dtype=torch.float64))
    assert silent.item() == pytest.approx(logs.item(), rel=1e-12)
    assert silent.item() - 1e-4 / 1e-7**0.5 == pytest.approx(
        sum(
            weight * float((filters @ estimate).clamp(min=1e-5).log().sub(math.log(1e-5)).abs().mean())
            for weight, filters in ((1, torch.eye(513).double()), *((2, bank(high)) for high in (8000, 11025)))
        ),
        rel=1e-9,
    )


def bank(high: int) -> Tensor:
    filters = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=high, dtype=float)
    return torch.from_numpy(filters)


def test_parts_of_a_batch_are_means_of_the_parts() -> None:
    wave = waves()
    task = GanTask(config(accumulate=2), dtype=torch.float64)
    halves = [GanTask(config(), dtype=torch.float64).step(half, step=1)["magnitude"] for half in wave.chunk(2)]
    assert task.step(wave, step=1)["magnitude"].item() == pytest.approx(sum(halves).item() / 2, rel=1e-12)


def test_losses_of_waves_are_computed_beside_it() -> None:
    task = GanTask(config(losses__stft=0.5, generator__iterations=1, generator__revisions=1), dtype=torch.float64)
    alone = GanTask(config(), dtype=torch.float64)
    numbers, other = task.step(waves(), step=1), alone.step(waves(), step=1)
    assert set(numbers) == {"magnitude", "stft", "generator_gradient"}
    assert numbers["magnitude"] == other["magnitude"]
    assert numbers["generator_gradient"] != other["generator_gradient"]


def test_a_fresh_network_begins_with_what_linear_algebra_knows() -> None:
    task = GanTask(config(ema=0.9))
    filters = torch.from_numpy(librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000))
    for network in task.networks().values():
        torch.testing.assert_close(network.get_buffer("filters"), filters)
        assert not network.get_parameter("correction.bias").any()
    generator = task.plain_generator()
    mel = mel_spectrogram(waves().float(), MEL)
    with torch.no_grad():
        made = (filters @ generator.magnitude(mel)).log()
    assert (made - mel).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("recipe", "changes", "sentence"),
    [
        (
            "hifigan-v1",
            {"losses.magnitude": 1},
            r"losses.magnitude reads magnitude, but .* hifigan gives wave",
        ),
        ("griffin-lim-net", {"mel": "melgan"}, r"needs mel.logarithm natural; it is decimal"),
        ("griffin-lim-net", {"generator.fft_size": 2048}, r"needs mel.fft_size 2048; it is 1024"),
        ("griffin-lim-net", {"precision": "bfloat16"}, r"needs precision float32, not bfloat16"),
        ("griffin-lim-net", {"precision": "auto"}, r"needs precision float32, not auto"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(recipe: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        load_config(recipe, {"data.recordings": "x"} | changes)
    assert "\n" not in str(raised.value)


def test_a_run_of_weights_and_speeds_that_stops_and_goes_on_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("_show", "_draw_curves"):
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    monkeypatch.setattr(Report, "_open_tensorboard", lambda *arguments: None)
    for number in range(6):
        (tmp_path / f"{number % 2}").mkdir(exist_ok=True)
        write_audio(tmp_path / f"{number % 2}" / f"{number}.wav", waves(number, 1, 8000)[0].float(), 22050)
    data = {"recordings": [str(tmp_path / "0"), str(tmp_path / "1")], "weights": [1, 0.5], "held_out": 0}
    changes = {f"data.{name}": value for name, value in data.items()} | {"save_every": 2}
    finals = []
    for name, parts in (("whole", [5]), ("parted", [3, 5])):
        for steps in parts:
            torch.manual_seed(steps)
            whole = load_config("griffin-lim-net", SMALL | changes | {"folder": str(tmp_path / name), "steps": steps})
            vocoder: Vocoder = fastvoc.train(whole, device="cpu")
        checkpoint = state.latest(tmp_path / name)
        assert checkpoint is not None
        finals.append((vocoder.generator.state_dict(), state.load(checkpoint)))
    (weights, saved), (others, other) = finals
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert saved["loader"] == other["loader"]
    assert torch.equal(saved["random"]["cpu"], other["random"]["cpu"])

"""Autoencoders learn: a small one over-fits tones that a rule makes, its waves follow its codes, and runs resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import assert_equal, copy_of, final, folder, recordings, settings  # noqa: F401  two are fixtures
from torch import Tensor

import fastvoc
from fastvoc import Autoencoder
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint, VocoderConfig, settings_of_run
from fastvoc.config import Kinds, config
from fastvoc.models import AUTOENCODERS, GENERATORS, INSTRUMENTS, TRAINABLE, HiFiGANConfig, NSynthConfig
from fastvoc.train.config import load_config
from fastvoc.train.learning.optimisers import ScheduleConfig
from fastvoc.train.report.log import read_log
from fastvoc.train.tasks.likelihood import LikelihoodTask

TINY = {
    "kind": "nsynth",
    "code_channels": 4,
    "hop": 64,
    "encoder_channels": 12,
    "encoder_layers": 6,
    "channels": 16,
    "skip_channels": 24,
    "layers": 7,
    "cycle": 7,
}


def notes(length: int) -> Tensor:
    """(4, length): tones of four pitches and timbres, which begin and fade."""
    time = torch.arange(length, dtype=torch.float64) / 8000
    waves = []
    for number in range(4):
        pitch, brightness = 160 * 1.5**number, 0.3 + 0.2 * number
        partials = [brightness**k * torch.sin(2 * math.pi * (k + 1) * pitch * time) for k in range(4)]
        waves.append(0.5 * torch.stack(partials).sum(dim=0) * torch.exp(-2 * time))
    return torch.stack(waves).float()


def recipe(**changes: Any) -> Any:
    mel = {"sample_rate": 8000, "fft_size": 256, "hop": 64, "window_size": 256, "bands": 20, "low": 0, "high": 4000}
    values = {"data.recordings": "none", "generator": TINY, "mel": mel, "segment": 1024, "optimiser.clip": None}
    return load_config("nsynth-small", values | {name.replace("__", "."): value for name, value in changes.items()})


def learned(steps: int, **changes: Any) -> tuple[LikelihoodTask, list[float]]:
    task = LikelihoodTask(recipe(batch=4, optimiser__learning_rate=5e-3, **changes))
    wave = notes(1024)
    return task, [float(task.step(wave, step=step)["cross_entropy"]) for step in range(1, steps + 1)]


def test_a_small_network_learns_notes() -> None:
    """Equal chances are 5.55 nats."""
    _, values = learned(60)
    assert values[0] > math.log(256) - 0.1
    assert sum(values[-5:]) / 5 < 0.65 * values[0]


@pytest.mark.slow
def test_what_is_decoded_follows_what_was_encoded() -> None:
    """Log spectra of decoded notes are nearer to their own than to the other notes', on the average of eight draws."""
    task, _ = learned(500, ema=0.95)
    checkpoint = Checkpoint(
        AutoencoderConfig(generator=task.config.generator, sample_rate=8000),
        task.plain_generator().state_dict(),
        "a test",
    )
    autoencoder, wave = Autoencoder(checkpoint), notes(1024)
    code = autoencoder.encode(wave)
    draws = [autoencoder.decode(code, seed=4 * number) for number in range(8)]
    recorded, *made = [
        torch.stft(one, 256, 64, window=torch.hann_window(256), return_complex=True).abs().clamp(min=1e-2).log()
        for one in (wave, *draws)
    ]
    distances = torch.stack([(recorded[:, None] - one[None]).abs().mean(dim=(2, 3)) for one in made]).mean(dim=0)
    own = float(distances.diagonal().mean())
    others = float((distances.sum() - distances.diagonal().sum()) / 12)
    assert own < 0.85 * others
    assert torch.equal(distances.argmin(dim=0), torch.arange(4))


def test_a_run_is_an_autoencoder_and_resumes_to_the_bit(folder: Path) -> None:  # noqa: F811
    whole, parted = (copy_of(folder, name) for name in ("whole", "parted"))

    def run(place: Path, **changes: Any) -> dict[str, Any]:
        values = settings(place) | {"generator": TINY | {"hop": 8}, "task": {"kind": "likelihood"}, "losses": {}}
        values = {name: value for name, value in values.items() if name != "adversary"}
        return values | {"weight_norm": "none", "segment": 512} | changes

    trained = fastvoc.train(run(whole, steps=4, report_every=1), device="cpu")
    fastvoc.train(run(parted, steps=2), device="cpu")
    torch.manual_seed(77)
    fastvoc.train(run(parted, steps=4), device="cpu")
    found, wanted = final(parted), final(whole)
    for name in (".config.report_every", ".best"):
        del found[name], wanted[name]
    assert_equal(found, wanted)
    lines = read_log(whole / "run" / "log.jsonl")
    assert "cross_entropy" in [line for line in lines if line["kind"] == "training"][-1]
    judged = [line for line in lines if line["kind"] == "validation"][-1]
    assert {"seen/mel_l1", "seen/negative_log_likelihood"} <= set(judged)
    opened = fastvoc.open(whole / "run")
    assert isinstance(opened, Autoencoder) and isinstance(trained, Autoencoder)
    assert opened.sample_rate == 8000
    wave = notes(1024)[0]
    assert torch.equal(opened.encode(wave), trained.encode(wave))
    begun = run(copy_of(folder, "begun"), steps=1, start_from=str(whole / "run"))
    fastvoc.train(begun, device="cpu")


def test_a_mel_has_a_frame_for_each_code() -> None:
    with pytest.raises(ValueError, match="has a frame every 32 samples but a code is of 64; both must be the same"):
        recipe(mel__hop=32)
    mel = recipe().mel
    assert isinstance(settings_of_run(NSynthConfig(hop=64), mel), AutoencoderConfig)
    vocoder = HiFiGANConfig(mel_bands=20, channels=8, rates=(8, 8), rate_kernel_sizes=(16, 16))
    assert isinstance(settings_of_run(vocoder, mel), VocoderConfig)


def test_a_rate_may_have_a_factor_for_each_milestone() -> None:
    schedule = load_config("nsynth", {"data.recordings": "x"}).optimiser.schedule
    rates = [2e-4 * schedule.factor(updates, 0) for updates in (0, 89999, 90000, 120000, 150000, 180000, 199999)]
    assert rates == pytest.approx([2e-4, 2e-4, 4e-4 / 3, 6e-5, 4e-5, 2e-5, 2e-5], rel=1e-6)
    with pytest.raises(ValueError, match="factors are 1 and milestones 2; factors are for kind steps, one for each"):
        ScheduleConfig(kind="steps", milestones=(1, 2), factors=(0.5,))
    with pytest.raises(ValueError, match="and without decay"):
        ScheduleConfig(kind="steps", milestones=(1,), factors=(0.5,), decay=0.5)
    with pytest.raises(ValueError, match="factors are for kind steps"):
        ScheduleConfig(factors=(0.5,))


def test_kinds_may_have_others_in_them() -> None:
    one, other = Kinds("shape"), Kinds("shape")
    both = Kinds("shape", one, other)

    @config
    class Circle:
        kind: str = "circle"

    @config
    class Square:
        kind: str = "square"

    @config
    class Second:
        kind: str = "circle"

    one.add(Circle)
    assert list(both) == [Circle] and "square" not in both
    other.add(Square)
    assert list(both) == [Circle, Square] and both["square"] is Square
    with pytest.raises(ValueError, match="Circle is the shape 'circle' already"):
        both.add(Second)
    assert {*TRAINABLE} == {*GENERATORS, *AUTOENCODERS, *INSTRUMENTS}

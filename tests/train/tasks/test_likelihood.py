"""Training by maximum likelihood: a toy network whose likelihood is known in closed form learns, stops and resumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_run import assert_equal, copy_of, final, folder, recordings, settings  # noqa: F401  two are fixtures
from torch import Tensor, nn

import fastvoc
import fastvoc.train.material
from fastvoc import Vocoder
from fastvoc.audio import mel_spectrogram
from fastvoc.config import config, to_dict
from fastvoc.models import GENERATORS, Generator
from fastvoc.noise import Draws
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.health import NotFinite
from fastvoc.train.report.log import read_log
from fastvoc.train.tasks.likelihood import TOTAL, LikelihoodConfig, LikelihoodTask

BANDS, HOP, RATE = 6, 8, 8000


@config
class BellConfig:
    kind: Literal["bell"] = "bell"
    mel_bands: int = BANDS
    hop: int = HOP
    condition_channels: int = 0

    def build(self) -> Bell:
        return Bell(self)


class Bell(Generator):
    """Samples of a frame are independent and normal: mean and logarithm of the deviation are linear in the mel."""

    def __init__(self, config: BellConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.of_frame = nn.Linear(config.mel_bands, 2)
        self.heard: list[int] = []

    @property
    def hop(self) -> int:
        return HOP

    @property
    def condition_channels(self) -> int:
        return self.config.condition_channels

    @property
    def draws(self) -> Draws:
        return Draws(channels=1, rows_per_frame=HOP, temperature=0.5)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first // HOP, last // HOP

    def moments(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = self.of_frame(0.01 * mel.mT).repeat_interleave(HOP, dim=1).unbind(-1)
        return mean, deviation

    def forward(  # type: ignore[override]
        self, mel: Tensor, condition: Tensor | None = None, *, noise: Tensor, temperature: Tensor
    ) -> Tensor:
        mean, deviation = self.moments(mel)
        return mean[:, None] + deviation.exp()[:, None] * temperature[:, None, None] * noise

    def negative_log_likelihood(self, wave: Tensor, mel: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
        mean, deviation = self.moments(mel)
        z = (wave - mean) / deviation.exp()
        return {"square": (0.5 * z * z).mean() + 0.5 * math.log(2 * math.pi), "volume": deviation.mean()}

    def diagnosis(self) -> str:
        return "" if bool(self.of_frame.bias.isfinite().all()) else "its bell has no finite bias"


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    GENERATORS.add(BellConfig)
    yield
    del GENERATORS._classes["bell"]


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    values = settings(place) | {"generator": {"kind": "bell"}, "losses": {}, "adversary": None}
    schedule = {"kind": "steps", "milestones": [2, 4], "decay": 0.5}
    values["optimiser"] = {"kind": "adam", "learning_rate": 0.05, "clip": 1.0, "schedule": schedule}
    return values | {"task": {"kind": "likelihood"}, "weight_norm": "none"} | changes


def task_of(dtype: torch.dtype = torch.float64, **changes: Any) -> LikelihoodTask:
    return LikelihoodTask(load_config(recipe(Path("nowhere"), **changes)), dtype=dtype)


def waves(count: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    noise = torch.randn(count, 512, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return (0.02 * noise).to(dtype)


def test_a_step_follows_the_gradient_of_the_likelihood() -> None:
    task, wave = task_of(), waves()
    weight, bias = (value.detach().clone().requires_grad_() for value in task.generator.parameters())
    mel = mel_spectrogram(wave, task.config.mel)[..., : wave.shape[-1] // HOP]
    mean, deviation = (0.01 * mel.mT @ weight.T + bias).repeat_interleave(HOP, dim=1).unbind(-1)
    expected = -torch.distributions.Normal(mean, deviation.exp()).log_prob(wave).mean()
    gradients = torch.autograd.grad(expected, [weight, bias])
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    numbers = task.step(wave, step=1)
    # a network computes its parts in float64, and the log has them in float32
    torch.testing.assert_close(numbers[TOTAL].double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(numbers[TOTAL], numbers["square"] + numbers["volume"])
    torch.testing.assert_close(numbers["generator_gradient"], norm, rtol=1e-6, atol=0)
    assert set(numbers) == {TOTAL, "square", "volume", "generator_gradient"}
    # the first update of Adam is the learning rate in the direction of each sign
    moved = task.generator.of_frame.bias.detach() - bias.detach()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(moved, -0.05 * gradients[1].sign(), rtol=1e-5, atol=0)


def test_parts_of_a_batch_add_up_to_it() -> None:
    whole, parted = task_of(), task_of(accumulate=2)
    first, second = whole.step(waves(), step=1), parted.step(waves(), step=1)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-6, atol=1e-9)


def test_it_finds_the_most_likely_deviation() -> None:
    task, wave = task_of(optimiser={"kind": "adam", "learning_rate": 0.1}), waves()
    for step in range(1, 151):
        numbers = task.step(wave, step=step)
    exact = 0.5 * math.log(2 * math.pi * math.e) + math.log(0.02)  # entropy of the normal distribution they came from
    assert float(numbers[TOTAL]) == pytest.approx(exact, abs=0.05)


def test_it_trains_by_a_recipe_and_resumes_to_the_bit(folder: Path) -> None:  # noqa: F811
    whole, parted = (copy_of(folder, name) for name in ("whole", "parted"))
    trained = fastvoc.train(recipe(whole, steps=5, report_every=1), device="cpu")
    fastvoc.train(recipe(parted, steps=2), device="cpu")
    torch.manual_seed(77)
    fastvoc.train(recipe(parted, steps=5), device="cpu")
    found, wanted = final(parted), final(whole)
    for name in (".config.report_every", ".best"):
        del found[name], wanted[name]
    assert_equal(found, wanted)
    log = read_log(whole / "run" / "log.jsonl")
    rates = [line["learning_rate"] for line in log if line["kind"] == "training"]
    assert rates == pytest.approx([0.05, 0.05, 0.025, 0.025, 0.0125])
    judged = [line for line in log if line["kind"] == "validation"][-1]
    assert {"seen/mel_l1", f"seen/{TOTAL}"} <= set(judged)
    opened = fastvoc.open(whole / "run")
    mel = -8 + torch.arange(9.0).expand(BANDS, 9) / 3
    assert torch.equal(opened(mel, seed=1), trained(mel, seed=1))


def test_validation_hears_the_beginning_of_clips_by_the_average(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[tuple[int, Tensor]] = []
    generate = fastvoc.train.material.generate

    def listen(generator: Any, *arguments: Any, **options: Any) -> Any:
        pairs = generate(generator, *arguments, **options)
        heard.extend((len(made), generator.of_frame.bias.clone()) for _, made in pairs.values())
        assert all(len(recorded) == len(made) for recorded, made in pairs.values())
        return pairs

    monkeypatch.setattr(fastvoc.train.material, "generate", listen)
    task = {"kind": "likelihood", "validation_seconds": 0.1}
    trained = fastvoc.train(recipe(folder, steps=2, task=task), device="cpu")
    assert isinstance(trained, Vocoder)
    assert [length for length, _ in heard] == [800]  # 100 frames, of a clip of 260 at least
    state = final(folder)
    assert torch.equal(heard[0][1], state[".task.average.of_frame.bias"])
    assert not torch.equal(heard[0][1], state[".task.generator.of_frame.bias"])


def test_numbers_that_are_not_finite_come_with_what_the_generator_says(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    update = LikelihoodTask.update

    def broken(task: LikelihoodTask, *arguments: Any) -> Any:
        if task.learner.updates == 3:
            with torch.no_grad():
                task.generator.of_frame.bias.fill_(math.inf)  # type: ignore[union-attr, operator]
        return update(task, *arguments)

    monkeypatch.setattr(LikelihoodTask, "update", broken)
    with pytest.raises(NotFinite, match=r"step 3: .*; its bell has no finite bias; its weights are of no use; .*step-"):
        fastvoc.train(recipe(folder, steps=4), device="cpu")
    assert all(bool(value.isfinite().all()) for value in Vocoder.from_pretrained(folder / "run").generator.parameters())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"losses": {"mel": 45}}, "task likelihood minimises no losses; leave out mel"),
        (
            {"task": {"kind": "likelihood", "validation_seconds": 0}},
            "task.validation_seconds is 0; Input",
        ),
        (
            {"adversary": settings(Path("x"))["adversary"], "losses": {}},
            "task likelihood has no adversary; leave out adversary",
        ),
    ],
)
def test_settings_of_no_use_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_config(recipe(Path("nowhere"), **changes))


@pytest.mark.parametrize(
    ("generator", "sentence"),
    [
        (
            {"kind": "hifigan", "mel_bands": 6, "channels": 8, "rates": [4, 2], "rate_kernel_sizes": [8, 4]},
            "hifigan says",
        ),
        ({"kind": "bell", "condition_channels": 3}, "it is conditioned on 3 channels"),
    ],
)
def test_generators_of_no_use_are_refused(generator: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        task_of(generator=generator)


def test_settings_are_values_like_all_others(tmp_path: Path) -> None:
    read = load_config(recipe(tmp_path))
    assert read.task == LikelihoodConfig() and isinstance(read, TrainConfig)
    assert load_config(to_dict(read)) == read

"""Training stays open: a loss, a discriminator and a task of another module train, stop and resume by a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_run import assert_equal, copy_of, final, folder, recordings, settings  # noqa: F401  two are fixtures
from torch import Tensor, nn

import fastvoc
from fastvoc.config import Kinds, config, to_dict
from fastvoc.models.discriminators import DISCRIMINATORS, Maps
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.report.log import read_log
from fastvoc.train.tasks.losses import LOSSES, Loss
from fastvoc.train.tasks.task import TASKS, Batch, Numbers
from fastvoc.train.tasks.waves import WaveTask


@config
class Energy(Loss):
    """Squared difference of the mean power of frames."""

    kind: Literal["energy"] = "energy"
    frame: int = 64
    """In samples."""

    def check(self, run: TrainConfig) -> None:
        if run.segment % self.frame:
            raise ValueError(f"losses.energy needs a segment of whole frames of {self.frame}, not {run.segment}")

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        powers = [x.unflatten(-1, (-1, self.frame)).square().mean(dim=-1) for x in (made, wave)]
        return (powers[0] - powers[1]).square().mean()


@config
class DownsampledConfig:
    kind: Literal["downsampled"] = "downsampled"
    channels: int = 4

    def build(self) -> nn.Module:
        return Downsampled(self)


class Downsampled(nn.Module):
    """One sub-discriminator of two convolutions."""

    def __init__(self, config: DownsampledConfig) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, config.channels, 9, 4)
        self.last = nn.Conv1d(config.channels, 1, 3)

    def forward(self, wave: Tensor) -> list[Maps]:
        x = torch.tanh(self.first(wave))
        return [[x, self.last(x)]]


@config
class LevelConfig:
    """The generator minimises its losses, and a scalar of its own learns how loud recordings are."""

    kind: Literal["level"] = "level"
    weight: float = 1.0

    def check(self, run: TrainConfig) -> None:
        if run.adversary is not None:
            raise ValueError("task level has no adversary")

    def build(self, run: TrainConfig, device: torch.device) -> WaveTask:
        return LevelTask(run, device)


class LevelTask(WaveTask):
    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        super().__init__(config, device)
        self.level = nn.Linear(1, 1).to(device)
        self.level_learner = self.learner_of(self.level, config.optimiser)

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {"level": self.level}

    def learners(self) -> dict[str, Any]:
        return super().learners() | {"level": self.level_learner}

    def update(self, batch: Batch, turn: Any) -> Numbers:
        numbers: Numbers = {}
        for example in self.examples(batch):
            made = self.make(example, {"wave"})["wave"]
            loudness = example.wave.square().mean(dim=-1, keepdim=True).sqrt()
            numbers["level"] = (self.level(torch.ones_like(loudness)) - loudness).square().mean()
            numbers["wave"] = (made - example.wave).abs().mean()
        self.level_learner.backward(self.config.task.weight * numbers["level"])
        self.learner.backward(numbers["wave"])
        numbers = {name: value.detach() for name, value in numbers.items()}
        gradients = {f"{name}_gradient": learner.update() for name, learner in self.learners().items()}
        return numbers | gradients


@pytest.fixture(autouse=True)
def _added() -> Iterator[None]:
    added: list[tuple[Kinds, type]] = [(LOSSES, Energy), (DISCRIMINATORS, DownsampledConfig), (TASKS, LevelConfig)]
    for kinds, cls in added:
        kinds.add(cls)
    yield
    for kinds, cls in added:
        del kinds._classes[cls.kind]


def gan(place: Path, **changes: Any) -> dict[str, Any]:
    """A recipe with a loss and a discriminator of this module beside the package's."""
    values = settings(place) | {"losses": {"energy": {"weight": 3, "frame": 32}, "adversarial": 1, "features": 2}}
    values["adversary"] = values["adversary"] | {
        "discriminators": [{"kind": "downsampled", "channels": 2}, {"kind": "period", "channels": 2, "periods": [2]}],
        "starts_at": 1,
    }
    return values | changes


def level(place: Path, **changes: Any) -> dict[str, Any]:
    """A recipe with a task of this module."""
    values = settings(place) | {"adversary": None, "losses": {}, "task": {"kind": "level", "weight": 0.5}}
    return values | changes


@pytest.mark.parametrize("recipe", [gan, level])
def test_what_another_module_defines_trains_and_resumes_to_the_bit(recipe: Any, folder: Path) -> None:  # noqa: F811
    """Three steps at once, or two, a stop, and one more."""
    whole, parted = (copy_of(folder, name) for name in ("whole", "parted"))
    fastvoc.train(recipe(whole, steps=3, report_every=1), device="cpu")
    fastvoc.train(recipe(parted, steps=2), device="cpu")
    torch.manual_seed(77)
    fastvoc.train(recipe(parted, steps=3), device="cpu")
    found, wanted = final(parted), final(whole)
    for name in (".config.report_every", ".best"):  # the shorter run was judged at its end, too
        del found[name], wanted[name]
    assert_equal(found, wanted)
    last = [line for line in read_log(whole / "run" / "log.jsonl") if line["kind"] == "training"][-1]
    if recipe is gan:
        assert {"energy", "adversarial", "features", "discriminators_gradient"} <= set(last)
        assert any(name.startswith(".task.discriminators.networks.0.first") for name in wanted)
    else:
        assert {"level", "wave", "level_gradient", "generator_gradient"} <= set(last)
        first = read_log(whole / "run" / "log.jsonl")[0]
        assert last["level"] != first["level"] and wanted[".task.level_learner.updates"] == 3


def test_settings_of_another_module_are_values_like_the_others(tmp_path: Path) -> None:
    read = load_config(gan(tmp_path))
    assert load_config(to_dict(read)) == read
    assert read.losses["energy"] == Energy(weight=3, frame=32)
    assert [loss.kind for loss in read.losses.values()] == ["adversarial", "features", "energy"]  # order of the kinds
    assert load_config(level(tmp_path)).task == LevelConfig(weight=0.5)


@pytest.mark.parametrize(
    ("recipe", "changes", "sentence"),
    [
        (gan, {"losses.energy.frame": 100}, "losses.energy needs a segment of whole frames of 100, not 512"),
        (gan, {"losses.energy.fram": 1}, "losses.energy.fram is not a known field; did you mean 'frame'"),
        (gan, {"losses.energi": 1}, "losses.energi: 'energi' is no kind of loss; did you mean 'energy'"),
        (gan, {"losses.energy.of": "subbands"}, "losses.energy reads subbands, but the generator hifigan gives wave"),
        (gan, {"task.kind": "level"}, "task level has no adversary"),
        (gan, {"task.kind": "gam"}, "task: 'gam' is no kind of task; did you mean 'gan'"),
        (
            gan,
            {"adversary.discriminators.0.kind": "sampled"},
            "'sampled' is no kind of discriminator; did you mean",
        ),
    ],
)
def test_mistakes_are_one_sentence(recipe: Any, changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        load_config(recipe(tmp_path), changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"stft": 1}, {"losses.stft": 2}, {"stft": 2}),
        ({"stft": {"weight": 1, "resolutions": [[64, 16, 64]]}}, {"losses.stft": 2}, {"stft": 2}),
        ({"stft": 1}, {"losses.stft.resolutions": [[64, 16, 64]]}, {"stft": 1}),
        ({"stft": 1, "mel": 3}, {"losses.stft": 0}, {"mel": 3}),
        ({"mel": 3, "short": {"kind": "stft", "weight": 2}}, {"losses.short": 4}, {"mel": 3, "short": 4}),
        (
            {"mel": 45.0, "stft": 0.0, "subband_stft": 0.0, "magnitude": 0.0},
            {},
            {"mel": 45},
        ),  # as versions before wrote
    ],
)
def test_a_weight_changes_no_other_setting_of_a_loss(
    before: dict[str, Any], changes: dict[str, Any], after: dict[str, float], tmp_path: Path
) -> None:
    values = settings(tmp_path) | {"losses": before, "adversary": None, "segment": 2048}
    losses = load_config(values, changes).losses
    assert {name: loss.weight for name, loss in losses.items()} == after
    if "resolutions" in str((before, changes)):
        assert losses["stft"].resolutions == ((64, 16, 64),)

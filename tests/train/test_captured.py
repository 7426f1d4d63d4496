"""A recorded step makes the steps that it was recorded from; a function that runs again stands in for a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gan import DEVICE, HIFIGAN, SMALL, batch, flat, hifigan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastvoc.train.config import load_config
from fastvoc.train.run import train
from fastvoc.train.tasks.adversary import Turn
from fastvoc.train.tasks.captured import WARM_UP, CapturedStep
from fastvoc.train.tasks.gan import GanTask

PHASES = {
    "adversary.starts_at": 5,
    "adversary.listens_for": 4,
    "optimiser.schedule": {"kind": "exponential", "decay": 0.9, "warm_up": 3},
    "adversary.optimiser.schedule": {"kind": "exponential", "decay": 0.8},
    "ema": 0.9,
}


class Again:
    """Runs a function again and writes what it returns to the same memory, as a CUDA graph does."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, make: Callable[[], dict[str, Tensor]]) -> tuple[Callable[[], Any], dict[str, Tensor]]:
        self.recorded += 1
        numbers: dict[str, Tensor] = {}
        return lambda: numbers.update(make()), numbers


def test_steps_of_every_phase_are_those_of_the_task_to_the_bit() -> None:
    config = load_config("hifigan-v1", SMALL | HIFIGAN | PHASES | {"graph": True})
    task, other = GanTask(config, DEVICE), GanTask(config, DEVICE)
    again = Again()
    captured = CapturedStep(other, again)
    for step in range(1, 20):
        epoch, wave = step // 4, batch(step, torch.float32)
        expected = task.step(wave, step=step, epoch=epoch)
        found = captured(wave, step=step, epoch=epoch)
        assert {name: value.item() for name, value in found.items()} == {
            name: value.item() for name, value in expected.items()
        }
        assert other.learner.rate == task.learner.rate
    assert again.recorded == 3  # alone, listened to, judged
    assert other.adversary is not None and (other.learner.updates, other.adversary.learner.updates) == (19, 14)
    for name, value in flat(task.state_dict()).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(flat(other.state_dict())[name])), name


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for a device: a number that is read, or one that is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.lift_fresh,
            torch.ops.aten.nonzero,
        ):
            self.found.add(str(func))
        return func(*args, **(kwargs or {}))


NARROW = {
    "hifigan-v1": {"generator.channels": 16, "adversary.discriminators.0.channels": 2}
    | {"adversary.discriminators.1.channels": 16},
    "hifigan-best": {"generator.channels": 16, "adversary.discriminators.0.channels": 2},
    "melgan": {"generator.channels": 32},
    "melgan-keras": {"generator.channels": 32},
    "multi-band-melgan": {"generator.channels": 32},
}
"""Recipes with all losses and discriminators. RAdam, of `melgan-stft`, decides on the host whether to update."""


@pytest.mark.parametrize("recipe", NARROW)
def test_no_step_waits_for_its_device(recipe: str) -> None:
    changes = {"data.recordings": "nowhere", "batch": 2, "graph": True}
    task = GanTask(load_config(recipe, NARROW[recipe] | changes), DEVICE)
    turn = Turn(learns=True, judges=True)
    wave = 0.1 * torch.randn(2, task.config.segment, generator=torch.Generator().manual_seed(0))
    task.update(wave, turn)
    with Waits() as waits:
        task.update(wave, turn)
    assert not waits.found


def test_rates_on_the_device_make_the_updates_of_rates_on_the_host() -> None:
    schedule = {"optimiser__schedule": {"kind": "exponential", "decay": 0.5}}
    tasks = [GanTask(hifigan(graph=graph, **schedule), DEVICE, torch.float64) for graph in (False, True)]
    for step in range(1, 5):
        for task in tasks:
            task.step(batch(step), step=step)
    host, device = (dict(task.generator.named_parameters()) for task in tasks)
    for name, value in host.items():
        # rates are float32 there: four updates of at most 2e-4 each, off by half an ulp of them
        torch.testing.assert_close(device[name], value, rtol=0, atol=4 * 2e-4 * 6e-8)


def test_a_restored_task_keeps_its_rates_on_the_device() -> None:
    config = hifigan(graph=True, optimiser__schedule={"kind": "exponential", "decay": 0.5})
    task, other = GanTask(config, DEVICE), GanTask(config, DEVICE)
    for step in (1, 2):
        task.step(batch(step, torch.float32), step=step)
    other.load_state_dict(deepcopy(task.state_dict()))
    captured, again = CapturedStep(other, Again()), CapturedStep(task, Again())
    for step in range(3, 3 + WARM_UP + 2):
        for make in (captured, again):
            make(batch(step, torch.float32), step=step)
    for mine, theirs in zip(task.generator.parameters(), other.generator.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_cannot_be_recorded_is_said() -> None:
    def refuse(make: Callable[[], dict[str, Tensor]]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    captured = CapturedStep(GanTask(hifigan(graph=True), DEVICE), refuse)
    for step in range(1, WARM_UP + 1):
        captured(batch(step, torch.float32), step=step)
    with pytest.raises(
        RuntimeError, match=r"step 4 cannot be recorded as a CUDA graph \(operation not .*\); leave out"
    ):
        captured(batch(4, torch.float32), step=WARM_UP + 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"precision": "float16"}, "graph needs precision bfloat16 or float32"),
        ({"optimiser.kind": "radam"}, "graph needs adam or adamw"),
    ],
)
def test_settings_that_decide_on_the_host_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_config("hifigan-v1", SMALL | {"graph": True} | changes)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_graphs_make_the_steps_of_the_task() -> None:
    config = load_config("hifigan-v1", SMALL | HIFIGAN | PHASES | {"graph": True, "precision": "float32"})
    task, other = GanTask(config, torch.device("cuda")), GanTask(config, torch.device("cuda"))
    captured = CapturedStep(other)
    for step in range(1, 20):
        wave = batch(step, torch.float32)
        expected = task.step(wave, step=step, epoch=step // 4)
        found = captured(wave, step=step, epoch=step // 4)
        # libraries may choose other kernels, and the differences grow by training
        values = {name: value.item() for name, value in expected.items()}
        assert {name: value.item() for name, value in found.items()} == pytest.approx(values, rel=1e-2)


def test_a_graph_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graph records a step on one GPU, and this is a run on a cpu; leave it out"):
        train("hifigan-v2", folder=tmp_path, smoke=True, changes={"graph": True}, device="cpu")

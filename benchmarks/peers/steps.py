"""A training step as each maker makes it, from equal weights on an equal batch: of HiFi-GAN, WaveNet or WaveGlow.

`python -m benchmarks.peers.steps RECIPE MAKER DEVICE THREADS` prints the most memory that a maker's process holds
beyond what its imports did, in megabytes.
"""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring.stopwatch import interleaved
from benchmarks.peers.official_hifigan import (
    OfficialDiscriminators,
    OfficialGenerator,
    discriminators_loss,
    generator_loss,
    official_step,
)
from benchmarks.peers.plain_likelihood import PARTS
from fastvoc.audio import mel_l1, mel_spectrogram
from fastvoc.checkpoints.formats import hifigan
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.learning.weight_norm import folded
from fastvoc.train.tasks.captured import WARM_UP, CapturedStep
from fastvoc.train.tasks.gan import GanTask
from fastvoc.train.tasks.likelihood import TOTAL, LikelihoodTask
from fastvoc.train.tasks.losses import Example

Parts = dict[str, Callable[[], Any]]
"""A step taken apart; each leaves the gradients that the last one needs."""

BATCH = {"cpu": 1, "cuda": 16}
"""Segments: the official number, and what is enough to see a ratio."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Whose step, in which precision."""

    official: bool
    precision: str
    compiled: bool = False
    """By torch.compile: its networks, whose graphs are most of a step."""
    graph: bool = False
    """Recorded as a CUDA graph."""

    def missing(self, device: str) -> str | None:
        """Return why it cannot run here, as a sentence, or None."""
        if self.compiled and device == "cpu" and not any(map(shutil.which, ("g++", "clang++"))):
            return "torch.compile needs a C++ compiler"
        if self.precision == "bfloat16" and device == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return "PyTorch has no fast convolutions in bfloat16 for this processor"
        return None


def makers(device: str) -> dict[str, Maker]:
    """Return the makers of a device by name: ``fastvoc`` as it is by default there comes first."""
    usual, other = ("bfloat16", "float32") if device == "cuda" else ("float32", "bfloat16")
    compiled = {
        "official, compiled": Maker(official=True, precision="float32", compiled=True),
        "official, compiled, bfloat16": Maker(official=True, precision="bfloat16", compiled=True),
    }
    return {
        "fastvoc": Maker(official=False, precision=usual),
        **({"fastvoc, graph": Maker(official=False, precision=usual, graph=True)} if device == "cuda" else {}),
        f"fastvoc, {other}": Maker(official=False, precision=other),
        "official, eager": Maker(official=True, precision="float32"),
        "official, bfloat16": Maker(official=True, precision="bfloat16"),
        # on a CPU each takes minutes to compile
        **(compiled if device == "cuda" else {"official, compiled": compiled["official, compiled"]}),
    }


LIKELIHOOD = {
    "fastvoc": Maker(official=False, precision="float32"),
    "plain PyTorch": Maker(official=True, precision="float32"),
}
"""Makers of a step that has no adversary, by name."""


class Step:
    """Networks of a recipe from its seed, and a maker's step over them.

    Parameters
    ----------
    recipe : str
        Of HiFi-GAN, or one whose task is likelihood.
    maker : Maker
    device : {"cpu", "cuda"}
    """

    def __init__(self, recipe: str, maker: Maker, device: str) -> None:
        changes = {
            "batch": BATCH[device],
            "precision": maker.precision,
            "graph": maker.graph,
            "data.recordings": "tones",
        }
        self.config = load_config(recipe, changes)
        noise = torch.randn(self.config.batch, self.config.segment, generator=torch.Generator().manual_seed(0))
        self.wave = (0.3 * noise).to(device)
        self.maker, self.device = maker, device
        task = self.config.task.build(self.config, torch.device(device))
        if isinstance(task, LikelihoodTask):
            self._step, self._parts = _likely(task, self.wave, maker)
        elif maker.official:
            self._step, self._parts = _official(task, self.wave, maker)
        else:
            self._step, self._parts = _ours(task, self.wave)

    def __call__(self) -> tuple[Tensor, ...]:
        """Make all updates and return the losses: of the discriminators and of the generator, or of the one network."""
        return self._step()

    def warm_up(self) -> None:
        """Make the steps after the first one that are slower than all others."""
        for _ in range(WARM_UP if self.maker.graph else 0):
            self()

    def shares(self, *, rounds: int, budget: float) -> dict[str, float]:
        """Say where the time of a step goes: fractions of the time of all parts, measured one by one."""
        parts = self._parts()
        for part in parts.values():
            part()
        taken = [
            median(column) for column in interleaved(list(parts.values()), self.device, rounds=rounds, budget=budget)
        ]
        return {name: round(each / sum(taken), 3) for name, each in zip(parts, taken, strict=True)}


def _ours(task: GanTask, wave: Tensor) -> tuple[Callable[[], tuple[Tensor, Tensor]], Callable[[], Parts]]:
    config, adversary = task.config, task.adversary
    assert adversary is not None
    make = CapturedStep(task) if config.graph else task.step

    def step() -> tuple[Tensor, Tensor]:
        numbers = make(wave, step=1)
        terms = [loss.weight * numbers[name] for name, loss in config.losses.items()]
        return numbers["discriminators"], torch.stack(terms).sum()

    def parts() -> Parts:
        mel, real = _mel(config, wave), wave[:, None]
        with torch.no_grad(), _autocast(wave, config.precision):
            made = task.generator(mel).float()
        fake, ones = made.clone().requires_grad_(), torch.ones_like(made)

        def generator() -> None:
            with _autocast(wave, config.precision):
                out = task.generator(mel)
            torch.autograd.backward(out, ones.to(out.dtype), inputs=task.learner.variables)

        def discriminators() -> None:
            with folded(adversary.network), _autocast(wave, config.precision):
                loss, _ = adversary.loss(real, fake)
            adversary.learner.backward(loss)
            terms = task.judge(Example(wave, mel, fake=fake), adversary)
            torch.autograd.backward(torch.stack(list(terms.values())).sum(), inputs=[fake])

        def mels() -> None:
            _mel(config, wave)
            torch.autograd.backward(mel_l1(fake[:, 0], wave, config.loss_mel or config.mel), inputs=[fake])

        def optimisers() -> None:
            task.learner.update()
            adversary.learner.update()

        return {"generator": generator, "discriminators": discriminators, "mels": mels, "optimisers": optimisers}

    return step, parts


def _official(
    task: GanTask, wave: Tensor, maker: Maker
) -> tuple[Callable[[], tuple[Tensor, Tensor]], Callable[[], Parts]]:
    config = task.config
    assert task.adversary is not None
    generator = OfficialGenerator(config.generator).to(wave.device)
    generator.load_state_dict(hifigan.write(config.generator, task.plain_generator().state_dict())["generator"])
    discriminators = OfficialDiscriminators().to(wave.device)
    discriminators.load_state_dict(task.adversary.network.state_dict())
    settings: dict[str, Any] = {"lr": 2e-4, "betas": (0.8, 0.99)}
    optimisers = tuple(torch.optim.AdamW(network.parameters(), **settings) for network in (generator, discriminators))
    if maker.compiled:
        generator.compile()
        discriminators.compile()

    def loss_mel(heard: Tensor) -> Tensor:
        return mel_spectrogram(heard, config.loss_mel or config.mel)

    both = official_step(generator, discriminators, optimisers, lambda heard: _mel(config, heard), loss_mel)

    def step() -> tuple[Tensor, Tensor]:
        with _autocast(wave, maker.precision):
            return both(wave)

    def parts() -> Parts:
        mel, real = _mel(config, wave), wave[:, None]
        with torch.no_grad(), _autocast(wave, maker.precision):
            made = generator(mel).float()
        fake, ones = made.clone().requires_grad_(), torch.ones_like(made)

        def generate() -> None:
            with _autocast(wave, maker.precision):
                out = generator(mel)
            out.backward(ones.to(out.dtype))

        def discriminate() -> None:
            for loss_of in (discriminators_loss, generator_loss):
                with _autocast(wave, maker.precision):
                    loss = loss_of(discriminators, real, fake)
                loss.backward()

        def mels() -> None:
            _mel(config, wave)
            F.l1_loss(loss_mel(wave), loss_mel(fake[:, 0])).backward()

        def update() -> None:
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()

        return {"generator": generate, "discriminators": discriminate, "mels": mels, "optimisers": update}

    return step, parts


def _likely(
    task: LikelihoodTask, wave: Tensor, maker: Maker
) -> tuple[Callable[[], tuple[Tensor]], Callable[[], Parts]]:
    network = task.generator
    if maker.official:
        plain = partial(PARTS[task.config.generator.kind], network)
        network.negative_log_likelihood = plain  # type: ignore[assignment]

    def step() -> tuple[Tensor]:
        return (task.step(wave, step=1)[TOTAL],)

    def parts() -> Parts:
        mel = _mel(task.config, wave)

        def generator() -> None:
            parts: Any = network.negative_log_likelihood  # type: ignore[assignment]
            task.learner.backward(torch.stack([*parts(wave, mel).values()]).sum())

        return {"generator": generator, "mels": lambda: _mel(task.config, wave), "optimisers": task.learner.update}

    return step, parts


def _mel(config: TrainConfig, wave: Tensor) -> Tensor:
    return mel_spectrogram(wave, config.mel)[..., : wave.shape[-1] // config.mel.hop]


def _autocast(wave: Tensor, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(wave.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def main(recipe: str, maker: str, device: str, threads: str) -> None:
    """Make two steps, the second of which remembers the first, and print megabytes."""
    torch.set_num_threads(int(threads))
    bare = _most()
    step = Step(recipe, (makers(device) | LIKELIHOOD)[maker], device)
    for _ in range(2):
        step()
    print(round((_most() - bare) / 1e6))


def _most() -> int:
    """Return the most resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # what rusage says there begins with the parent's
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What all tasks of training have in common: networks that learn from batches, in steps that can be saved and resumed.

`TASKS` lists the configurations of tasks, to which others can be added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastvoc.blocks import ResidualBlocks
from fastvoc.config import Kinds
from fastvoc.train.learning import parallel
from fastvoc.train.learning.ema import MovingAverage
from fastvoc.train.learning.optimisers import Learner
from fastvoc.train.learning.weight_norm import add_weight_norm, load_plain_weights, plain_weights

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig
    from fastvoc.train.tasks.adversary import Adversary

Batch = Tensor | tuple[Tensor, Tensor]
Numbers = dict[str, Tensor]

TASKS = Kinds("task")


class TaskSettings(Protocol):
    """What the configuration of a task offers: a class made by `fastvoc.config.config`."""

    @property
    def kind(self) -> str:
        """The name in configurations."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if the settings of a run do not fit the task."""

    def build(self, run: TrainConfig, device: torch.device) -> Task:
        """Make the networks of a run with first weights."""


@contextmanager
def own_defaults() -> Iterator[None]:
    """Keep default dtype and device, autocast and modes without gradients of others out of a block or a function."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    # a default device costs every call of PyTorch, so there is one only where it hides another
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    try:
        with ExitStack() as stack:
            stack.enter_context(device)
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(dtype)


class Task(ABC):
    """A generator that learns, and everything about it that changes from step to step.

    A task adds what else learns to `networks` and `learners`, and says in `update` what a step does.

    Parameters
    ----------
    config : TrainConfig
    device : torch.device, optional
        By default the CPU.
    dtype : torch.dtype
        Of weights, waves and spectra.
    """

    adversary: Adversary | None = None
    """Discriminators that learn with the generator, if the task has any."""

    @own_defaults()
    def __init__(
        self, config: TrainConfig, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.precision = _precision(config.precision, self.device)
        torch.manual_seed(config.seed)
        generator: Any = config.generator.build()
        self.prepare(generator)
        self.generator = generator.to(self.device, dtype)
        add_weight_norm(self.generator, config.weight_norm)
        self.learner = self.learner_of(self.generator, config.optimiser)
        self.average = MovingAverage(self.generator, config.ema) if config.ema else None
        if config.recompute:
            found = [blocks for blocks in self.generator.modules() if isinstance(blocks, ResidualBlocks)]
            if not found:
                raise ValueError("recompute: the generator has no residual blocks to compute again; leave it out")
            for blocks in found:
                blocks.forward = partial(checkpoint, blocks.forward, use_reentrant=False)  # type: ignore[method-assign]
        if config.compile:
            # the generator's parts, as a step calls them one by one
            for part in self.generator.children():
                part.compile()

    def prepare(self, generator: Any) -> None:
        """Look at a generator before it learns, and raise one sentence if this task cannot teach it."""
        return

    @abstractmethod
    def update(self, batch: Batch, turn: Any) -> Numbers:
        """Make the updates of a step: all that happens on the device, the same at every step of such a turn.

        Returns
        -------
        dict of str to Tensor
            Scalars on the device: loss terms, and of each network that learns, as ``generator_gradient``, the norm of
            its gradient.
        """

    def turn(self, step: int) -> Hashable:
        """Say in which way a step differs from others, counted from 1; None where all steps are alike."""
        return None

    def schedule(self, turn: Any, epoch: int) -> None:
        """Set the learning rates of the updates of a step."""
        for learner in self.learners().values():
            learner.schedule(epoch)

    def step(self, batch: Batch, *, step: int, epoch: int = 0) -> Numbers:
        """Let all networks make an update.

        Parameters
        ----------
        batch : Tensor, shape (B, T); or a pair of it and what comes with each wave
            Waves in [-1, 1], on any device.
        step : int
            Number of this step, from 1.
        epoch : int
            From 0.

        Returns
        -------
        dict of str to Tensor
            As `update`.
        """
        turn = self.turn(step)
        self.schedule(turn, epoch)
        with own_defaults():
            numbers = self.update(batch, turn)
        self.follow(step)
        return numbers

    def follow(self, step: int) -> None:
        """Let the average follow the generator, once a step is made."""
        if self.average is not None:
            self.average.update(step - 1)

    def learner_of(self, network: nn.Module, config: Any) -> Learner:
        """Make what updates a network, by an `OptimiserConfig` and the precision of the run."""
        scaled = self.precision == torch.float16
        return Learner(network, config, scaled=scaled, captured=self.config.graph)

    def autocast(self) -> AbstractContextManager[Any]:
        """Let networks compute in the precision of the run in a `with` block."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def networks(self) -> dict[str, nn.Module]:
        """Return every network, by its name in the saved state."""
        return {"generator": self.generator} | ({"average": self.average.network} if self.average else {})

    def learners(self) -> dict[str, Learner]:
        """Return what updates the networks that learn, by their names."""
        return {"generator": self.learner}

    @own_defaults()
    def plain_generator(self) -> Any:
        """Return the generator as it is used: with the average's weights where there is one, without weight norm."""
        with torch.random.fork_rng([]):  # first weights are drawn, which must not change the run
            generator: Any = self.config.generator.build()
        generator.to(self.device).load_state_dict(
            plain_weights(self.average.network if self.average else self.generator)
        )
        return generator

    def validate(self, generator: Any, clips: Mapping[str, Tensor]) -> dict[str, float]:
        """Measure on validation clips what this task minimises, beside how near to them generated waves are.

        Parameters
        ----------
        generator : nn.Module
            From `plain_generator`.
        clips : mapping of str to Tensor, shape (T,), float32

        Returns
        -------
        dict of str to float
            Nothing, unless a task has something to say.
        """
        return {}

    def diagnosis(self) -> str:
        """Say what is wrong with the generator, once its numbers are not finite; empty where nothing is known."""
        says = getattr(self.generator, "diagnosis", None)
        return "" if says is None else str(says())

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take plain weights of a vocoder as the generator's first ones."""
        for name in self.networks().keys() & {"generator", "average"}:
            load_plain_weights(self.networks()[name], weights)

    def agree(self) -> None:
        """Give all processes the same weights."""
        parallel.agree([value for network in self.networks().values() for value in network.state_dict().values()])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, but the batch."""
        networks = {name: network.state_dict() for name, network in self.networks().items()}
        return networks | {f"{name}_learner": learner.state_dict() for name, learner in self.learners().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        for name, network in self.networks().items():
            network.load_state_dict(state[name])
        for name, learner in self.learners().items():
            learner.load_state_dict(state[f"{name}_learner"])


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        with torch.cuda.device(device):  # one before sm_80 emulates bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return torch.bfloat16
            # those from sm_70 on, such as a T4, have matrix units for float16, whose losses are scaled
            return torch.float16 if torch.cuda.get_device_capability() >= (7, 0) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype

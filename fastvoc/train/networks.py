"""The networks of a run and their optimisers: built, saved and restored together."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastvoc.audio.mel import mel_filters
from fastvoc.blocks import ResidualBlocks
from fastvoc.models import Generator, GriffinLimNet
from fastvoc.train import parallel
from fastvoc.train.adversary import Adversary
from fastvoc.train.config import TrainConfig
from fastvoc.train.ema import MovingAverage
from fastvoc.train.optimisers import Learner
from fastvoc.train.weight_norm import dress, load_plain_weights, plain_weights


class Networks:
    """A generator, its adversary, and everything about them that changes from step to step.

    Parameters
    ----------
    config : TrainConfig
    device : torch.device, optional
        By default the CPU.
    dtype : torch.dtype
        Of weights, waves and spectra.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config
        self.device = device or torch.device("cpu")
        self.precision = _precision(config.precision, self.device)
        scaled = self.precision == torch.float16
        torch.manual_seed(config.seed)
        generator: Generator = config.generator.build()
        if isinstance(generator, GriffinLimNet):
            generator.start_from(torch.from_numpy(mel_filters(config.mel)))
        self.generator = generator.to(self.device, dtype)
        dress(self.generator, config.weight_norm)
        self.learner = Learner(self.generator, config.optimiser, scaled=scaled, captured=config.graph)
        self.average = MovingAverage(self.generator, config.ema) if config.ema else None
        self.adversary = (
            Adversary(config.adversary, self.device, dtype, scaled=scaled, captured=config.graph)
            if config.adversary is not None
            else None
        )
        if config.recompute:
            for blocks in self.generator.modules():
                if isinstance(blocks, ResidualBlocks):
                    blocks.forward = partial(checkpoint, blocks.forward, use_reentrant=False)  # type: ignore[method-assign]
        if config.compile:
            # the generator's parts, as a step calls them one by one
            for part in (*self.generator.children(), *([self.adversary.network] if self.adversary else [])):
                part.compile()

    def networks(self) -> dict[str, nn.Module]:
        """Return every network, by its name in the saved state."""
        networks: dict[str, nn.Module] = {"generator": self.generator}
        if self.adversary is not None:
            networks["discriminators"] = self.adversary.network
        if self.average is not None:
            networks["average"] = self.average.network
        return networks

    def plain_generator(self) -> Generator:
        """Return the generator as it is used: with the average's weights where there is one, without weight norm."""
        with torch.random.fork_rng([]):  # first weights are drawn, which must not change the run
            generator: Generator = self.config.generator.build()
        generator.to(self.device).load_state_dict(
            plain_weights(self.average.network if self.average else self.generator)
        )
        return generator

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take plain weights of a vocoder as the generator's first ones."""
        for name in self.networks().keys() & {"generator", "average"}:
            load_plain_weights(self.networks()[name], weights)

    def start_adversary_from(self, weights: dict[str, Tensor]) -> None:
        """Take the first weights of the discriminators from an earlier run.

        Raises
        ------
        ValueError
            If they are other discriminators.
        """
        network = self.networks().get("discriminators", nn.Identity())
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"start_adversary_from: its discriminators are others: {reason}") from None

    def agree(self) -> None:
        """Give all processes the same weights."""
        parallel.agree([value for network in self.networks().values() for value in network.state_dict().values()])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on, but the batch."""
        state: dict[str, Any] = {name: network.state_dict() for name, network in self.networks().items()}
        state["generator_learner"] = self.learner.state_dict()
        if self.adversary is not None:
            state["discriminators_learner"] = self.adversary.learner.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        for name, network in self.networks().items():
            network.load_state_dict(state[name])
        self.learner.load_state_dict(state["generator_learner"])
        if self.adversary is not None:
            self.adversary.learner.load_state_dict(state["discriminators_learner"])


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype

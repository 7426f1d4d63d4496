"""How a network follows its gradients: optimiser, learning rate, clipping.

A learning rate is a function of the updates made and the epoch, not a state, so there is nothing of it to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from fastvoc.config import config
from fastvoc.train.learning import parallel

_CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
}


@config
class ScheduleConfig:
    """What the learning rate is multiplied by as training goes on."""

    kind: Literal["constant", "exponential", "steps", "cosine"] = "constant"
    """Constant; times `decay` at each unit of `per`; times `decay` at each of `milestones`; or half a cosine."""
    per: Literal["epoch", "update"] = "update"
    """Unit of the decay: official HiFi-GAN decays once per epoch, BigVGAN once per update."""
    decay: float = Field(1.0, gt=0, le=1)
    """Factor per unit, or per milestone."""
    milestones: tuple[PositiveInt, ...] = ()
    """Units after which the rate is multiplied by `decay`."""
    factors: tuple[PositiveFloat, ...] = ()
    """What the first rate is multiplied by behind each of `milestones`, where these are no powers of one `decay`."""
    length: PositiveInt | None = None
    """Units in which the cosine falls to its lowest value."""
    lowest: float = Field(0.0, ge=0, lt=1)
    """Fraction of the rate at the end of the cosine."""
    warm_up: int = Field(0, ge=0)
    """Updates in which the rate rises linearly from zero."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "steps" and not self.milestones:
            raise ValueError("a schedule of steps needs milestones")
        if self.factors and (self.kind != "steps" or len(self.factors) != len(self.milestones) or self.decay != 1):
            raise ValueError(
                f"factors are {len(self.factors)} and milestones {len(self.milestones)}; factors are for kind steps, "
                "one for each milestone, and without decay"
            )
        if self.kind == "cosine" and self.length is None:
            raise ValueError("a cosine needs its length")
        return self

    def factor(self, updates: int, epoch: int) -> float:
        """Return the factor of the next update, after `updates` of them and in this epoch (from 0)."""
        units = epoch if self.per == "epoch" else updates
        rise = min(1.0, (updates + 1) / (self.warm_up + 1))
        if self.kind == "exponential":
            return rise * self.decay**units
        if self.factors:
            return rise * (1.0, *self.factors)[sum(units >= milestone for milestone in self.milestones)]
        if self.kind == "steps":
            return rise * self.decay ** sum(units >= milestone for milestone in self.milestones)
        if self.kind == "cosine" and self.length is not None:
            fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, units / self.length))
            return rise * (self.lowest + (1 - self.lowest) * fall)
        return rise


@config
class OptimiserConfig:
    """An optimiser and its learning rate."""

    kind: Literal["adam", "adamw", "radam"]
    """RAdam: Liu 2020, arXiv:1908.03265."""
    learning_rate: PositiveFloat
    """Before the schedule's factor."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient and of its square."""
    epsilon: PositiveFloat = 1e-8
    """Added to the root of the mean square."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled in AdamW, whose default in PyTorch is 0.01."""
    amsgrad: bool = False
    """Keep the largest mean square (Reddi 2018)."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Of the learning rate."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; a larger one is scaled down."""
    clip_by: Literal["network", "variable"] = "network"
    """Whose norm that is: of all variables together, or of each (Keras' clipnorm)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.amsgrad and self.kind == "radam":
            raise ValueError("radam has no amsgrad; use adam or adamw")
        return self


class Learner:
    """The variables of one network, and how they learn.

    Parameters
    ----------
    network : nn.Module
        On its device.
    config : OptimiserConfig
    scaled : bool
        Scale losses so that gradients in half precision do not vanish.
    captured : bool
        Keep all that changes from update to update on the device, so that a CUDA graph of an update holds for others.
    sizes : mapping of Parameter to float, optional
        Of variables that learn as if they were stored divided by this size, and multiplied by it when they are used:
        their learning rate is as much larger, and what is added to the divisor as much smaller. Not with `captured`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: OptimiserConfig,
        *,
        scaled: bool = False,
        captured: bool = False,
        sizes: Mapping[Tensor, float] | None = None,
    ) -> None:
        self.config = config
        self.variables = [variable for variable in network.parameters() if variable.requires_grad]
        groups: dict[float, list[nn.Parameter]] = {}
        for variable in self.variables:
            groups.setdefault((sizes or {}).get(variable, 1.0), []).append(variable)
        self._sizes = list(groups)
        self.updates = 0
        self.rate = config.learning_rate
        """The learning rate of the latest update."""
        # RAdam is the one that PyTorch has not fused.
        self.fused = config.kind != "radam"
        options: dict[str, Any] = {"fused": True, "amsgrad": config.amsgrad} if self.fused else {}
        self._rate = torch.tensor(self.rate, device=self.variables[0].device) if captured else None
        options |= {"capturable": True} if captured else {}
        self.optimiser = _CLASSES[config.kind](
            [{"params": some, "eps": config.epsilon / size} for size, some in groups.items()],
            lr=self.rate if self._rate is None else self._rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            **options,
        )
        self.scaler = torch.amp.GradScaler(self.variables[0].device.type, enabled=scaled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss; it reaches this network's variables and no other's."""
        torch.autograd.backward(self.scaler.scale(loss), inputs=self.variables)

    def schedule(self, epoch: int) -> None:
        """Set the learning rate of the next update, in an epoch from 0, and count it."""
        self.rate = self.config.learning_rate * self.config.schedule.factor(self.updates, epoch)
        if self._rate is not None:
            self._rate.fill_(self.rate)
        else:
            for group, size in zip(self.optimiser.param_groups, self._sizes, strict=True):
                group["lr"] = self.rate * size
        self.updates += 1

    def update(self) -> Tensor:
        """Follow the gradient and forget it.

        An update whose gradient is not finite is left out, on the device, without waiting for it.

        Returns
        -------
        Tensor, scalar
            Norm of the gradient before it is clipped.
        """
        gradients = [variable.grad for variable in self.variables if variable.grad is not None]
        parallel.average(gradients)
        self.scaler.unscale_(self.optimiser)
        norm = self._clip(gradients)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimiser)
            self.scaler.update()
        elif self.fused:
            # the flag by which GradScaler, too, tells a fused optimiser to leave out an update
            self.optimiser.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            self.optimiser.grad_scale = None  # type: ignore[attr-defined]
            self.optimiser.step()
        elif norm.isfinite():
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _clip(self, gradients: list[Tensor]) -> Tensor:
        norms = torch.stack(torch._foreach_norm(gradients))
        norm: Tensor = torch.linalg.vector_norm(norms)
        if self.config.clip is not None:
            longest = norms if self.config.clip_by == "variable" else norm.expand(len(gradients))
            factors = (self.config.clip / longest).clamp(max=1.0)
            torch._foreach_mul_(gradients, list(factors.unbind()))
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on, but the variables."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` returned."""
        names = ("lr", "capturable")  # where the next rate is written, and whether it may be
        own = [{name: group.get(name) for name in names} for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, values in zip(self.optimiser.param_groups, own, strict=True):
            group.update(values)
        self.scaler.load_state_dict(state["scaler"])
        self.updates = state["updates"]

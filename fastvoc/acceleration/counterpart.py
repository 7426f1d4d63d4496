"""What runs in the place of a live generator: its network with the weights as they are, or its own forward."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from fastvoc.audio.mels.spectrogram import loud_mel
from fastvoc.checkpoints.comparison import frames_reflected, network_of, refuse_difference
from fastvoc.checkpoints.live import Found, find_generator, read_module
from fastvoc.checkpoints.modules import Live
from fastvoc.engine import Choice, Runner, Synthesizer, WeightVersion
from fastvoc.engine.surroundings import autocasts, own_arithmetic
from fastvoc.graph import hooks_of_all_modules
from fastvoc.ops.kept import PLAIN

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class _Made:
    """What runs in the place of a module with its weights as they are, or why nothing can."""

    revision: object
    settings: Settings
    """Of the original, which no version counts."""
    reason: str | None
    synthesizer: Synthesizer | None = None
    weights: tuple[Tensor, ...] = ()
    shortest: int = 1
    """Frames that it needs, since layers reflect so many."""

    def is_of(self, module: nn.Module, revision: object) -> bool:
        """Tell whether a module with weights of a revision is still what this was made of."""
        return self.revision is revision and not self.settings.differ(module)

    @property
    def runner(self) -> Runner:
        """What chooses how the network is run."""
        assert self.synthesizer is not None
        return self.synthesizer.runner


class Counterpart:
    """A module's network as fastvoc runs it; it does not hold the module, which holds it."""

    def __init__(self, found: Found, backend: str | None) -> None:
        self.kind = type(found.module)
        self.format = found.format
        self.backend = backend
        self.latest: str | None = None
        self.version = WeightVersion(_watched(found.module))
        self._live = found.live
        self._signature = inspect.signature(self.kind.forward)
        self._lock = threading.RLock()
        self._compared: Any = None
        self._made: _Made | None = None

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Run a call of the module's forward."""
        call = self._call(module, arguments, named)
        self.latest = call if isinstance(call, str) else None
        return self.kind.forward(module, *arguments, **named) if isinstance(call, str) else call()

    def _call(
        self, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Callable[[], Tensor] | str:
        """Return what runs a call, or why the original has to."""
        # weights that are being trained are not read again at each step
        if reason := self._original(module):
            return reason
        made = self.made(module)
        if made.synthesizer is None:
            return made.reason or ""
        if reason := self._original(module):
            return reason
        call = self._read(made, module, arguments, named)
        return call if isinstance(call, str) else partial(call.run, made.synthesizer)

    def _original(self, module: nn.Module) -> str | None:
        """Return why the original has to run here and now, whatever it is given, or None."""
        if module.training:
            return "it is in training mode; call eval() to make sound only"
        return _surroundings(tuple(module.parameters()) if self._made is None else self._made.weights)

    def explain(self, module: nn.Module) -> dict[str, str | None]:
        """Say what would run a call here and now."""
        made = self.made(module)
        reason = made.reason or self._original(module)
        if made.synthesizer is None:
            return {"plan": reason}
        return {name: reason or own for name, own in made.synthesizer.runner.explain().items()}

    def made(self, module: nn.Module) -> _Made:
        """Return what runs with the weights as they are."""
        revision = self.version.revision()
        made = self._made
        if made is None or not made.is_of(module, revision):
            with self._lock:
                made = self._made
                if made is None or not made.is_of(module, revision):
                    settings = Settings(module)
                    # nothing that surrounds the first call after a change belongs to what is made
                    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"), own_arithmetic(_CPU):
                        try:
                            made = self._make(module, revision, settings)
                        except ValueError as error:
                            made = _Made(revision, settings, str(error), weights=tuple(module.parameters()))
                    self._made = made
        return made

    def _make(self, module: nn.Module, revision: object, settings: Settings) -> _Made:
        weights = tuple(module.parameters())
        if len({(weight.device, weight.dtype) for weight in weights}) != 1:
            raise ValueError(f"{self.kind.__name__}: has weights of several dtypes or on several devices")
        found = find_generator(module, self.kind.__name__)
        if found.module is not module:
            raise ValueError(f"{self.kind.__name__}: is no longer a generator that is known")
        checkpoint, weight = read_module(found), weights[0]
        generator = network_of(found, checkpoint)
        sizes = [len(vars(one)) for one in module.modules()]
        structure = (found.live, [*map(type, module.modules())], sizes, settings.values)
        if structure != self._compared:  # other values alone make no other network
            refuse_difference(found, generator)
            self._compared = structure
        choice = Choice(
            generator.to(weight.device, weight.dtype),
            backend=self.backend,
            precision=weight.dtype,  # as PyTorch's own convolutions multiply, not in fewer bits
            int8={},
            loud=partial(loud_mel, checkpoint.config.mel),
        )
        self._live = found.live
        synthesizer = Synthesizer(Runner(choice, self.version), edge_frames=None)
        return _Made(revision, settings, None, synthesizer, weights, frames_reflected(generator) + 1)

    def _read(
        self, made: _Made, module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> _Call | str:
        """Return a call as the network takes it, or why only the original can say what it means."""
        try:
            bound = self._signature.bind(module, *arguments, **named)
        except TypeError:
            return "its arguments are not those of its forward"
        _, *given = bound.arguments.items()
        condition = None
        for name, value in given[1:]:
            if name == self._live.condition:
                condition = value
            elif value is not None and not (isinstance(value, dict) and not value):
                return f"it was given {name}, which only the original knows"
        if not given:
            return "it was given no mel"
        return _read_call(given[0][1], condition, made, self._live)


@dataclass(frozen=True, eq=False)
class _Call:
    """A call as the network takes it."""

    mel: Tensor
    condition: Tensor | None
    subbands: bool
    shaped: Callable[[Tensor], Tensor]
    """(B, 1 or sub-bands, samples) → what the original returns."""

    def run(self, synthesizer: Synthesizer) -> Tensor:
        """Make the wave."""
        with own_arithmetic(self.mel.device):
            if not self.subbands:
                return self.shaped(synthesizer.voice(self.mel, self.condition)[:, None])
            with torch.inference_mode():
                made = synthesizer.runner.fastest()(self.mel.contiguous())
            return self.shaped(made.clone())  # outside inference mode, so that others may differentiate what they do


def _read_call(mel: Any, condition: Any, made: _Made, live: Live) -> _Call | str:
    weight, network = made.weights[0], made.runner.network
    if (
        type(mel) not in PLAIN
        or mel.layout != torch.strided
        or mel.device != weight.device
        or mel.dtype != weight.dtype
    ):
        return f"its input is not a plain tensor of {weight.dtype} on {weight.device}"
    if mel.requires_grad and torch.is_grad_enabled():
        return _GRADIENTS
    single = mel.dim() == 2
    batch = mel[None] if single else mel
    if live.turned and batch.dim() == 3:
        batch = batch.mT
    if batch.dim() != 3 or batch.shape[1] != network.mel_bands or not batch.shape[0]:
        return f"its input has shape {tuple(mel.shape)}, which is no mel of {network.mel_bands} bands"
    if batch.shape[2] < made.shortest:
        return f"its input has {batch.shape[2]} frames; layers that reflect need {made.shortest} to be sure of enough"
    if (condition is not None) != bool(network.condition_channels):
        return "it needs a condition" if condition is None else "it takes no condition"
    if condition is not None:
        shape = (batch.shape[0], network.condition_channels, 1)
        if not _is_alike(condition, weight) or condition.shape != shape:
            return f"its condition is not a plain tensor of shape {shape} and {weight.dtype} on {weight.device}"
        if condition.requires_grad and torch.is_grad_enabled():
            return _GRADIENTS
        condition = condition[..., 0]

    def shaped(wave: Tensor) -> Tensor:
        wave = wave[:, 0] if live.turned else wave
        return wave[0] if single else wave

    return _Call(batch.detach(), condition, live.subbands, shaped)


def _is_alike(value: Any, weight: Tensor) -> bool:
    """Whether something is a plain tensor of the dtype and on the device of the weights."""
    plain = type(value) in PLAIN and value.layout == torch.strided
    return plain and value.device == weight.device and value.dtype == weight.dtype


_GRADIENTS = "gradients are recorded; call it inside torch.inference_mode() or torch.no_grad()"


def _surroundings(weights: tuple[Tensor, ...]) -> str | None:
    """Return why the original has to run here and now, whatever it is given, or None."""
    if any(hooks_of_all_modules()):
        return "hooks are registered for all modules, which only modules that are called run"
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "a function transform looks into it"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode, such as a tracer, looks at each of its operators"
    if torch._C._is_tracing():
        return "it is being traced"
    if weights and autocasts(weights[0].device):
        return "autocast is on, which decides about the dtypes inside it"
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        return _GRADIENTS
    return None


class Settings:
    """The settings of a network that its `forward` may read beside its tensors, as they are now.

    They are numbers, names, and tuples of them, in the modules inside and in what the outermost one holds as
    ``config``. What that itself holds beside is often no setting, such as a count of calls, and is not looked at.
    """

    def __init__(self, module: nn.Module) -> None:
        self._config = vars(module).get("config")
        owners = [vars(inner) for name, inner in module.named_modules() if name]
        owners += [vars(self._config)] if hasattr(self._config, "__dict__") else []
        names = [[name for name, value in owner.items() if _is_setting(name, value)] for owner in owners]
        self._read = [(owner, itemgetter(*some)) for owner, some in zip(owners, names, strict=True) if some]
        self.values = self._now()

    def _now(self) -> list[Any]:
        return [read(owner) for owner, read in self._read]

    def differ(self, module: nn.Module) -> bool:
        """Tell whether a setting is another one now, or is no more."""
        try:
            return vars(module).get("config") is not self._config or self.values != self._now()
        except (KeyError, RuntimeError, TypeError, ValueError):  # one is no more, or has become a tensor
            return True


def _is_setting(name: str, value: Any) -> bool:
    # what is run is not in training mode anyway
    return isinstance(value, bool | int | float | str | tuple | None) and name != "training"


def _watched(module: nn.Module) -> nn.Module:
    """Return a module that has the tensors and modules of another one, but does not hold that itself."""
    stand_in = nn.Module()
    for name in ("_parameters", "_buffers", "_modules"):
        stand_in.__dict__[name] = module.__dict__[name]
    return stand_in

"""Going on with a run of another project: its weights, what its optimisers remember, and its place.

An optimiser numbers the variables of its network in the order in which they were made, which is also that of the
tensors in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.tensor_names import refuse_broken
from fastvoc.config import config, to_dict
from fastvoc.train import state
from fastvoc.train.learning.optimisers import Learner
from fastvoc.train.tasks.task import Task

_ALONE = "take its weights alone by start_from and start_adversary_from"


class Part(NamedTuple):
    """A network of a run, and its optimiser."""

    weights: dict[str, Tensor]
    """Under our names, in the order of the file."""
    kind: str
    """Of the optimiser, as in `OptimiserConfig`."""
    memory: Any
    """What the optimiser's ``state_dict`` returned."""


@dataclass(frozen=True, eq=False)
class ForeignRun:
    """What another project saved of a run."""

    path: Path
    generator: Part
    discriminators: Part
    epoch: int
    """The one to begin, from 0."""


@config
class _Group:
    """Settings of an optimiser that PyTorch keeps in its state."""

    lr: float
    initial_lr: float | None = None
    """Before the schedule's factor, where there is a schedule."""
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool | None = None
    """RAdam has none."""
    decoupled_weight_decay: bool | None = None
    """Newer files tell AdamW from Adam by it."""
    params: tuple[NonNegativeInt, ...]
    """Numbers of the variables."""


def hand_over(run: ForeignRun, task: Task, *, strict: bool) -> int:
    """Let a task go on with a foreign run.

    Parameters
    ----------
    run : ForeignRun
    task : Task
        Of the same networks, with an adversary; it has made no update.
    strict : bool
        Refuse optimisers with other settings than the task's.

    Returns
    -------
    int
        Updates that the generator has made.

    Raises
    ------
    ValueError
        One sentence: weights, an optimiser or its settings that do not fit.
    """
    if task.adversary is None:
        raise ValueError(f"{run.path}: holds discriminators, but the settings have no adversary")
    averages = [task.average.network] if task.average else []
    _load(run.generator.weights, [task.generator, *averages], f"{run.path}: the generator")
    _load(run.discriminators.weights, [task.adversary.network], f"{run.path}: the adversary")
    for part, learner, network, name in (
        (run.generator, task.learner, task.generator, "optimiser"),
        (run.discriminators, task.adversary.learner, task.adversary.network, "adversary.optimiser"),
    ):
        _remember(part, learner, network, f"{run.path}: {name}", name if strict else None)
    return task.learner.updates


def _load(weights: dict[str, Tensor], networks: list[nn.Module], where: str) -> None:
    """Give networks the weights of a file, magnitudes and directions as they are."""
    refuse_broken(weights, where)
    needed = networks[0].state_dict()
    norms = [name for name in needed if ".parametrizations." in name]
    missing = [name for name in (*dict(networks[0].named_parameters()), *norms) if name not in weights]
    unknown = [name for name in weights if name not in needed]
    if missing or unknown:
        without = f"without {missing[0]}" if missing else f"with {unknown[0]}"
        raise ValueError(f"{where} is another one or has other norms, {without}; {_ALONE}")
    for name, weight in weights.items():
        if weight.shape != needed[name].shape:
            raise ValueError(
                f"{where} has {name} of shape {tuple(weight.shape)}, the settings need {tuple(needed[name].shape)}"
            )
    for network in networks:
        network.load_state_dict(weights, strict=False)  # the rest are constants of the settings


def _remember(part: Part, learner: Learner, network: nn.Module, where: str, compared: str | None) -> None:
    """Give a learner the memory of a foreign optimiser; compare the settings of both under a name, if there is one."""
    entries, group = _opened(part.memory, where)
    names = {variable: name for name, variable in network.named_parameters()}
    order = [name for name in part.weights if name in names.values()]
    if sorted(group.params) != list(range(len(order))):
        raise ValueError(f"{where} has {len(group.params)} variables in the file, its network {len(order)}; {_ALONE}")
    _compare(part.kind, group, learner, where, compared)
    if not entries:
        return  # it has not begun to learn
    needed = ["step", "exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if learner.config.amsgrad else [])]
    places = {names[variable]: place for place, variable in enumerate(learner.variables)}
    memory: dict[int, dict[str, Tensor]] = {}
    for number, name in zip(group.params, order, strict=True):
        entry = entries.get(number)
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), Tensor) for key in needed[1:]):
            raise ValueError(f"{where} has no {' and '.join(needed[1:])} of {name} in the file; {_ALONE}")
        variable = learner.variables[places[name]]
        tensors = {key: entry[key] for key in needed[1:]}
        refuse_broken(tensors, f"{where}: {name}")
        if any(tensor.shape != variable.shape for tensor in tensors.values()):
            raise ValueError(f"{where} remembers another shape of {name} than {tuple(variable.shape)}; {_ALONE}")
        memory[places[name]] = {key: tensor.clone() for key, tensor in tensors.items()}
        memory[places[name]]["step"] = torch.tensor(_steps(entry.get("step"), where))
    restored = learner.state_dict()
    restored["optimiser"]["state"] = memory
    restored["updates"] = max(int(entry["step"]) for entry in memory.values())
    learner.load_state_dict(restored)


def _opened(memory: Any, where: str) -> tuple[Mapping[Any, Any], _Group]:
    entries = memory.get("state") if isinstance(memory, Mapping) else None
    groups = memory.get("param_groups") if isinstance(memory, Mapping) else None
    if not isinstance(entries, Mapping) or not isinstance(groups, list) or len(groups) != 1:
        raise ValueError(f"{where} is not what one of PyTorch saves of variables that it treats alike; {_ALONE}")
    try:
        return entries, foreign_settings.pick(_Group, groups[0], where)
    except ValueError:
        raise ValueError(f"{where} is none of adam, adamw and radam in the file; {_ALONE}") from None


def _compare(kind: str, group: _Group, learner: Learner, where: str, compared: str | None) -> None:
    settings = to_dict(learner.config)
    if group.decoupled_weight_decay is not None and group.amsgrad is not None:
        kind = "adamw" if group.decoupled_weight_decay else "adam"
    if kind != settings["kind"] or (group.amsgrad is None) != (kind == "radam"):
        raise ValueError(f"{where} is {settings['kind']}, in the file it is another kind ({kind}); {_ALONE}")
    theirs = {
        "learning_rate": group.lr if group.initial_lr is None else group.initial_lr,
        "betas": list(group.betas),
        "epsilon": group.eps,
        "weight_decay": group.weight_decay,
        "amsgrad": bool(group.amsgrad),
    }
    changed = state.differences(theirs, {name: settings[name] for name in theirs}, compared) if compared else []
    if changed:
        raise ValueError(f"{where} has other settings than in the file: {'; '.join(changed)}; restore or allow changes")


def _steps(value: Any, where: str) -> float:
    """Return the updates of a variable, which older files hold as an integer."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, (int, float)) or not 0 <= value < 1 << 24:
        raise ValueError(f"{where} counts {value!r} as updates; expected a number that float32 can count to")
    return float(value)

"""Reads generators of other projects that are already in memory: live modules, and dictionaries of their tensors.

Nothing is guessed from names alone: the format of the project reads settings and tensors as it reads those of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.checkpoint import Checkpoint
from fastvoc.checkpoints.formats import FORMATS
from fastvoc.checkpoints.modules import Live
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import refuse_broken
from fastvoc.graph import hooks_of
from fastvoc.models import Generator


class Found(NamedTuple):
    """A generator inside a live module."""

    name: str
    """Of the module in the one that was looked through; empty where it is that itself."""
    module: nn.Module
    format: str
    """Name of the format that reads it."""
    live: Live


def find_generator(module: nn.Module, where: str) -> Found:
    """Find the one generator of a known project in a module.

    Parameters
    ----------
    module : nn.Module
        The generator, or a model that has it inside, at any depth.
    where : str
        What error messages begin with.

    Raises
    ------
    TypeError
        If it is no module.
    ValueError
        If there is none in it, or there are several, or it is fastvoc's own.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"{where}: module is a {type(module).__name__}; it must be a torch.nn.Module")
    found: list[Found] = []
    for name, inner in module.named_modules():
        if any(name.startswith(f"{other.name}." if other.name else "") for other in found):
            continue
        if one := _recognised(name, inner):
            found.append(one)
    if not found:
        if own := next((inner for inner in module.modules() if isinstance(inner, Generator)), None):
            raise ValueError(f"{where}: {type(own).__name__} is fastvoc's own network already; call a Vocoder of it")
        known = ", ".join(one.title for one in FORMATS if one.live is not None)
        raise ValueError(
            f"{where}: {type(module).__name__} is no generator that is known, and has none inside; known are those of "
            f"{known}; the tensors of others may be what Vocoder.from_state_dict reads"
        )
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ValueError(
            f"{where}: {type(module).__name__} has {len(found)} generators inside, {names}; give them one by one"
        )
    return found[0]


def _recognised(name: str, module: nn.Module) -> Found | None:
    if isinstance(module, torch.jit.ScriptModule):
        return None
    for one in FORMATS:
        if one.live is None or (live := one.live(module)) is None:
            continue
        if one.at(_source(module, _state(module, live), live)) is not None:
            return Found(name, module, one.name, live)
    return None


def read_module(found: Found) -> Checkpoint:
    """Read a live generator as its format reads a file; weights are in double precision, on the CPU.

    Raises
    ------
    ValueError
        If a tensor or a setting does not fit, a tensor is on the meta device or holds values that are not finite, or
        something has been put into the generator that only its own modules run.
    """
    module, live, state = found.module, found.live, _state(found.module, found.live)
    if meta := [name for name, tensor in state.items() if tensor.is_meta]:
        raise ValueError(f"{type(module).__name__}: {meta[0]} is on the meta device; it needs values first")
    double = {
        name: tensor.to("cpu", torch.float64) if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in state.items()
    }
    refuse_broken(
        {name: tensor for name, tensor in double.items() if tensor.is_floating_point()}, type(module).__name__
    )
    _refuse_added(module)
    one = FORMATS[found.format]
    source = one.at(_source(module, double, live))
    if source is None:
        raise ValueError(f"{type(module).__name__}: its tensors are no longer those of {one.title}")
    return one.read(source)


def state_source(state: Mapping[str, Tensor], config: Mapping[str, Any] | str | Path, where: str) -> Source:
    """Return tensors and settings of any format as a source that is read like a file.

    Parameters
    ----------
    state : mapping of str to Tensor
        Under the names of the original, with whatever a file would have around them.
    config : mapping, str or Path
        The original's settings: as plain values, a file, or the name of a preset.
    where : str
        What error messages begin with.
    """
    content = held(state, where)
    if not isinstance(config, Mapping | str | PathLike):
        raise TypeError(
            f"{where}: config is a {type(config).__name__}; it must be a VocoderConfig, a dictionary of settings, a "
            "file of them, or the name of a preset"
        )
    if isinstance(config, Mapping):
        foreign_settings.check_size(config, f"{where}: config")
        parsed, path = {str(name): value for name, value in config.items()}, _SETTINGS
        return Source(Path(where), path, content, _parsed={path: parsed})
    path, presets = Path(config), FORMATS.presets
    if path.is_file():
        return Source(Path(where), path, content)
    if str(config) not in presets:
        raise FileNotFoundError(f"{where}: config {str(config)!r} is no file, and no preset: {', '.join(presets)}")
    return Source(Path(where), path, content, _parsed={path: presets[str(config)]})


def held(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a dictionary of tensors holds, on the CPU but for tensors without values, which readers refuse.

    Raises
    ------
    TypeError
        In the name of `where`, if it is none.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{where}: state is a {type(state).__name__}; it must be a dictionary of tensors")
    return {name: _on_cpu(value) for name, value in state.items()}


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _on_cpu(inner) for name, inner in value.items()}
    if isinstance(value, Tensor):
        return value.detach() if value.is_meta else value.detach().cpu()
    return value


def _refuse_added(module: nn.Module) -> None:
    """Raise if something has been put into a network that only its own modules run when they are called.

    Raises
    ------
    ValueError
        Naming the module. Weight norm is part of these networks, and hooks of the outermost module run around it.
    """
    for name, inner in module.named_modules():
        where = f"{type(module).__name__}: its module {name!r}" if name else f"{type(module).__name__}: it"
        if name and "forward" in vars(inner):
            raise ValueError(f"{where} has another forward than its class {type(inner).__name__}; take it out first")
        hooks = [hook for some in hooks_of(inner) for hook in some.values()]
        if name and any(type(hook).__name__ != "WeightNorm" for hook in hooks):
            raise ValueError(f"{where} has forward hooks, which only a module that is called runs; remove them first")
        if isinstance(inner, nn.Conv1d | nn.ConvTranspose1d) and not _is_plain(inner):
            raise ValueError(f"{where} is a {type(inner).__name__}, which is no plain convolution; merge it first")


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is PyTorch's own, under weight norm at most."""
    if not is_parametrized(layer):
        return type(layer) in (nn.Conv1d, nn.ConvTranspose1d)
    parametrizations: Any = layer.parametrizations
    kinds = [type(one).__name__ for several in parametrizations.values() for one in several]
    return type(layer).__bases__[0] in (nn.Conv1d, nn.ConvTranspose1d) and kinds == ["_WeightNorm"]


_SETTINGS = Path("config")


def _source(module: nn.Module, state: Mapping[str, Tensor], live: Live) -> Source:
    settings = Path(f"the modules of {type(module).__name__}")
    return Source(Path(type(module).__name__), settings, dict(state), _parsed={settings: live.settings})


def _state(module: nn.Module, live: Live) -> dict[str, Tensor]:
    own = {f"{live.prefix}{name}": tensor.detach() for name, tensor in module.state_dict().items()}
    return {**own, **live.beside}

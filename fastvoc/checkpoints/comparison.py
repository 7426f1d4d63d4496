"""Whether a live generator computes what our network of its settings does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc import ops
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.audio.mels.convert import find_convention
from fastvoc.checkpoints.checkpoint import Checkpoint, VocoderConfig
from fastvoc.checkpoints.live import Found, find_generator, read_module
from fastvoc.config import from_dict, to_dict
from fastvoc.models import Generator
from fastvoc.models.melgan import MelGAN

_NEAR = 1e-9
"""Distance of two waves in double precision, relative to the largest sample, that rounding explains."""

_FRAMES = 6
"""Of the random mel, where no layer needs more."""


def open_module(module: nn.Module, mel: MelConfig | str | None, where: str) -> tuple[Checkpoint, Tensor]:
    """Read a live generator that was compared with our network.

    Parameters
    ----------
    module : nn.Module
        The generator, or a model that has one inside.
    mel : MelConfig or str, optional
        The convention of its mels, or its name; needed where the module does not say it.
    where : str
        What error messages begin with.

    Returns
    -------
    Checkpoint, Tensor
        With weights in double precision, and one of the module's own, of whose dtype and device the others are.
    """
    found = find_generator(module, where)
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        checkpoint = read_module(found)
        refuse_difference(found, network_of(found, checkpoint))
    if found.live.subbands:
        raise ValueError(
            f"{where}: {type(found.module).__name__} makes sub-bands, and does not say which filter bank joins them; "
            "open its file, or accelerate it where it is"
        )
    if mel is None and not found.live.says_mel:
        raise ValueError(
            f"{where}: {type(found.module).__name__} does not say how its mels were made; name that as mel=, a "
            f"MelConfig or one of {', '.join(CONVENTIONS)}"
        )
    if mel is not None:
        values = to_dict(checkpoint.config) | {"mel": find_convention(mel)}
        checkpoint = replace(checkpoint, config=from_dict(VocoderConfig, values, where))
    return checkpoint, next(found.module.parameters())


def network_of(found: Found, checkpoint: Checkpoint) -> Generator:
    """Return our network that does what a live generator does, in double precision."""
    generator: Generator = checkpoint.config.generator.build().double().requires_grad_(False).eval()
    generator.load_state_dict(checkpoint.weights)
    if found.live.subbands:
        assert isinstance(generator, MelGAN)
        return generator.up_to_subbands().double().requires_grad_(False).eval()
    return generator


def refuse_difference(found: Found, generator: Generator) -> None:
    """Raise if a live generator makes other samples of a random mel than our network, both in double precision.

    Parameters
    ----------
    found : Found
    generator : Generator
        Of its settings and weights, in double precision on the CPU.

    Raises
    ------
    ValueError
        Saying how far apart they are, or what the original's code raised.
    """
    kind, random = type(found.module).__name__, torch.Generator().manual_seed(0)
    mel = torch.randn(
        1, generator.mel_bands, max(_FRAMES, frames_reflected(generator) + 1), dtype=torch.float64, generator=random
    )
    given: dict[str, Tensor] = {}
    if found.live.condition is not None:
        shape = 1, generator.condition_channels, 1
        given[found.live.condition] = torch.randn(shape, dtype=torch.float64, generator=random)
    try:
        original: Any = _in_double(found.module).eval()
        theirs = type(original).forward(original, mel.mT if found.live.turned else mel, **given)
    except Exception as error:  # whatever the code of others raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{kind}: could not be tried on a random mel: {reason}") from error
    with ops.use_backend("reference"):
        ours = generator(mel, *(one[..., 0] for one in given.values()))
    ours = ours[:, 0] if found.live.turned else ours
    if not isinstance(theirs, Tensor) or theirs.shape != ours.shape:
        made = f"shape {tuple(theirs.shape)}" if isinstance(theirs, Tensor) else f"a {type(theirs).__name__}"
        raise ValueError(
            f"{kind}: makes {made} of {mel.shape[-1]} frames, where our network of its settings makes "
            f"{tuple(ours.shape)}; it is another network"
        )
    apart, largest = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not apart <= _NEAR * largest:
        raise ValueError(
            f"{kind}: makes other samples than the {found.format} network of its settings, {apart:.2g} apart, of "
            f"{largest:.2g}; it is another network"
        )


def frames_reflected(generator: Generator) -> int:
    """Count the frames that a mel has to have more than, since layers reflect them; 0 where none does."""
    if any(node.edges == "reflect" for node in generator.graph().nodes):
        return max(generator.receptive_field)
    return 0


def _in_double(module: nn.Module) -> nn.Module:
    """Return a copy of a module in double precision on the CPU; no tensor of its own is touched, or copied twice."""
    memo: dict[int, Any] = {id(tensor): _doubled(tensor) for tensor in _tensors_of(module)}
    return copy.deepcopy(module, memo)


def _tensors_of(module: nn.Module) -> Iterator[Tensor]:
    for inner in module.modules():
        for store in (inner._parameters, inner._buffers, vars(inner)):
            yield from (value for value in store.values() if isinstance(value, Tensor))


def _doubled(tensor: Tensor) -> Tensor:
    value = tensor.detach()
    value = value.to("cpu", torch.float64) if value.is_floating_point() else value.cpu()
    return nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value

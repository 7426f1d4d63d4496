"""A decoder for one speaker: the embedding that it adds behind its first convolution becomes a part of the bias.

What is then left takes nothing but latents, and is one native call as a whole (`fastvoc.engine.Plan`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fastvoc.checkpoints import Checkpoint
from fastvoc.faces.vocoder import Vocoder
from fastvoc.graph import foreign, hooks_of
from fastvoc.models import HiFiGANConfig

MOST = 8
"""Speakers whose decoders are kept: each is as large as the decoder, 6 MB and again as much where it is packed."""


class Speakers:
    """The decoders of the speakers that have spoken last."""

    def __init__(self) -> None:
        self._made: OrderedDict[bytes, tuple[Any, Vocoder, Vocoder | None]] = OrderedDict()
        self._lock = threading.Lock()

    def decoder(self, decoder: Vocoder, condition: Tensor | None) -> tuple[Vocoder, Tensor | None]:
        """Return what makes waves for an embedding, and the embedding if it is still to be given."""
        if condition is None or decoder.device.type != "cpu":
            return decoder, condition
        revision, key = decoder._version.revision(), condition.numpy().tobytes()
        with self._lock:
            made = self._made.pop(key, None)
            if made is None or made[0] != revision or made[1] is not decoder:
                made = revision, decoder, _for(decoder, condition)
            self._made[key] = made
            while len(self._made) > MOST:
                self._made.popitem(last=False)
        return (decoder, condition) if made[2] is None else (made[2], None)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # all are made again

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _as_built(generator: nn.Module, config: HiFiGANConfig) -> bool:
    """Whether a generator consists of the modules of its configuration, into which nobody has put anything."""
    with torch.device("meta"):
        built = {name: type(module) for name, module in config.build().named_modules()}
    found = dict(generator.named_modules())
    return {name: type(module) for name, module in found.items()} == built and not any(
        any(hooks_of(module)) or (hasattr(module, "lower") and foreign(module)) for module in found.values()
    )


def _for(decoder: Vocoder, condition: Tensor) -> Vocoder | None:
    """Make the decoder of a speaker, or None where it is another network than its configuration describes."""
    generator, config = decoder._generator, decoder.config.generator
    if (
        not isinstance(config, HiFiGANConfig)
        or getattr(generator, "config", None) != config
        or config.condition_each_stage
        or not _as_built(generator, config)
    ):
        return None
    weights = dict(generator.state_dict())
    with torch.inference_mode(False), torch.no_grad():
        matrix = weights.pop("trunk.condition.0.weight")[..., 0].double()
        shift = matrix @ condition.double() + weights.pop("trunk.condition.0.bias").double()
        bias = weights["trunk.stem.bias"]
        weights["trunk.stem.bias"] = (bias.double() + shift).to(bias.dtype)
    alone = replace(decoder.config, generator=replace(config, condition_channels=0))
    return Vocoder(Checkpoint(alone, weights, decoder.source), dtype=decoder._asked, backend=decoder.backend)

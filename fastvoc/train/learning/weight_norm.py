"""Weight norm, which generators have only while they train (Salimans and Kingma 2016, arXiv:1602.07868).

Models hold plain weights. `add_weight_norm` makes each weight the product of a magnitude and a direction, over all axes
but the first, which for a transposed convolution is that of its input channels, as in every original. `plain_weights`
folds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

WeightNorm = Literal["all", "all but the first", "none"]


def add_weight_norm(network: nn.Module, which: WeightNorm = "all") -> None:
    """Put weight norm on the convolutions of a network; what it computes does not change.

    A convolution with the attribute `without_weight_norm` stays plain, as one that begins with zeros has to.

    Parameters
    ----------
    network : nn.Module
    which : {"all", "all but the first", "none"}
        The Keras tutorial leaves the first convolution plain.
    """
    if which == "none":
        return
    convolutions = [module for module in network.modules() if _has_kernel(module)]
    for convolution in convolutions[which == "all but the first" :]:
        weight_norm(convolution)


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Compute each normed weight of a network once for all its passes in a `with` block.

    That includes spectral norm, which otherwise takes a step of its power iteration at every pass. Norms are computed
    in the precision of the weights, whatever autocast says.
    """
    with parametrize.cached():
        for module in _normed(network).values():
            with torch.autocast(next(module.parameters()).device.type, enabled=False):
                module.weight  # noqa: B018  looked up to be kept
        yield


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of the network without weight norm; the network stays as it is."""
    weights = {name: value for name, value in network.state_dict().items() if "parametrizations." not in name}
    for name, module in _normed(network).items():
        weights[f"{name}.weight".lstrip(".")] = module.weight
    return {name: value.detach().clone() for name, value in weights.items()}


def load_plain_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load what `plain_weights` returned, whether the network has weight norm or not."""
    rest = dict(weights)
    with torch.no_grad():
        for name, module in _normed(network).items():
            module.weight = rest.pop(f"{name}.weight".lstrip("."))  # divided into magnitude and direction
    unknown = network.load_state_dict(rest, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"load_plain_weights: the network has no {', '.join(unknown)}; needs its own state")


def _normed(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if parametrize.is_parametrized(module, "weight")}


def _has_kernel(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim >= 3 and not getattr(module, "without_weight_norm", False)

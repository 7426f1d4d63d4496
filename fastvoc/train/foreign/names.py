"""Weights of networks that others saved while they trained, under the names that norms have here.

``torch.nn.utils`` spells weight norm as ``weight_g`` and ``weight_v``, and spectral norm as ``weight_orig``,
``weight_u`` and ``weight_v``; newer code, like ours, as ``parametrizations.weight.…``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from fastvoc.checkpoints.tensor_names import unfold

_WEIGHT = "parametrizations.weight"
_WEIGHT_NORM = {"weight_g": f"{_WEIGHT}.original0", "weight_v": f"{_WEIGHT}.original1"}
_SPECTRAL_NORM = {"weight_orig": f"{_WEIGHT}.original", "weight_u": f"{_WEIGHT}.0._u", "weight_v": f"{_WEIGHT}.0._v"}

_NAME = re.compile(
    r"(.+)\.(bias|weight|weight_g|weight_v|weight_orig|weight_u|parametrizations\.weight\.(?:original[01]?|0\._[uv]))"
)


def renamed(tensors: Mapping[str, Tensor], layer_of: Callable[[str], str | None], where: str) -> dict[str, Tensor]:
    """Translate names of tensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
    layer_of : callable
        Returns our name of a layer, or None.
    where : str
        What error messages call the source.

    Returns
    -------
    dict of str to Tensor
        In the same order.

    Raises
    ------
    ValueError
        If a tensor belongs to no layer.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        layer = layer_of(found[1].removeprefix("module.")) if found else None
        if found is None or layer is None:
            raise ValueError(f"{where} has a tensor {name!r}, for which there is no place; it is another network")
        spelling = _SPECTRAL_NORM if f"{found[1]}.weight_orig" in tensors else _WEIGHT_NORM
        weights[f"{layer}.{spelling.get(found[2], found[2])}"] = tensor
    return weights


def with_weight_norm(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Divide plain weights into magnitude and direction where the network has weight norm."""
    needed, result = network.state_dict(), dict(weights)
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        names = [f"{layer}.{ending}" for ending in _WEIGHT_NORM.values()]
        if name.endswith(".weight") and name not in needed and names[1] in needed:
            del result[name]
            result |= dict(zip(names, unfold(weight), strict=True))
    return result


def refuse_other_norms(weights: Mapping[str, Tensor], network: nn.Module, where: str) -> None:
    """Raise one sentence if weights have spectral norm where the network does not, or the reverse."""
    ending = f".{_WEIGHT}.original"
    theirs = {name for name in weights if name.endswith(ending)}
    ours = {name for name in network.state_dict() if name.endswith(ending)}
    if theirs != ours:
        has, change = ("have", "true") if theirs else ("do not have", "false")
        raise ValueError(f"{where}: its weights {has} spectral norm; set spectral={change} of the scale discriminator")

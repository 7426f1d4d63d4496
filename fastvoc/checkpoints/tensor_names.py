"""Names of tensors, translated both ways, with every tensor accounted for.

A table is a list of pairs (foreign name, native name), made from the generator's configuration, of layers or of single
tensors. A layer has a bias and a weight, and the weight is spelled in one of three ways: plain, weight norm's
``weight_g`` and ``weight_v``, or the ``parametrizations.weight.original0`` and ``original1`` of newer PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Table = Sequence[tuple[str, str]]

SPELLINGS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
"""Of the magnitude and the direction of a weight under weight norm."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_MOST = 1 << 30
"""Values that a generator's tensors may hold; those of the largest that was published are a tenth of it."""


def fold(magnitude: Tensor, direction: Tensor) -> Tensor:
    """Undo weight norm, ``w = g · v / ‖v‖`` with the norm over all dimensions but the first, in float64."""
    v = direction.double()
    norm = v.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1))
    weight: Tensor = magnitude.double().view_as(norm) * v / norm
    return weight.to(direction.dtype)


def unfold(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return a magnitude and a direction that `fold` to the weight: the inverse that an optimizer would start from."""
    norm = weight.double().flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))
    return norm.to(weight.dtype), weight


def to_native(
    foreign: Mapping[str, Tensor], table: Table, generator: Any, where: str, *, bias_free: Collection[str] = ()
) -> dict[str, Tensor]:
    """Translate and fold weights.

    Parameters
    ----------
    foreign : mapping of str to Tensor
    table : list of (foreign name, native name)
    generator : GeneratorConfig
        Its network says which tensors are needed, and of what shape.
    where : str
        What error messages call the source.
    bias_free : collection of str
        Foreign layers that need have no bias, since the settings or the format say so; ours becomes one of zeros.

    Returns
    -------
    dict of str to Tensor
        Own memory, in the dtype of the file. A buffer that the table does not name, such as a filter bank, has the
        values that the configuration gives it.

    Raises
    ------
    ValueError
        Naming the tensors, if one is missing, left over or of another shape.
    """
    left = dict(foreign)
    for name, tensor in left.items():
        _refuse_unusual(name, tensor, where)
    needed = needed_tensors(generator, where)
    weights: dict[str, Tensor] = {}
    missing, without_bias = [], []
    for theirs, ours in table:
        if ours in needed:
            if theirs in left:
                weights[ours] = left.pop(theirs)
            else:
                missing.append(theirs)
            continue
        shape = needed[f"{ours}.weight"].shape if f"{ours}.weight" in needed else None
        weight, bias = _take(left, theirs, shape, where), left.pop(f"{theirs}.bias", None)
        if weight is None:
            missing.append(_half(left, theirs) or f"{theirs}.weight")
        else:
            weights[f"{ours}.weight"] = weight
        if bias is not None:
            weights[f"{ours}.bias"] = bias
        elif theirs in bias_free:
            without_bias.append(f"{ours}.bias")
        else:
            missing.append(f"{theirs}.bias")
    _refuse(where, missing, list(left))
    dtype = next(iter(weights.values())).dtype if weights else torch.float32
    for name, tensor in needed.items():
        if name in without_bias:
            weights[name] = torch.zeros(tensor.shape, dtype=dtype)
        elif name not in weights and not tensor.is_meta:
            weights[name] = tensor.to(dtype)
    _account(weights, needed, where, {ours: theirs for theirs, ours in table})
    return in_own_memory(weights)


def from_native(weights: Mapping[str, Tensor], table: Table, *, weight_norm: bool = False) -> dict[str, Tensor]:
    """Translate weights back to foreign names: the inverse of `to_native`.

    Parameters
    ----------
    weights : mapping of str to Tensor
    table : list of (foreign name, native name)
    weight_norm : bool
        Whether to split each weight into ``weight_g`` and ``weight_v``, for code that loads before it folds.
    """
    foreign = {}
    for theirs, ours in table:
        if ours in weights:
            foreign[theirs] = weights[ours]
            continue
        weight = weights[f"{ours}.weight"]
        if weight_norm:
            weight = weight.to(torch.promote_types(weight.dtype, torch.float32))  # 16 bits would round what is split
            foreign[f"{theirs}.weight_g"], foreign[f"{theirs}.weight_v"] = unfold(weight)
        else:
            foreign[f"{theirs}.weight"] = weight
        foreign[f"{theirs}.bias"] = weights[f"{ours}.bias"]
    return foreign


def account(weights: Mapping[str, Tensor], generator: Any, where: str) -> None:
    """Raise one sentence if weights are missing, left over or of another shape than the generator's."""
    _account(weights, needed_tensors(generator, where), where, {})


def _account(weights: Mapping[str, Tensor], needed: Mapping[str, Tensor], where: str, names: Mapping[str, str]) -> None:
    """Compare weights with those that are needed; `names` says what the source calls our layers."""
    _refuse(where, [name for name in needed if name not in weights], [name for name in weights if name not in needed])
    for name, tensor in needed.items():
        layer, dot, kind = name.rpartition(".")
        _refuse_shape(f"{names.get(layer, layer)}{dot}{kind}", weights[name].shape, tensor.shape, where)


def _refuse_shape(name: str, shape: torch.Size, needed: torch.Size, where: str) -> None:
    if shape != needed:
        raise ValueError(
            f"{where}: {name} has shape {tuple(shape)}, but the settings need {tuple(needed)}; "
            "they belong to other weights"
        )


def _refuse_unusual(name: str, tensor: Tensor, where: str) -> None:
    """Raise where a tensor is no plain array, before anything touches its values."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ValueError(f"{where}: {name} is a sparse, quantized or empty kind of tensor; weights are plain floats")
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(f"{where}: {name} holds {kind}; weights are floats of 16 bits or more")


def _refuse(where: str, missing: Sequence[str], unknown: Sequence[str]) -> None:
    wrong = [f"has no {_listed(missing)}"] if missing else []
    wrong += [f"has {_listed(unknown)}, for which there is no place"] if unknown else []
    if wrong:
        raise ValueError(f"{where}: {' and '.join(wrong)}; the settings belong to other weights")


def refuse_broken(weights: Mapping[str, Tensor], where: str) -> None:
    """Raise one sentence if a weight is not a floating-point tensor of finite values."""
    for name, tensor in weights.items():
        _refuse_unusual(name, tensor, where)
        # by NumPy: PyTorch waits for all of its threads at each tensor, on a crowded machine for seconds in all
        values = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise ValueError(f"{where}: {name} holds values that are not finite; the run that saved it had diverged")


def in_own_memory(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies, since a file that is written over while it is mapped ends the process at the next look."""
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}


class Undrawn(TorchFunctionMode):
    """Leaves parameters of new modules as memory that nothing was written to, since what is loaded fills all of it.

    Random numbers for HiFi-GAN V1 take three times as long as its weights, and would be taken from the caller's.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch, unless it only fills a parameter."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = kwargs.get("tensor", args[0] if args else None)
            if isinstance(tensor, torch.nn.Parameter):
                return tensor
        return func(*args, **kwargs)


def needed_tensors(generator: Any, where: str) -> dict[str, Tensor]:
    """Names and shapes of the generator's tensors; parameters on the meta device, buffers as they are built."""
    try:
        with torch.device("meta"), Undrawn():
            needed: dict[str, Tensor] = generator.build().state_dict()
    except Exception as error:  # whatever torch raises for absurd sizes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: no network can be built from the settings: {reason}") from None
    if (count := sum(tensor.numel() for tensor in needed.values())) > _MOST:
        raise ValueError(f"{where}: the settings ask for {count} values; no vocoder has more than {_MOST}")
    return needed


def _take(tensors: dict[str, Tensor], layer: str, shape: torch.Size | None, where: str) -> Tensor | None:
    """Remove a layer's weight in whichever spelling, and return it folded."""
    for magnitude, direction in SPELLINGS:
        pair = f"{layer}.{magnitude}", f"{layer}.{direction}"
        if all(name in tensors for name in pair):
            g, v = (tensors.pop(name) for name in pair)
            if v.dim() < 2 or g.numel() != len(v):
                raise ValueError(
                    f"{where}: {pair[0]} and {pair[1]} have shapes {tuple(g.shape)} and {tuple(v.shape)}, "
                    "which are no weight under weight norm"
                )
            if shape is not None:  # before any arithmetic: a view can claim to be larger than its file
                _refuse_shape(f"{layer}.weight", v.shape, shape, where)
            return fold(g, v)
    return tensors.pop(f"{layer}.weight", None)


def _half(tensors: dict[str, Tensor], layer: str) -> str | None:
    """Remove one half of a weight under weight norm, and name the other; spectral norm has such a name too."""
    if f"{layer}.weight_orig" in tensors:
        return None
    for pair in SPELLINGS:
        found, other = sorted((f"{layer}.{name}" for name in pair), key=lambda name: name not in tensors)
        if found in tensors:
            del tensors[found]
            return other
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"

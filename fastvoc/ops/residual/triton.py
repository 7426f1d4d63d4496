"""The Triton kernel of `residual`: the branches side by side, one launch for each convolution of a branch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops._backends import interpreted
from fastvoc.ops._layout import empty_like_layout
from fastvoc.ops._packing import packed
from fastvoc.ops._ragged import ragged_arguments
from fastvoc.ops._triton.launch import Launch, dense, precision, strides
from fastvoc.ops._triton.launch import refuses as refuses_tensors
from fastvoc.ops._triton.packing import side_by_side
from fastvoc.ops._triton.tiles import Tile, shape_of
from fastvoc.ops._triton.tuning import tile_for


def refuses(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    dilations: list[int],
    branches: int,
    convs_per_unit: int,
    shortcut: bool,
    slope: float,
    padding_mode: str,
    causal: bool,
    activate_first: bool,
) -> str | None:
    """Return why the kernel cannot run this call, or None."""
    if padding_mode not in ("zero", "reflect", "replicate"):
        return f"padding_mode is {padding_mode!r}"
    spans = [(weight.shape[2] - 1) * dilation for weight, dilation in zip(weights, dilations, strict=True)]
    reach = max(span if causal else span - span // 2 for span in spans)
    if padding_mode == "reflect" and x.shape[2] <= reach:
        return f"x has {x.shape[2]} frames; reflecting {reach} of them needs more"
    return refuses_tensors(x)


def residual(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    dilations: list[int],
    branches: int,
    convs_per_unit: int,
    shortcut: bool,
    slope: float,
    padding_mode: str,
    causal: bool,
    activate_first: bool,
) -> Tensor:
    """Run the kernels.

    Where the slope allows, features lie in memory behind their leaky ReLU, as the next convolution wants them; what is
    added restores them, since a leaky ReLU with a positive slope has an inverse.
    """
    y = empty_like_layout(x, x.shape[1], x.shape[2])
    for launch in launches(
        x,
        y,
        weights,
        biases,
        dilations,
        branches,
        convs_per_unit,
        shortcut,
        slope,
        padding_mode,
        causal,
        activate_first,
    ):
        launch()
    return y


def launches(
    x: Tensor,
    y: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    dilations: list[int],
    branches: int,
    convs_per_unit: int,
    shortcut: bool,
    slope: float,
    padding_mode: str,
    causal: bool,
    activate_first: bool,
) -> Iterator[Launch]:
    """Describe the launches of all convolutions, in order; each is to run before the next is asked for."""
    per_unit = convs_per_unit + shortcut
    per_branch = len(weights) // branches
    # A unit's result is wanted as it is by a shortcut, and cannot be restored from a leaky ReLU that forgets, or that
    # makes it too small for float16.
    restores = slope >= 0.01 and not shortcut
    unit_input = _Features(tensor=x, shared=True, activated=False)
    for unit in range(0, per_branch, per_unit):
        features = unit_input
        for n in range(unit, unit + convs_per_unit):
            last = n == unit + convs_per_unit - 1
            ends = last and unit + per_unit == per_branch
            members = range(n, len(weights), per_branch)
            shortcuts = range(n + 1, len(weights), per_branch) if last and shortcut else ()
            result = (
                _Features(tensor=y, shared=True, activated=False) if ends else _stack(x, branches, restores or not last)
            )
            yield _launch(
                features,
                result,
                unit_input if last else None,
                [weights[m] for m in members],
                [biases[m] for m in members],
                [weights[m] for m in shortcuts],
                [biases[m] for m in shortcuts],
                _taps([weights[m] for m in members], [dilations[m] for m in members], causal),
                slope=slope,
                bare=n == 0 and not activate_first,
                padding=padding_mode,
                mean=ends,
            )
            features = result
        unit_input = features


@dataclass(frozen=True, kw_only=True)
class _Features:
    """Features of every branch, shape (branches B, C, T) and dense, or the one tensor (B, C, T) that they share."""

    tensor: Tensor
    shared: bool
    activated: bool


def _stack(x: Tensor, branches: int, activated: bool) -> _Features:
    batch, channels, frames = x.shape
    memory = torch.empty((branches * batch, frames, channels), dtype=x.dtype, device=x.device)
    return _Features(tensor=memory.transpose(1, 2), shared=False, activated=activated)


def _taps(weights: list[Tensor], dilations: list[int], causal: bool) -> tuple[tuple[int, int, int, int], ...]:
    """Return, for each branch, its taps, dilation, padding on the left, and the place of its first tap."""
    start, rows = 0, []
    for weight, dilation in zip(weights, dilations, strict=True):
        taps = weight.shape[2]
        span = (taps - 1) * dilation
        rows.append((taps, dilation, span if causal else span // 2, start))
        start += taps
    return tuple(rows)


@functools.cache
def _on(device: torch.device, rows: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return a table in device memory, where a captured graph finds it too."""
    return torch.tensor(rows, dtype=torch.int32, device=device)


def _stacked(*biases: Tensor) -> Tensor:
    """Return the biases of all branches, shape (branches, C), in float32."""
    return torch.stack(biases).float()


def _launch(
    features: _Features,
    result: _Features,
    skip: _Features | None,
    weights: list[Tensor],
    biases: list[Tensor],
    shortcut_weights: list[Tensor],
    shortcut_biases: list[Tensor],
    taps: tuple[tuple[int, int, int, int], ...],
    *,
    slope: float,
    bare: bool,
    padding: str,
    mean: bool,
) -> Launch:
    """Describe the launch of one convolution of all branches, or with `mean` of the last ones and their mean."""
    from fastvoc.ops._triton import branches as kernels

    branches, beside = len(weights), skip or features
    batch, channels, frames = features.tensor.shape
    batch //= 1 if features.shared else branches
    bias = packed("biases", _stacked, *biases)
    if shortcut_biases:
        bias = bias + packed("biases", _stacked, *shortcut_biases)
    arguments: dict[str, Any] = {
        "x": features.tensor,
        "weight": packed("branches", side_by_side, *weights),
        "bias": bias,
        "skip": beside.tensor,
        "skip_weight": packed("branches", side_by_side, *shortcut_weights) if shortcut_weights else None,
        "y": result.tensor,
        "taps_of": _on(features.tensor.device, taps),
        **ragged_arguments(frames),
        **strides("x", features.tensor),
        **strides("skip", beside.tensor),
        **strides("y", result.tensor),
        "batch": batch,
        "frames": frames,
        "slope": slope,
    }
    role = "none" if skip is None else "convolve" if shortcut_weights else "restore" if skip.activated else "add"
    constants: dict[str, Any] = {
        "CHANNELS": channels,
        "BRANCHES": branches,
        "MEAN": mean,
        "X_SHARED": features.shared,
        "SKIP_SHARED": beside.shared,
        "PADDING": padding,
        "ACTIVATE": slope != 1.0 and not features.activated and not bare,
        "SKIP": role,
        "X_DENSE": dense(features.tensor),
        "SKIP_DENSE": dense(beside.tensor),
        "Y_DENSE": dense(result.tensor),
        "FINISH": "activate" if result.activated else "none",
        "WIDEN": interpreted(),
        "PRECISION": precision(features.tensor.dtype),
    }

    def launch(tile: Tile) -> Launch:
        programs = 0 if features.tensor.numel() == 0 else batch * (1 if mean else branches)
        return Launch(
            kernel=kernels.convolve_branches,
            grid=(-(-frames // tile.rows), -(-channels // tile.columns), programs),
            arguments=arguments,
            constants=constants | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    most, dilation = max(row[0] for row in taps), max(row[1] for row in taps)
    return launch(tile_for(shape_of("residual", channels, channels, most, dilation, features.tensor), launch))

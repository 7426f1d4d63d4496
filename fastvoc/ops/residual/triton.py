"""The Triton kernel of `residual`: the branches side by side, one launch for each convolution of a branch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.op import Prepared, Repeatable, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_arguments
from fastvoc.ops.residual.call import Residual
from fastvoc.ops.triton.launch import Launch, dense, precision, refuses, strides
from fastvoc.ops.triton.packing import side_by_side
from fastvoc.ops.triton.tiles import Tile, shape_of
from fastvoc.ops.triton.tuning import launch_for


def prepare(call: Residual) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    return prepared(Repeatable(_run), refuses(call.x, items=call.branches * call.x.shape[0]))


def _run(call: Residual) -> Tensor:
    """Run the kernels.

    Where the slope allows, features lie in memory behind their leaky ReLU, as the next convolution wants them; what is
    added restores them, since a leaky ReLU with a positive slope has an inverse.
    """
    y = call.empty()
    for launch in launches(call, y):
        launch()
    return y


def launches(call: Residual, y: Tensor) -> Iterator[Launch]:
    """Describe the launches of all convolutions, in order; each is to run before the next is asked for."""
    per_unit, per_branch, shortcut = call.per_unit, call.per_branch, call.shortcut
    # A unit's result is wanted as it is by a shortcut, and cannot be restored from a leaky ReLU that forgets, or that
    # makes it too small for float16.
    restores = call.slope >= 0.01 and not shortcut
    unit_input = _Features(tensor=call.x, shared=True, activated=False)
    for unit in range(0, per_branch, per_unit):
        features = unit_input
        for n in range(unit, unit + call.convs_per_unit):
            last = n == unit + call.convs_per_unit - 1
            ends = last and unit + per_unit == per_branch
            activated = not ends and (restores or not last)
            result = _Features(tensor=y, shared=True, activated=False) if ends else _stack(call, activated)
            yield _launch(
                call,
                features,
                result,
                unit_input if last else None,
                range(n, len(call.weights), per_branch),
                range(n + 1, len(call.weights), per_branch) if last and shortcut else range(0),
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


def _stack(call: Residual, activated: bool) -> _Features:
    batch, channels, frames = call.x.shape
    memory = torch.empty((call.branches * batch, frames, channels), dtype=call.x.dtype, device=call.x.device)
    return _Features(tensor=memory.transpose(1, 2), shared=False, activated=activated)


def _taps(call: Residual, members: range) -> tuple[tuple[int, int, int, int], ...]:
    """Return, for each branch, its taps, dilation, padding on the left, and the place of its first tap."""
    start, rows = 0, []
    for n in members:
        taps = call.weights[n].shape[2]
        rows.append((taps, call.dilations[n], call.padding(n)[0], start))
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
    call: Residual,
    features: _Features,
    result: _Features,
    skip: _Features | None,
    members: range,
    shortcuts: range,
    *,
    mean: bool,
) -> Launch:
    """Describe the launch of one convolution of all branches, or with `mean` of the last ones and their mean.

    `members` and `shortcuts` are the numbers of their weights.
    """
    from fastvoc.ops.triton import branches as kernels

    beside, slope, taps = skip or features, call.slope_before(members[0]), _taps(call, members)
    weights, biases = [call.weights[n] for n in members], [call.biases[n] for n in members]
    shortcut_weights = [call.weights[n] for n in shortcuts]
    batch, channels, frames = call.x.shape
    bias = packed("biases", _stacked, *biases)
    if shortcuts:
        bias = bias + packed("biases", _stacked, *(call.biases[n] for n in shortcuts))
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
        "slope": call.slope,
    }
    role = "none" if skip is None else "convolve" if shortcut_weights else "restore" if skip.activated else "add"
    constants: dict[str, Any] = {
        "CHANNELS": channels,
        "BRANCHES": call.branches,
        "MEAN": mean,
        "X_SHARED": features.shared,
        "SKIP_SHARED": beside.shared,
        "PADDING": call.padding_mode,
        "ACTIVATE": slope != 1.0 and not features.activated,
        "SKIP": role,
        "X_DENSE": dense(features.tensor),
        "SKIP_DENSE": dense(beside.tensor),
        "Y_DENSE": dense(result.tensor),
        "FINISH": "activate" if result.activated else "none",
        "WIDEN": interpreted(),
        "PRECISION": precision(features.tensor.dtype),
    }

    def launch(tile: Tile) -> Launch:
        programs = 0 if features.tensor.numel() == 0 else batch * (1 if mean else call.branches)
        return Launch(
            kernel=kernels.convolve_branches,
            grid=(-(-frames // tile.rows), -(-channels // tile.columns), programs),
            arguments=arguments,
            constants=constants | tile.constants(),
            warps=tile.warps,
            stages=tile.stages,
        )

    most, dilation = max(row[0] for row in taps), max(row[1] for row in taps)
    return launch_for(shape_of("residual", channels, channels, most, dilation, features.tensor), launch)

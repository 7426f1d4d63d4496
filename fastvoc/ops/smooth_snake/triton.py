"""The Triton kernels of `smooth_snake` and of its gradient: memory and launches."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted
from fastvoc.ops.layout import channels_last, empty_like_layout
from fastvoc.ops.op import Prepared, prepared
from fastvoc.ops.ragged import ragged_arguments
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward
from fastvoc.ops.triton.launch import Launch, dense, refuses, strides

WARPS = 4
BLOCK, GRADIENT_BLOCK = 256, 128
"""Lanes of a program: two a thread, or one where a lane keeps twice as much."""


def prepare(call: SmoothSnake) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return prepared(partial(_run, call), refuses(call.x))


def prepare_backward(call: SmoothSnakeBackward) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return prepared(partial(_run_backward, call), refuses(call.x, beside=call.grad))


def _run(call: SmoothSnake) -> Tensor:
    y = call.empty()
    launch(call, y)()
    return y


def _run_backward(call: SmoothSnakeBackward) -> tuple[Tensor, Tensor, Tensor]:
    """Run the kernel; its lanes' sums for the parameters are added in a fixed order."""
    x, (batch, channels, _) = call.x, call.x.shape
    grad_x = empty_like_layout(x, *x.shape[1:]) if call.needs[0] else x.new_empty(0)
    if not call.of_the_parameters:
        gradient_launch(call, grad_x, None)()
        return grad_x, x.new_empty(0), x.new_empty(0)
    sums = torch.empty((2, batch, _parts(x), channels), dtype=torch.float32, device=x.device)
    gradient_launch(call, grad_x, sums)()
    return grad_x, *call.of_sums(sums)


def launch(call: SmoothSnake, y: Tensor) -> Launch:
    """Describe the launch that writes the result."""
    from fastvoc.ops.triton import snake as kernels

    x = call.x
    return Launch(
        kernel=kernels.smooth,
        grid=_grid(x, BLOCK),
        arguments={"x": x, "alpha": call.alpha.contiguous(), "beta": _plain(call.beta), "y": y}
        | ragged_arguments(x.shape[2])
        | strides("x", x)
        | strides("y", y)
        | {"frames": x.shape[2]},
        constants={
            "CHANNELS": x.shape[1],
            "LOGARITHMIC": call.logarithmic,
            "LAST": channels_last(x),
            "X_DENSE": dense(x),
            "Y_DENSE": dense(y),
        }
        | _lanes(BLOCK),
        warps=WARPS,
        stages=1,
    )


def gradient_launch(call: SmoothSnakeBackward, grad_x: Tensor, sums: Tensor | None) -> Launch:
    """Describe the launch that writes the gradient of the input, if that is wanted, and the sums, if there are any."""
    from fastvoc.ops.triton import snake as kernels

    x, grad, wanted = call.x, call.grad, call.needs[0]
    return Launch(
        kernel=kernels.smooth_gradient,
        grid=_grid(x, GRADIENT_BLOCK),
        arguments={
            "grad": grad,
            "x": x,
            "alpha": call.alpha.contiguous(),
            "beta": _plain(call.beta),
            "grad_x": grad_x if wanted else None,
            "sums": sums,
        }
        | strides("grad", grad)
        | strides("x", x)
        | strides("grad_x", grad_x if wanted else None)
        | {"frames": x.shape[2], "batch": x.shape[0]},
        constants={
            "CHANNELS": x.shape[1],
            "LOGARITHMIC": call.logarithmic,
            "LAST": channels_last(x),
            "GRAD_DENSE": dense(grad),
            "X_DENSE": dense(x),
            "GRAD_X_DENSE": wanted and dense(grad_x),
            "INPUT": wanted,
            "PARAMETERS": sums is not None,
        }
        | _lanes(GRADIENT_BLOCK),
        warps=WARPS,
        stages=1,
    )


def _lanes(block: int) -> dict[str, int]:
    """Return how many lanes a program has, and how many stretches of six frames each goes through.

    With four it computes a quarter more than there is, and a second of the widest stage still has ten thousand lanes.
    The interpreter takes as long for many lanes as for one.
    """
    return {"BLOCK": 4096, "STRETCHES": 2} if interpreted() else {"BLOCK": block, "STRETCHES": 4}


def _parts(x: Tensor) -> int:
    """Count the lanes of one channel."""
    return -(-x.shape[2] // (6 * _lanes(1)["STRETCHES"] - 5))


def _grid(x: Tensor, block: int) -> tuple[int, int, int]:
    return -(-x.shape[1] * _parts(x) // _lanes(block)["BLOCK"]), 1, x.shape[0]


def _plain(beta: Tensor | None) -> Tensor | None:
    return None if beta is None else beta.contiguous()

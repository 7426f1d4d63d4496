"""The CUDA kernels of `smooth_snake` and of its gradient: one pass each, without matrices, so that float32 is exact."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.cuda.device import Template, gpu, kernels, refuses, stream
from fastvoc.ops.layout import empty_like_layout
from fastvoc.ops.op import Prepared, Repeatable, Slower, prepared
from fastvoc.ops.ragged import ragged_lengths
from fastvoc.ops.smooth_snake.call import SmoothSnake, SmoothSnakeBackward

REACH, FARTHEST = 2**30, 2**29 - 1
"""Elements of an item, with those of the tiles behind it, and from neighbour to neighbour, counted in 32 bits."""

MOST_ITEMS = 65535
"""Of a batch: the second extent of a grid."""

_PRECISIONS = {torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16", torch.float32: "FLOAT32"}


def prepare(call: SmoothSnake) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return _prepared(_Way(), call.x)


def prepare_backward(call: SmoothSnakeBackward) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return _prepared(_BackwardWay(), call.x, call.grad)


def described(x: Tensor, *, logarithmic: bool, grad: Tensor | None = None, y: Tensor | None = None) -> Template:
    """Describe calls with tensors like these to the native library."""
    _, library = native.library()
    return Template(
        "fastvoc_cuda_smooth_snake *",
        precision=getattr(library, f"FASTVOC_{_PRECISIONS[x.dtype]}"),
        logarithmic=logarithmic,
        batch=x.shape[0],
        channels=x.shape[1],
        frames=x.shape[2],
        x_strides=x.stride(),
        grad_strides=(0, 0, 0) if grad is None else grad.stride(),
        y_strides=(0, 0, 0) if y is None else y.stride(),
    )


def _prepared(way: Any, *tensors: Tensor) -> Prepared:
    x = tensors[0]
    reason = refuses(x.device, x.dtype, matrices=False)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    if x.shape[0] > MOST_ITEMS:
        return f"the batch has {x.shape[0]} items, and a grid {MOST_ITEMS} at most"
    if (x.shape[1] + 1) * (x.shape[2] + 256) > REACH:
        return f"an item has {REACH} elements or more"
    if any(abs(stride) > FARTHEST for tensor in tensors for stride in tensor.stride()[1:]):
        return f"neighbouring elements are more than {FARTHEST} apart in memory"
    return prepared(Repeatable(way), reason)


class _Way:
    """What runs the calls of a signature."""

    def __init__(self) -> None:
        self._described: Template | None = None

    def __call__(self, call: SmoothSnake) -> Tensor:
        y = call.empty()
        if y.numel() == 0:
            return y
        if self._described is None:
            self._described = described(call.x, logarithmic=call.logarithmic, y=y)
        tensors = {"x": call.x, "y": y, "lengths": ragged_lengths(call.x.shape[2])} | _parameters(call)
        _run(self._described(**tensors), call.x.device)
        return y


class _BackwardWay:
    """What runs the calls of a signature of the gradient."""

    def __init__(self) -> None:
        self._described: Template | None = None
        self._parts = 0

    def __call__(self, call: SmoothSnakeBackward) -> tuple[Tensor, Tensor, Tensor]:
        x, grad, none = call.x, call.grad, call.x.new_empty(0)
        y = empty_like_layout(x, *x.shape[1:]) if call.needs[0] else None
        if x.numel() == 0 or (y is None and not call.of_the_parameters):
            return tuple(tensor.zero_() for tensor in call.empty())  # type: ignore[return-value]
        if self._described is None:
            self._described = described(x, logarithmic=call.logarithmic, grad=grad, y=y)
            ffi, library = native.library()
            device = ffi.new("fastvoc_gpu *", gpu(x.device)._asdict())
            self._parts = library.fastvoc_cuda_smooth_snake_parts(device, self._described())
        sums = None
        if call.of_the_parameters:
            shape = 2, x.shape[0], self._parts, x.shape[1]
            sums = torch.empty(shape, dtype=torch.float32, device=x.device)
        tensors = {"x": x, "grad": grad, "y": y, "sums": sums} | _parameters(call)
        _run(self._described(**tensors), x.device)
        grad_x = none if y is None else y
        return (grad_x, none, none) if sums is None else (grad_x, *call.of_sums(sums))


def _parameters(call: SmoothSnake | SmoothSnakeBackward) -> dict[str, Tensor | None]:
    return {"alpha": call.alpha.contiguous(), "beta": None if call.beta is None else call.beta.contiguous()}


def _run(described: Any, device: torch.device) -> None:
    ffi, library = native.library()
    own = ffi.new("fastvoc_gpu *", gpu(device)._asdict())
    with stream(device) as current:
        native.check("cuda", library.fastvoc_cuda_smooth_snake_run(own, kernels(device), current, described))

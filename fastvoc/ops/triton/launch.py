"""A launch of a Triton kernel, ready to run, and which tensors may ask for one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted, tf32_allowed, too_old_for_triton
from fastvoc.ops.op import Slower

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

REACH = 2**31
"""Elements of one item that 32-bit offsets inside the kernels can reach."""

MOST_ITEMS = 65535
"""Of a batch: the third extent of a grid."""


def refuses(x: Tensor, *others: tuple[int, int], beside: Tensor | None = None, items: int | None = None) -> str | None:
    """Return why Triton's kernels cannot run on `x`, or None.

    Parameters
    ----------
    x : Tensor, shape (B, C, T)
    *others : (int, int)
        Channels and frames of the items of other tensors.
    beside : Tensor, shape (B, C_out, T_out), optional
        Read too, in its own memory order.
    items : int, optional
        Programs side by side for items, if they are not as many as items.
    """
    if x.dtype not in DTYPES:
        return f"x is {x.dtype}; these kernels compute in torch.float32, torch.float16 or torch.bfloat16"
    if any(channels * frames >= REACH for channels, frames in (x.shape[1:], *others)):
        return f"an item has {REACH} elements or more"
    if any(_span(tensor) >= REACH for tensor in (x, beside) if tensor is not None):
        return f"the elements of an item are {REACH} or more apart in memory"
    if (x.shape[0] if items is None else items) > MOST_ITEMS:
        return f"a launch has more than {MOST_ITEMS} items"
    if x.device.type == "cpu" and interpreted():
        return Slower("Triton interprets its kernels here, for tests, not for speed")
    if x.device.type != "cuda":
        return f"x is on {x.device}"
    return too_old_for_triton(x.device)


def _span(x: Tensor) -> int:
    """Count the elements from the first to the last one of an item."""
    (_, channels, frames), (_, channel, frame) = x.shape, x.stride()
    return (channels - 1) * channel + (frames - 1) * frame


def precision(dtype: torch.dtype) -> str:
    """Return how float32 operands are multiplied: exactly, or in TF32 where torch allows that for convolutions."""
    if dtype != torch.float32 or interpreted():
        return "ieee"
    return "tf32" if tf32_allowed() else "ieee"


def dense(x: Tensor | None) -> bool:
    """Tell whether a tensor is channels-last without gaps, so that its shape says where everything is."""
    return x is not None and x.transpose(1, 2).is_contiguous()


def strides(name: str, x: Tensor | None) -> dict[str, int]:
    """Return the strides of a tensor, by the names that the kernels give them; 0 where the shape says them."""
    batch, channel, row = (0, 0, 0) if x is None or dense(x) else x.stride()
    return {f"{name}_batch": batch, f"{name}_row": row, f"{name}_channel": channel}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One kernel with its grid and all its arguments, by name.

    Parameters
    ----------
    kernel : triton.runtime.JITFunction
    grid : (int, int, int)
    arguments : dict
        Tensors, numbers and None, in the kernel's own order.
    constants : dict
        What is compiled into the kernel.
    warps, stages : int
        Of 32 threads each, in a program; and of its software pipeline.
    smaller : callable, optional
        Makes the launch that runs where the GPU has no room for this one, or None.
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int
    smaller: Callable[[], Launch | None] = lambda: None

    @property
    def options(self) -> dict[str, Any]:
        """Return what Triton's compiler is told; fusing into multiply-adds is its default until 3.9 only."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def __call__(self) -> Launch:
        """Enqueue the kernel on the current stream of its tensors' device, and return the launch that ran."""
        if 0 in self.grid:
            return self
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            try:
                self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
            except Exception as error:
                from triton.runtime.errors import OutOfResources

                smaller = self.smaller() if isinstance(error, OutOfResources) else None
                if smaller is None:
                    raise
                return smaller()
        return self

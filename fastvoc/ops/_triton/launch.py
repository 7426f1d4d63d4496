"""A launch of a Triton kernel, ready to run, and which tensors may ask for one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops._backends import interpreted, tf32_allowed, too_old_for_triton
from fastvoc.ops._op import Slower

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

REACH = 2**31
"""Elements of one item that 32-bit offsets inside the kernels can reach."""


def refuses(x: Tensor, *others: tuple[int, int]) -> str | None:
    """Return why Triton's kernels cannot run on `x`, beside items of other (channels, frames), or None."""
    if x.dtype not in DTYPES:
        return f"x is {x.dtype}; these kernels compute in torch.float32, torch.float16 or torch.bfloat16"
    if any(channels * frames >= REACH for channels, frames in (x.shape[1:], *others)):
        return f"an item has {REACH} elements or more"
    if x.device.type == "cpu" and interpreted():
        return Slower("Triton interprets its kernels here, for tests, not for speed")
    if x.device.type != "cuda":
        return f"x is on {x.device}"
    return too_old_for_triton(x.device)


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
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """Return what Triton's compiler is told; fusing into multiply-adds is its default until 3.9 only."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def __call__(self) -> None:
        """Enqueue the kernel on the current stream of its tensors' device."""
        if 0 in self.grid:
            return
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.kernel[self.grid](**self.arguments, **self.constants, **self.options)

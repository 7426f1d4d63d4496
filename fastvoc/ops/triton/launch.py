"""A launch of a Triton kernel, ready to run, and which tensors may ask for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.ops.availability import interpreted, tf32_allowed, too_old_for_triton
from fastvoc.ops.op import Slower
from fastvoc.ops.ragged import is_ragged

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
    compiled : triton.compiler.CompiledKernel, optional
        What Triton made of it, of a launch that ran.
    """

    kernel: Any
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int
    smaller: Callable[[], Launch | None] = lambda: None
    compiled: Any = None

    @property
    def options(self) -> dict[str, Any]:
        """Return what Triton's compiler is told; fusing into multiply-adds is its default until 3.9 only."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}

    def __call__(self) -> Launch:
        """Enqueue the kernel on the current stream of its tensors' device, and return the launch that ran."""
        if 0 in self.grid:
            return self
        with _on(next(value.device for value in self.arguments.values() if isinstance(value, Tensor))):
            try:
                compiled = self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
            except Exception as error:
                from triton.runtime.errors import OutOfResources

                smaller = self.smaller() if isinstance(error, OutOfResources) else None
                if smaller is None:
                    raise
                return smaller()
        return replace(self, compiled=compiled)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Make a device the current one, where it is another."""
    other = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if other else nullcontext()


ALIGNED = 16
"""Bytes to which the start of a tensor is aligned, or not: kernels are compiled for either."""


class Ready:
    """A launch that ran, for other tensors of the same shapes, strides, dtypes and device.

    Triton's own way to a kernel specialises and names some fifty arguments at every launch to find the one that it
    compiled; here only the tensors change.

    Parameters
    ----------
    launch : Launch
        Which ran.
    names : sequence of str
        Of its arguments, those that will be others.
    """

    def __init__(self, launch: Launch, names: Sequence[str]) -> None:
        values = [{**launch.arguments, **launch.constants}[name] for name in launch.kernel.arg_names]
        tensors = {name: launch.arguments[name] for name in names if launch.arguments[name] is not None}
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self._aligned = {name: _aligned(tensor) for name, tensor in tensors.items()}
        self._places = [(name, launch.kernel.arg_names.index(name)) for name in tensors]
        for _, place in self._places:
            values[place] = None  # no tensor outlives its call here
        self._values = values
        self._device = next(iter(tensors.values())).device
        self._run = launch.compiled[launch.grid]

    def takes(self, **tensors: Tensor | None) -> bool:
        """Tell whether tensors lie in memory as those did that it was compiled for."""
        return all(tensor is None or _aligned(tensor) == self._aligned[name] for name, tensor in tensors.items())

    def __call__(self, **tensors: Tensor | None) -> None:
        """Enqueue the kernel for other tensors, on the current stream of their device."""
        values = self._values.copy()
        for name, place in self._places:
            values[place] = tensors[name]
        with _on(self._device):
            self._run(*values)


def _aligned(tensor: Tensor) -> bool:
    return tensor.data_ptr() % ALIGNED == 0


class Launches:
    """The launches of a call, kept by name for the calls that follow with the same signature."""

    def __init__(self) -> None:
        self._ready: dict[str, Ready] = {}

    def ready(self, name: str, **tensors: Tensor | None) -> Ready | None:
        """Return a launch that takes these tensors, if one has run, and if all calls can be launched as it was."""
        ready = None if is_ragged() else self._ready.get(name)
        return ready if ready is not None and ready.takes(**tensors) else None

    def begin(self, name: str, launch: Launch, *names: str) -> Launch:
        """Run a launch, return the one that ran, and keep it for other tensors of these names."""
        ran = launch()
        # Triton's interpreter compiles nothing
        if ran.compiled is not None and not is_ragged() and name not in self._ready:
            self._ready[name] = Ready(ran, names)
        return ran

    def run(self, name: str, describe: Callable[[], Launch], **tensors: Tensor | None) -> None:
        """Run what `describe` makes for these tensors, or what is kept of it."""
        ready = self.ready(name, **tensors)
        if ready is None:
            self.begin(name, describe(), *tensors)
        else:
            ready(**tensors)

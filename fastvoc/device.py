"""The devices and dtypes that a user names, read in one place."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch


def read_device(device: str | torch.device, where: str) -> torch.device:
    """Return a device that is there, with its index, since the current device of a type may change.

    Parameters
    ----------
    device : str or torch.device
        ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or ``"auto"``: a GPU where there is one, under torchrun the one of
        `LOCAL_RANK`, else the CPU.
    where : str
        What error messages begin with, such as ``"--device toaster"``.

    Raises
    ------
    ValueError
        If it is not a device, or torch does not see it.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        # with more processes than GPUs, they share
        return torch.device("cuda", _local_rank() % count) if count else torch.device("cpu")
    try:
        read = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"{where}: is not a device; known: auto, cpu, cuda, cuda:N") from None
    if read.type == "meta":
        raise ValueError(f"{where}: holds no values; use auto, cpu, cuda or cuda:N")
    if read.type != "cuda":
        try:
            torch.empty(0, device=read)
        except Exception as error:  # of many kinds, by the part of torch that is not there
            reason = next(iter(str(error).splitlines()), "").strip() or type(error).__name__
            raise ValueError(f"{where}: torch has it not here ({reason}); use auto, cpu, cuda or cuda:N") from None
        return read
    if (read.index or 0) >= count:
        raise ValueError(f"{where}: torch sees {count} CUDA devices; use auto or cpu")
    return torch.device("cuda", torch.cuda.current_device()) if read.index is None else read


def read_dtype(dtype: torch.dtype | str, where: str) -> torch.dtype:
    """Return a dtype that can hold weights, which may be given by its name.

    Raises
    ------
    TypeError
        If it is not a dtype, or not a floating-point one of 16 bits or more.
    """
    known = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(known, torch.dtype):
        raise TypeError(f"{where}: dtype {dtype!r} is not a dtype; it must be one like 'float32' or torch.float32")
    if not known.is_floating_point:
        raise TypeError(f"{where}: dtype {known} cannot hold weights; it must be a floating-point type")
    if torch.finfo(known).bits < 16:
        raise TypeError(f"{where}: dtype {known} is too narrow to compute in; it must have 16 bits or more")
    return known


def sent(numbers: Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Return numbers as a tensor on a device, without waiting for what a GPU still has to do.

    Parameters
    ----------
    numbers : sequence of int
    device : torch.device
    dtype : torch.dtype
    """
    # from memory that is not pinned, a copy waits for the work before it
    pinned = device.type == "cuda"
    return torch.tensor(numbers, dtype=dtype, device="cpu", pin_memory=pinned).to(device, non_blocking=True)


@functools.cache
def memory_size() -> int:
    """Return how many bytes of memory a process may have: the machine's, or its control group's if these are fewer."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            sizes.append(int(Path(limit).read_text()))
    return min(sizes, default=sys.maxsize)


def _local_rank() -> int:
    value = os.environ.get("LOCAL_RANK") or "0"
    if not value.isdigit():
        raise ValueError(f"LOCAL_RANK={value}: must be a whole number, as torchrun sets it")
    return int(value)

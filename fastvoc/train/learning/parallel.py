"""Several processes that train one vocoder, as `torchrun` starts them; one process is the ordinary case.

Gradients are averaged by one sum over all variables of a network, just before its update. A step of a GAN runs its
discriminators several times and the two networks take turns, which the hooks of `DistributedDataParallel` forbid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the other processes for the length of a `with` block; alone, do nothing."""
    if launched() == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL looks for it
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:  # an environment variable is missing or no number
        reason = str(error).rpartition("rendezvous: ")[2]
        raise ValueError(
            f"train: WORLD_SIZE={os.environ['WORLD_SIZE']} says that a launcher has started processes, but {reason}; "
            "use torchrun, or unset WORLD_SIZE to train in one process"
        ) from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def launched() -> int:
    """Return how many processes the launcher has started."""
    if dist.is_initialized():
        return dist.get_world_size()
    said = os.environ.get("WORLD_SIZE") or "1"
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(f"train: WORLD_SIZE={said} is no number of processes; use torchrun, or unset it")
    return int(said)


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def agree(tensors: Sequence[Tensor]) -> None:
    """Give every process the first one's values."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if world_size() == 1:
        return flag
    flags: list[bool] = [False] * world_size()
    dist.all_gather_object(flags, flag)
    return any(flags)


def of_first(text: str) -> str:
    """Return what the first process says, in every process."""
    if not dist.is_initialized():
        return text
    said = [text]
    dist.broadcast_object_list(said, 0)
    return said[0]

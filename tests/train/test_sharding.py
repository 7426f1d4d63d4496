"""FSDP's `fully_shard`, of a whole generator and of layers inside it, on two processes."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn

from fastvoc.models import HiFiGANConfig

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]

SMALL = HiFiGANConfig(mel_bands=8, channels=16, rates=(4, 2), rate_kernel_sizes=(8, 4))


def parts(generator: Any) -> dict[str, list[nn.Module]]:
    """Modules that are sharded, beside the generator."""
    blocks = [module for module in generator.modules() if type(module).__name__ == "ResidualBlocks"]
    return {
        "whole": [],
        "first": [generator.trunk.stem],
        "blocks": blocks,
        "convolutions of blocks": [conv for block in blocks for conv in block._elements()],
        "every layer": [module for module in generator.modules() if list(module.parameters(recurse=False))],
    }


def step(generator: Any, mel: Tensor) -> Tensor:
    """Differentiate a loss of all samples, and return them."""
    wave: Tensor = generator(mel)
    wave.square().mean().backward()  # type: ignore[no-untyped-call]
    return wave.detach()


def run(rank: int, folder: str) -> None:
    """Compare sharded generators with one that is not, in one of two processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    plain, mel = SMALL.build(), torch.randn(1, 8, 20)
    expected = step(plain, mel)
    whole = torch.cat([weight.grad.flatten() for weight in plain.parameters() if weight.grad is not None])
    for name in parts(plain):
        sharded = copy.deepcopy(plain)
        sharded.zero_grad()
        for module in parts(sharded)[name]:
            fully_shard(module, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        wave = step(sharded, mel)
        grads: list[Any] = [weight.grad for weight in sharded.parameters()]
        together = torch.cat([grad.full_tensor().flatten() for grad in grads])
        torch.testing.assert_close(wave, expected, rtol=0, atol=1e-6, msg=lambda said, name=name: f"{name}: {said}")
        torch.testing.assert_close(together, whole, rtol=1e-4, atol=1e-6, msg=lambda said, name=name: f"{name}: {said}")
    distributed.destroy_process_group()
    Path(folder, f"{rank} is done").touch()
    # PyTorch's gloo thread may still let go of a tensor, for which it asks for the GIL; it aborts the process if the
    # interpreter is ending by then.
    os._exit(0)


def test_a_generator_can_be_sharded_whole_and_layer_by_layer(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    assert {"0 is done", "1 is done"} <= {path.name for path in tmp_path.iterdir()}

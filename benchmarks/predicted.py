"""What the model of a GPU expects of plans for it, to be held against what is measured. It needs no GPU.

``python -m benchmarks.predicted`` prints, for an H200, a table of the times of whole calls in float16, and with
``--launches`` those of every kernel of them.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.networks import NETWORKS
from fastvoc.engine.runs import layers_of
from fastvoc.ops.cuda.device import Gpu
from fastvoc.ops.cuda.network import Network

H200 = Gpu(90, 132, 227 << 10, 228 << 10)
CLOCKS_PER_MICROSECOND = 1830
"""At which the matrix units of an H200 reach the peak of its data sheet."""

CALLS = ((32, 344), (1, 86))
"""Batches and frames of mels: four seconds, and one."""

FRAMES_PER_MICROSECOND = 22050 / 256 / 1e6


def main() -> None:
    """Print what is expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="hifigan-v1,hifigan-v2,melgan", help="with commas between them")
    parser.add_argument("--launches", action="store_true", help="every kernel too")
    arguments = parser.parse_args()
    print("| network | batch × frames | launches | µs | × real time |\n|---|---|---|---|---|")
    for name in arguments.networks.split(","):
        print(*rows(name, launches=arguments.launches), sep="\n")


def rows(name: str, *, launches: bool) -> list[str]:
    """Return the rows of a network, with those of its kernels or without."""
    plan = Network(layers_of(NETWORKS[name].build()), H200, torch.float16)
    table = []
    for batch, frames in CALLS:
        times = [clocks / CLOCKS_PER_MICROSECOND for clocks in plan.clocks(batch, frames)]
        speed = batch * frames / FRAMES_PER_MICROSECOND / sum(times)
        table.append(f"| {name} | {batch} × {frames} | {len(times)} | {sum(times):.0f} | {speed:.0f} |")
        kernels = zip(plan.launches(batch, frames), times, strict=True) if launches else ()
        table += [f"| | | {kernel} | {time:.1f} | |" for kernel, time in kernels]
    return table


if __name__ == "__main__":
    main()

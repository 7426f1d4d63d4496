"""What a GPU is expected to take for a sample of a WaveNet, to be held against what is measured. It needs no GPU.

``python -m benchmarks.predicted_steps`` prints a table for an H200, in 16 bits: of a block that makes its streams alone
(``csrc/cuda/device/recurrent.cuh``) and of a cluster (``recurrent_cluster.cuh``), for one stream and for as many as
clusters take. Clocks are those of a chain in which one step waits for the other, and of what a multiprocessor is moved;
of a block both bounds are shown, since nobody knows how much of either hides behind the other.
"""

from __future__ import annotations

from math import ceil

from benchmarks.predicted import CLOCKS_PER_MICROSECOND
from fastvoc.models import WaveNetConfig
from fastvoc.models.wavenet import LOGISTICS, MU_LAW, NV_WAVENET

BARRIER, BEGIN, OPERANDS, PRODUCT, GATES = 40, 120, 33, 33, 180
"""Clocks of a barrier, of what a step does to begin the next one, of loading operands, of a product behind another, and
of a tanh and a sigmoid."""

CACHE, DRAW = 600, 1500
"""Clocks until the second level cache answers, and of a draw."""

HAND_ON, SEND = 55, 270
"""Of a cluster: clocks to bring results into the order in which they are sent, and until another multiprocessor has
noticed what was sent to it. Distributed shared memory is read in some 200."""

ALONE, SHARED = 64, 27
"""Bytes of the second level cache that a multiprocessor is given in a clock, alone and beside all others."""

BLOCKS, ASKED, SAMPLES = 8, {1: 4, 8: 6}, 8
"""Of a cluster; pairs of tiles that a warp asks for at once, alone or in a cluster; samples that are looked back for,
and streams of a block."""

SHARES, DRAWERS = 64, 5
"""Threads of a block of a cluster that gather what is looked back at, for all blocks, and warps that draw."""

NETWORKS = {
    "r9y9, 256 classes": (MU_LAW, 22050),
    "r9y9, logistics": (LOGISTICS, 22050),
    "nv-wavenet": (NV_WAVENET, 16000),
}


def main() -> None:
    """Print what is expected."""
    print("| network | by | moved per sample and block | transfers | waiting | samples/s | × real time | each of 128 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (config, rate) in NETWORKS.items():
        for blocks, kernel in ((1, "a block"), (BLOCKS, "a cluster")):
            transfers, waiting = moved(config) / blocks / ALONE, clocks(config, blocks)
            one = rates(transfers, waiting, blocks)
            many = waiting if blocks == 1 else clocks(config, blocks, streams=SAMPLES)
            all_of_them = rates(moved(config) / blocks / SHARED, many, blocks)
            print(
                f"| {name} | {kernel} | {moved(config) / blocks / 1e6:.2f} MB | {transfers:.0f} | {waiting:.0f} | "
                f"{' to '.join(f'{each:.0f}' for each in one)} | {' to '.join(f'{each / rate:.2f}' for each in one)} | "
                f"{' to '.join(f'{each:.0f}' for each in all_of_them)} |"
            )


def rates(transfers: float, waiting: float, blocks: int) -> list[float]:
    """Return samples per second: if nothing hides, and if all does; a cluster asks for weights a step before."""
    slow, quick = transfers + waiting, max(transfers, waiting)
    return [1e6 * CLOCKS_PER_MICROSECOND / bound for bound in ((slow, quick) if blocks == 1 else (quick,))]


def pairs(columns: int) -> int:
    """Return the pairs of tiles that so many columns are."""
    return ceil(columns / 32)


def looks_back(config: WaveNetConfig) -> float:
    """Return how many layers look back, for each sample."""
    return sum(1 / next(size for size in (SAMPLES, 4, 2, 1) if dilation >= size) for dilation in config.dilations)


def moved(config: WaveNetConfig) -> float:
    """Return the bytes of weights that a sample reads."""
    gated, skips, channels = config.gates // 2, config.skip_channels, config.channels
    outputs = -(-config.distribution.outputs // 16) * 16
    chain = config.layers * (2 * gated * channels + (channels + skips) * gated) - channels * gated
    head = config.head_channels * (skips + outputs)
    past = 2 * gated * 32 * pairs((config.kernel_size - 1) * channels + config.mel_bands)
    return 2 * (chain + head + looks_back(config) * past)


def clocks(config: WaveNetConfig, blocks: int, streams: int = 1) -> float:
    """Return how long the chain of a sample is, of a stream of a block or of so many of a cluster."""
    gates, residual = pairs(config.channels), pairs(config.gates // 2)
    hidden, output = pairs(config.skip_channels), pairs(config.head_channels)
    past = pairs((config.kernel_size - 1) * config.channels + config.mel_bands)

    def step(count: int) -> float:
        # of a head that is no longer than a layer all is asked for before; in a cluster its rest is in shared memory
        rest = (ceil(count / ASKED[blocks]) - 1) * (CACHE if blocks == 1 else OPERANDS)
        return BEGIN + OPERANDS + PRODUCT * count + rest + (BARRIER if blocks == 1 else HAND_ON + SEND)

    chain = config.layers * (step(gates) + GATES + step(residual)) - step(residual)
    head = step(residual) + step(hidden) + step(output) + BARRIER + ceil(streams / DRAWERS) * DRAW + BARRIER + CACHE
    # rows, biases and weights come from the cache; in a cluster other warps do it in the time of a layer, or are late
    back = 2 * CACHE + ceil(past / ASKED[1]) * CACHE + 2 * PRODUCT * past
    chunks = 4 * past / blocks * SAMPLES * streams
    late = ceil(chunks / 2 / SHARES) * (CACHE + OPERANDS * blocks // 2) - (step(gates) + GATES + step(residual))
    return chain + head + looks_back(config) * (back if blocks == 1 else max(0.0, late))


if __name__ == "__main__":
    main()

"""What the model of a GPU expects of plans for it, to be held against what is measured. It needs no GPU.

``python -m benchmarks.predicted`` prints, for an H200, a table of the times of whole calls in float16, and with
``--launches`` those of every kernel of them. Of WaveGlow they are the upsampling, the layers of its flows and the
convolutions around them; what PyTorch does between flows is not in the model.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch

from benchmarks.networks import NETWORKS
from fastvoc.engine.runs import layers_of
from fastvoc.models import waveglow
from fastvoc.ops.cuda.device import Gpu
from fastvoc.ops.cuda.network import Network
from fastvoc.ops.gated import cuda as gated
from fastvoc.ops.network import INPUT, Layer

H200 = Gpu(90, 132, 227 << 10, 228 << 10)
CLOCKS_PER_MICROSECOND = 1830
"""At which the matrix units of an H200 reach the peak of its data sheet."""

CALLS = ((32, 344), (1, 86))
"""Batches and frames of mels: four seconds, and one."""

FRAMES_PER_MICROSECOND = 22050 / 256 / 1e6


def main() -> None:
    """Print what is expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="hifigan-v1,hifigan-v2,melgan,waveglow", help="with commas between them")
    parser.add_argument("--launches", action="store_true", help="every kernel too")
    arguments = parser.parse_args()
    print("| network | batch × frames | launches | µs | × real time |\n|---|---|---|---|---|")
    for name in arguments.networks.split(","):
        print(*rows(name, launches=arguments.launches), sep="\n")


def rows(name: str, *, launches: bool) -> list[str]:
    """Return the rows of a network, with those of its kernels or without."""
    predict = waveglow_kernels if name == "waveglow" else partial(kernels, name)
    table = []
    for batch, frames in CALLS:
        made = predict(batch, frames)
        total = sum(clocks for _, clocks in made) / CLOCKS_PER_MICROSECOND
        speed = batch * frames / FRAMES_PER_MICROSECOND / total
        table.append(f"| {name} | {batch} × {frames} | {len(made)} | {total:.0f} | {speed:.0f} |")
        table += [f"| | | {kernel} | {clocks / CLOCKS_PER_MICROSECOND:.1f} | |" for kernel, clocks in made if launches]
    return table


Kernels = list[tuple[str, float]]
"""With the clocks that each is expected to take."""


def kernels(name: str, batch: int, frames: int) -> Kernels:
    """Return those of a network's plan."""
    return _kernels_of(layers_of(NETWORKS[name].build()), batch, frames)


def waveglow_kernels(batch: int, frames: int, config: waveglow.WaveGlowConfig = waveglow.PUBLISHED) -> Kernels:
    """Return those of the flows of a WaveGlow, from noise to the wave, and of the upsampling of its mel."""
    rows, wide, channels = frames * config.hop // config.group, config.mel_bands * config.group, config.channels
    taps, bands = config.upsample_kernel_size, config.mel_bands
    upsampling = _layer("upsample", (bands, bands, taps), padding=(0, taps - config.hop), stride=config.hop)
    made = _kernels_of([upsampling], batch, frames)
    for width in reversed(config.widths()):
        made += _kernels_of([_layer("conv1d", (channels, width // 2, 1))], batch, rows)
        for number in range(config.layers):
            dilation = 2**number
            around = dilation * (config.kernel_size // 2)
            sizes = {"channels": channels, "gates": channels, "skips": channels, "taps": config.kernel_size}
            places = {"dilation": dilation, "left": around, "right": around, "before": around}
            condition = {"condition": wide, "multiplied": True}
            residual = number + 1 < config.layers
            layer = gated.Compiled(H200, torch.float16, residual=residual, scale=1.0, **sizes, **places, **condition)
            made += layer.launches(batch, rows)
        made += _kernels_of([_layer("conv1d", (width, channels, 1))], batch, rows)
    return made


def _layer(kind: str, shape: tuple[int, int, int], *, padding: tuple[int, int] = (0, 0), stride: int = 1) -> Layer:
    weight = torch.empty(1).expand(shape)
    return Layer(kind=kind, input=INPUT, weight=weight, bias=None, padding=padding, stride=stride)


def _kernels_of(layers: list[Layer], batch: int, frames: int) -> Kernels:
    plan = Network(layers, H200, torch.float16)
    return [*zip(plan.launches(batch, frames), plan.clocks(batch, frames), strict=True)]


if __name__ == "__main__":
    main()

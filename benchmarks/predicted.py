"""What the model of a GPU expects of plans for it, to be held against what is measured. It needs no GPU.

``python -m benchmarks.predicted`` prints, for an H200, a table of the times of whole calls in float16, and with
``--launches`` those of every kernel of them. Vocos, which has no plan, runs operator by operator. Of WaveGlow they are
the upsampling, the layers of its flows and the convolutions around them; what PyTorch does between flows is not in the
model.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.measuring.networks import NETWORKS
from fastvoc import native
from fastvoc.engine.runs import layers_of
from fastvoc.models import waveglow
from fastvoc.models.vocos import VocosConfig
from fastvoc.ops.convnext import cuda as convnext
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.cuda.device import Gpu
from fastvoc.ops.cuda.network import Network
from fastvoc.ops.gated import cuda as gated
from fastvoc.ops.network import INPUT, Layer

H200 = Gpu(90, 132, 227 << 10, 228 << 10)
CLOCKS_PER_MICROSECOND = 1830
"""At which the matrix units of an H200 reach the peak of its data sheet."""

RATES = {"bigvgan-24k": 24000, "vocos": 24000}
"""Samples of a second, where they are not 22050; a frame of all of these has 256."""

SECONDS = ((32, 4), (1, 1))
"""Batches, and how long their mels are."""

Launches = list[tuple[str, float]]
"""Kernels with their clocks."""


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
    """Return the rows of a network, with those of its kernels or without.

    Parameters
    ----------
    name : str
        Of `NETWORKS`; or ``"vocos"``, for the blocks of `VocosConfig` alone, or ``"waveglow"``.
    launches : bool
    """
    layers = [] if name in ("vocos", "waveglow") else layers_of(NETWORKS[name].build())
    plan = Network(layers, H200, torch.float16) if layers else None
    rate, table = RATES.get(name, 22050), []
    for batch, seconds in SECONDS:
        frames = rate * seconds // 256 + (name == "vocos")  # whose wave ends in the middle of the last frame
        if plan is not None:
            made = list(zip(plan.launches(batch, frames), plan.clocks(batch, frames), strict=True))
        elif name == "waveglow":
            made = of_waveglow(batch, frames)
        else:
            made = VocosConfig().blocks * of_block(VocosConfig(), batch, frames)
        times = [clocks / CLOCKS_PER_MICROSECOND for _, clocks in made]
        speed = batch * frames * 256e6 / rate / sum(times)
        table.append(f"| {name} | {batch} × {frames} | {len(times)} | {sum(times):.0f} | {speed:.0f} |")
        if launches:
            table += [f"| | | {kernel} | {time:.1f} | |" for (kernel, _), time in zip(made, times, strict=True)]
    return table


def of_network(layers: list[Layer], batch: int, frames: int, *, enters: bool = False) -> Launches:
    """Return the launches of layers that are one network; what it reads is in its kernels' order, unless it enters."""
    network = Network(layers, H200, torch.float16)
    all_of_them = zip(network.launches(batch, frames), network.clocks(batch, frames), strict=True)
    inputs = sum(name == "enter" for name in network.launches(batch, frames))
    return [one for number, one in enumerate(all_of_them) if number >= inputs or (enters and number == 0)]


def of_block(config: VocosConfig, batch: int, frames: int) -> Launches:
    """Return the launches of a block of Vocos in float16, channels-last."""
    channels, hidden, taps = config.channels, config.hidden, config.kernel_size

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(1, dtype=torch.float16).expand(shape)

    x, one, middle = empty(batch, channels, frames), empty(channels), empty(hidden)
    depthwise, expand, contract = empty(channels, 1, taps), empty(hidden, channels), empty(channels, hidden)
    call = Convnext(x, depthwise, one, one, one, expand, middle, contract, one, one, taps // 2, taps // 2)
    ffi, library = native.library()
    gpu = ffi.new("fastvoc_gpu *", H200._asdict())
    clocks = library.fastvoc_cuda_normalise_clocks(gpu, convnext.described(call)())
    return [("normalise_f16", clocks), *of_network(convnext.layers(call), batch, frames)]


def of_waveglow(batch: int, frames: int, config: waveglow.WaveGlowConfig = waveglow.PUBLISHED) -> Launches:
    """Return those of the flows of a WaveGlow, from noise to the wave, and of the upsampling of its mel."""
    rows, wide, channels = frames * config.hop // config.group, config.mel_bands * config.group, config.channels
    taps, bands = config.upsample_kernel_size, config.mel_bands
    upsampling = _layer("upsample", (bands, bands, taps), padding=(0, taps - config.hop), stride=config.hop)
    made = of_network([upsampling], batch, frames, enters=True)
    for width in reversed(config.widths()):
        made += of_network([_layer("conv1d", (channels, width // 2, 1))], batch, rows, enters=True)
        for number in range(config.layers):
            dilation = 2**number
            around = dilation * (config.kernel_size // 2)
            sizes = {"channels": channels, "gates": channels, "skips": channels, "taps": config.kernel_size}
            places = {"dilation": dilation, "left": around, "right": around, "before": around}
            condition = {"condition": wide, "multiplied": True}
            residual = number + 1 < config.layers
            layer = gated.Compiled(H200, torch.float16, residual=residual, scale=1.0, **sizes, **places, **condition)
            made += layer.launches(batch, rows)
        made += of_network([_layer("conv1d", (width, channels, 1))], batch, rows, enters=True)
    return made


def _layer(kind: str, shape: tuple[int, int, int], *, padding: tuple[int, int] = (0, 0), stride: int = 1) -> Layer:
    weight = torch.empty(1).expand(shape)
    return Layer(kind=kind, input=INPUT, weight=weight, bias=None, padding=padding, stride=stride)


if __name__ == "__main__":
    main()

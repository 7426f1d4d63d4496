"""Which layers of a generator may multiply in 8 bits, and how they write what they read."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvoc.engine.cpu_plan import Plan
from fastvoc.engine.runs import input_of, layers_of, operands
from fastvoc.graph import Network
from fastvoc.ops.network import INPUT, Layer, Quantization

HEADROOM = 1.2
"""How far the steps reach beyond what was measured. This costs 1 dB of the mels that were measured; without it other
mels, whose values are larger, lose up to 6 dB (random HiFi-GAN networks, 80 frames measured, 2026-11-20)."""

Signal = tuple[int, float]
"""What layers read: the result of the layer of this number, behind a leaky ReLU of this slope."""


def calibrate(generator: Network, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Quantization]:
    """Choose the layers that multiply in 8 bits, so that waves keep a signal-to-noise ratio.

    Parameters
    ----------
    generator : Network
        One that `Plan.refuses_int8` does not refuse.
    mels : sequence of Tensor, shape (B, bands, T)
        What it is likely to be given.
    smallest_snr : float
        Of the wave of each mel against the generator's in float32, in dB.

    Returns
    -------
    dict of int to Quantization
        For `Plan`; the first layer and those of the head are never among them.

    Raises
    ------
    ValueError
        If no layer can: bfloat16, in which the others multiply, may take most of it alone.

    Notes
    -----
    Errors of different layers hardly depend on one another, so that their energies add up. Each signal is quantised
    alone, and then as many together as possible, those first that save the most multiplications for their error.
    """
    generator = copy.deepcopy(generator).float()  # type: ignore[attr-defined]
    layers = layers_of(generator)
    # what several layers read is quantised once, so that they are chosen together
    readers: dict[Signal, list[int]] = defaultdict(list)
    head = next((number for number, layer in enumerate(layers) if layer.tanh), len(layers))
    for number in range(head):
        if layers[number].input != INPUT and layers[number].kind != "smooth_snake":
            readers[layers[number].input, layers[number].slope].append(number)
    with torch.inference_mode():
        steps = steps_of(generator, layers, mels)
        waves = [generator(mel) for mel in mels]

        def noise(signals: Sequence[Signal]) -> float:
            """Energy of the error in parts of the wave's, of the worst mel."""
            plan = Plan(generator, int8={n: steps[n] for signal in signals for n in readers[signal]})
            return max(
                float((plan(mel) - wave).square().sum() / wave.square().sum().clamp(min=torch.finfo().tiny))
                for mel, wave in zip(mels, waves, strict=True)
            )

        rates = _rates(layers)

        def multiplications(signal: Signal) -> float:
            return sum(layers[n].weight.numel() * rates[layers[n].input] for n in readers[signal])

        most = 10 ** (-smallest_snr / 10)
        alone = noise([])
        signals = sorted(readers, key=lambda signal: (noise([signal]) - alone) / multiplications(signal))
        fits, too_many = 0, len(signals) + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if noise(signals[:middle]) <= most else (fits, middle)
    if fits == 0:
        raise ValueError(
            f"calibrate: no layer can multiply in 8 bits and keep {smallest_snr:g} dB; with all in bfloat16 waves keep "
            f"{-10 * math.log10(max(alone, 1e-30)):.1f} dB, so ask for less"
        )
    return {n: steps[n] for n in sorted(n for signal in signals[:fits] for n in readers[signal])}


def steps_of(generator: Network, layers: list[Layer], mels: Sequence[Tensor]) -> list[Quantization]:
    """Reach from the least to the largest that each layer multiplies; zero, which padding holds, is among the steps."""
    least, largest = [0.0] * len(layers), [0.0] * len(layers)
    for mel in mels:
        for number, operand in enumerate(operands(layers, input_of(generator, mel))):
            least[number] = min(least[number], float(operand.min()))
            largest[number] = max(largest[number], float(operand.max()))
    scales = [HEADROOM * max(high - low, 1e-20) / 255 for low, high in zip(least, largest, strict=True)]
    return [Quantization(scale, round(-low * HEADROOM / scale)) for low, scale in zip(least, scales, strict=True)]


def _rates(layers: list[Layer]) -> dict[int, float]:
    """Rows of each layer's result per frame of mel."""
    rates = {INPUT: 1.0}
    for number, layer in enumerate(layers):
        rates[number] = rates[layer.input] * layer.stride
    return rates

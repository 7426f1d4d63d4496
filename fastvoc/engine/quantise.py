"""Which layers of a generator may multiply in 8 bits, and how they write what they read."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from fastvoc.blocks import WaveHead
from fastvoc.engine.layers import layers_of, operands
from fastvoc.engine.plan import Plan
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops._network import INPUT, Layer, Steps

HEADROOM = 1.2
"""How far the steps reach beyond what was heard. This costs 1 dB of the mels that were heard; without it other mels,
whose values are larger, lose up to 6 dB (random HiFi-GAN networks, 80 frames heard, 2026-11-20)."""

Signal = tuple[int, float]
"""What layers read: the result of the layer of this number, behind a leaky ReLU of this slope."""


def calibrate(generator: TrunkGenerator, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Steps]:
    """Choose the layers that multiply in 8 bits, so that waves keep a signal-to-noise ratio.

    Parameters
    ----------
    generator : TrunkGenerator
        One that `Plan.refuses_int8` does not refuse.
    mels : sequence of Tensor, shape (B, bands, T)
        What it is likely to hear.
    smallest_snr : float
        Of the wave of each mel against the generator's in float32, in dB.

    Returns
    -------
    dict of int to Steps
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
    generator = copy.deepcopy(generator).float()
    layers = layers_of(generator)
    # what several layers read is quantised once, so that they are chosen together
    readers: dict[Signal, list[int]] = defaultdict(list)
    for number in range(_layers_of_trunk(generator, layers)):
        if layers[number].input != INPUT:
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


def _layers_of_trunk(generator: TrunkGenerator, layers: list[Layer]) -> int:
    """Count the layers in front of the head."""
    if not isinstance(generator.head, WaveHead):
        return len(layers)
    return next(n for n, layer in enumerate(layers) if layer.weight is generator.head.conv.weight)


def steps_of(generator: TrunkGenerator, layers: list[Layer], mels: Sequence[Tensor]) -> list[Steps]:
    """Reach from the least to the largest that each layer multiplies; zero, which padding holds, is among the steps."""
    least, largest = [0.0] * len(layers), [0.0] * len(layers)
    for mel in mels:
        x = (mel - generator.mean[:, None]) / generator.scale[:, None] if generator.standardised else mel
        for number, operand in enumerate(operands(layers, x)):
            least[number] = min(least[number], float(operand.min()))
            largest[number] = max(largest[number], float(operand.max()))
    scales = [HEADROOM * max(high - low, 1e-20) / 255 for low, high in zip(least, largest, strict=True)]
    return [Steps(scale, round(-low * HEADROOM / scale)) for low, scale in zip(least, scales, strict=True)]


def _rates(layers: list[Layer]) -> dict[int, float]:
    """Rows of each layer's result per frame of mel."""
    rates = {INPUT: 1.0}
    for number, layer in enumerate(layers):
        rates[number] = rates[layer.input] * layer.stride
    return rates

"""Which convolutions of a WaveNet may multiply in 8 bits, and the steps that their inputs are rounded to."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastvoc.ops.network import Quantization
from fastvoc.ops.recurrent import NativeWaveNet, Steps

if TYPE_CHECKING:
    from fastvoc.models.wavenet import WaveNet

HEADROOM = 1.2
"""How far the steps reach beyond what was measured."""

FRAMES = 16
"""Of the middle of each mel whose samples are made: enough values for a range, and little time."""

ZERO = 128
"""The step that is 0: values are signed."""


def choose(network: WaveNet, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Quantization]:
    """Choose the convolutions that multiply in 8 bits, so that distributions keep a signal-to-noise ratio.

    Parameters
    ----------
    network : WaveNet
        One that native steps can run.
    mels : sequence of Tensor, shape (B, bands, T)
        What it is likely to be given.
    smallest_snr : float
        Of the parameters of the samples' distributions, logits without their mean, against those in float32 for the
        same samples before, in dB.

    Returns
    -------
    dict of int to Quantization
        Two for each layer: 2n is its dilated convolution with the condition, 2n + 1 those behind its gates.

    Raises
    ------
    ValueError
        If none can: bfloat16, in which the others multiply, may take most of it alone.

    Notes
    -----
    Waves that are drawn would part at the first sample that comes out otherwise, which says little; so each sample's
    distribution is compared, given the same ones before it.
    """
    network = copy.deepcopy(network).float()
    numbers = range(2 * network.config.layers)
    with torch.inference_mode():
        exact = NativeWaveNet(network._as_matrices(), torch.float32)
        examples = [_Example(network, exact, mel) for mel in mels]
        peaks = [max(column) for column in zip(*(_peaks(network, one) for one in examples), strict=True)]
        steps = [HEADROOM * max(peak, 1e-20) / (ZERO - 1) for peak in peaks]

        def noise(chosen: Sequence[int]) -> float:
            """Energy of the error in parts of the parameters', of the worst example."""
            scales = [steps[number] if number in chosen else 0.0 for number in numbers]
            narrow = NativeWaveNet(network._as_matrices(), torch.bfloat16, scales)
            return max(one.noise(narrow) for one in examples)

        most = 10 ** (-smallest_snr / 10)
        order: Sequence[int] = numbers
        if not noise(numbers) <= most:  # errors hardly depend on one another, so that their energies add up
            alone = noise([])
            order = sorted(numbers, key=lambda number: (noise([number]) - alone) / _weights(network, number))
            fits, too_many = 0, len(numbers)
            while too_many - fits > 1:
                middle = (fits + too_many) // 2
                fits, too_many = (middle, too_many) if noise(order[:middle]) <= most else (fits, middle)
            if fits == 0:
                raise ValueError(
                    f"WaveNet: no convolution can multiply in 8 bits and keep {smallest_snr:g} dB; with all in "
                    f"bfloat16 distributions keep {-10 * math.log10(max(alone, 1e-30)):.1f} dB, so ask for less"
                )
            order = order[:fits]
    return {number: Quantization(steps[number], ZERO) for number in sorted(order)}


class _Example:
    """Samples that a network draws for a mel, and what it says of each."""

    def __init__(self, network: WaveNet, exact: NativeWaveNet, mel: Tensor) -> None:
        hop, frames = network.hop, min(FRAMES, mel.shape[-1])
        first = (mel.shape[-1] - frames) // 2
        self.rows = network.rows(mel)[..., first * hop : (first + frames) * hop].mT.float().contiguous()
        self.silence = float(network.config.distribution.silence)
        self.centred = bool(network.config.distribution.classes)
        noise = network.draws(torch.arange(len(mel), device="cpu"), 0, frames).float().contiguous()
        drawn, self.expected = self._run(exact, noise=noise, temperature=self.rows.new_ones(len(mel)))
        first_input = torch.full_like(drawn[:, :1], self.silence)
        self.inputs = torch.cat([first_input, drawn[:, :-1]], dim=1).contiguous()

    def noise(self, other: NativeWaveNet) -> float:
        """Energy of the error of what another network says of the same samples, in parts of what is right."""
        _, parameters = self._run(other, forced=self.inputs)
        energy = self.expected.square().sum().clamp(min=torch.finfo().tiny)
        return float((parameters - self.expected).square().sum() / energy)

    def _run(self, network: NativeWaveNet, **given: Any) -> tuple[Tensor, Tensor]:
        batch, count = self.rows.shape[:2]
        drawn = self.rows.new_empty(batch, count)
        parameters = self.rows.new_empty(batch, count, network.sizes["outputs"])
        network.run(
            Steps(
                time=torch.zeros(batch, dtype=torch.int64, device="cpu"),
                rings=self.rows.new_zeros(batch, network.rows, network.sizes["channels"]),
                history=self.rows.new_full((batch, 1), self.silence),
                condition=self.rows,
                gates=None,
                parameters=parameters,
                **{"noise": None, "temperature": None, "drawn": None if "forced" in given else drawn} | given,
            )
        )
        return drawn, parameters - parameters.mean(dim=-1, keepdim=True) if self.centred else parameters


def _peaks(network: WaveNet, example: _Example) -> list[float]:
    """Return the largest magnitudes that each convolution is given."""
    peaks, rows = [], example.rows.mT
    x = network.embedded(example.inputs)
    for layer in network._each():
        tanh, sigmoid = (layer.dilated(x) + layer.condition(rows)).chunk(2, dim=1)
        z = tanh.tanh() * sigmoid.sigmoid()
        peaks += [float(x.abs().max()), float(z.abs().max())]
        if layer.residual is not None:
            x = (x + layer.residual(z)) * layer.scale
    return peaks


def _weights(network: WaveNet, number: int) -> int:
    """Count the weights of a convolution that 8 bits make smaller."""
    layer = [*network._each()][number // 2]
    parts = [layer.skip, layer.residual] if number % 2 else [layer.dilated, layer.condition]
    return sum(part.weight.numel() for part in parts if part is not None)

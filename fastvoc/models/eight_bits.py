"""Which convolutions of a WaveNet may multiply in 8 bits, and the steps that their inputs are rounded to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import native
from fastvoc.ops.kept import Samples
from fastvoc.ops.network import Quantization
from fastvoc.ops.recurrent import NativeWaveNet, Steps, WaveNetWeights

HEADROOM = 1.2
"""How far the steps reach beyond what was measured."""

ZERO = 128
"""The step that is 0: values are signed."""


class EightBits:
    """The convolutions of a network that multiply in 8 bits, as long as its weights are those they were chosen for.

    Parameters
    ----------
    network : nn.Module
    layers : int
        Of which each has two such convolutions.
    name : str
        What error messages call the network.
    """

    def __init__(self, network: nn.Module, layers: int, name: str) -> None:
        self._network, self._count, self._name = network, 2 * layers, name
        self._chosen: dict[int, Quantization] = {}
        self._of: int | None = None

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._chosen)

    def take(self, chosen: Mapping[int, Quantization]) -> None:
        """Multiply these in 8 bits, as long as the weights are as they are now, and others in bfloat16.

        Raises
        ------
        ValueError
            If there is no such convolution, or 0 is not the middle of its steps.
        """
        for number, steps in chosen.items():
            if number not in range(self._count):
                raise ValueError(
                    f"{self._name}: convolution {number} is to multiply in 8 bits, but there are only {self._count}"
                )
            if steps.zero_point != ZERO:
                raise ValueError(
                    f"{self._name}: convolution {number} has the zero point {steps.zero_point}; it must be {ZERO}"
                )
        self._chosen = dict(chosen)
        known = chosen and next(self._network.parameters()).device.type == "cpu" and not native.missing()
        self._of = Samples(self._network.parameters()).take() if known else None

    @property
    def way(self) -> str:
        """What steps by them are called."""
        return f"native steps with {len(self._chosen)} of {self._count} convolutions in int8"

    @property
    def outdated(self) -> str | None:
        """Why they are not used any more, or None."""
        if self._of == Samples(self._network.parameters()).take():
            return None
        return "the generator has changed since the layers were chosen; quantise it again"

    @property
    def scales(self) -> tuple[float, ...]:
        """The distance of two steps of each convolution's input, or 0 where it multiplies in bfloat16."""
        chosen = [self._chosen.get(number) for number in range(self._count)]
        return tuple(0.0 if steps is None else steps.scale for steps in chosen)


def refuses() -> str | None:
    """Return why this processor cannot multiply so, or None."""
    return None if native.multiplies_bfloat16() else "this processor does not multiply 8-bit integers (AVX512_VNNI)"


class Example(NamedTuple):
    """Samples that a network is to make, float32 and contiguous."""

    rows: Tensor
    """(B, T, condition)."""
    noise: Tensor
    """(B, numbers, T)."""
    silence: float
    """The input before the first."""


def choose(
    weights: WaveNetWeights, examples: Sequence[Example], *, smallest_snr: float, name: str = "WaveNet"
) -> dict[int, Quantization]:
    """Choose the convolutions that multiply in 8 bits, so that distributions keep a signal-to-noise ratio.

    Parameters
    ----------
    weights : WaveNetWeights
        In float32, of a network that native steps can run.
    examples : sequence of Example
        What it is likely to be given.
    smallest_snr : float
        Of the parameters of the samples' distributions, logits without their mean, against those in float32 for the
        same samples before, in dB.
    name : str
        What error messages call the network.

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
    numbers = range(2 * len(weights.dilations))
    exact = NativeWaveNet(weights, torch.float32)
    made = [_Made(exact, weights, example) for example in examples]
    peaks = [max(column) for column in zip(*(_peaks(weights, one) for one in made), strict=True)]
    steps = [HEADROOM * max(peak, 1e-20) / (ZERO - 1) for peak in peaks]

    def noise(chosen: Sequence[int]) -> float:
        """Energy of the error in parts of the parameters', of the worst example."""
        scales = [steps[number] if number in chosen else 0.0 for number in numbers]
        narrow = NativeWaveNet(weights, torch.bfloat16, scales)
        return max(one.noise(narrow) for one in made)

    most = 10 ** (-smallest_snr / 10)
    order: Sequence[int] = numbers
    if not noise(numbers) <= most:  # errors hardly depend on one another, so that their energies add up
        alone = noise([])
        order = sorted(numbers, key=lambda number: (noise([number]) - alone) / _weights(weights, number))
        fits, too_many = 0, len(numbers)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            fits, too_many = (middle, too_many) if noise(order[:middle]) <= most else (fits, middle)
        if fits == 0:
            raise ValueError(
                f"{name}: no convolution can multiply in 8 bits and keep {smallest_snr:g} dB; with all in "
                f"bfloat16 distributions keep {-10 * math.log10(max(alone, 1e-30)):.1f} dB, so ask for less"
            )
        order = order[:fits]
    return {number: Quantization(steps[number], ZERO) for number in sorted(order)}


class _Made:
    """Samples that a network draws for an example, and what it says of each."""

    def __init__(self, exact: NativeWaveNet, weights: WaveNetWeights, example: Example) -> None:
        self.rows, self.silence = example.rows, example.silence
        self.centred = weights.distribution == "CLASSES"
        temperature = self.rows.new_ones(len(self.rows))
        drawn, self.expected = self._run(exact, noise=example.noise, temperature=temperature)
        first = torch.full_like(drawn[:, :1], self.silence)
        self.inputs = torch.cat([first, drawn[:, :-1]], dim=1).contiguous()

    def noise(self, other: NativeWaveNet) -> float:
        """Energy of the error of what another network says of the same samples, in parts of what is right."""
        _, parameters = self._run(other, forced=self.inputs)
        energy = self.expected.square().sum().clamp(min=torch.finfo().tiny)
        return float((parameters - self.expected).square().sum() / energy)

    def _run(self, network: NativeWaveNet, **given: Tensor) -> tuple[Tensor, Tensor]:
        batch, count = self.rows.shape[:2]
        drawn = self.rows.new_empty(batch, count)
        parameters = self.rows.new_empty(batch, count, network.sizes["outputs"])
        network.run(
            Steps(
                time=torch.zeros(batch, dtype=torch.int64, device="cpu"),
                rings=self.rows.new_zeros(batch, network.rows, network.sizes["channels"]),
                history=self.rows.new_full((batch, network.sizes["input_taps"]), self.silence),
                condition=self.rows,
                gates=None,
                parameters=parameters,
                **{"noise": None, "temperature": None, "drawn": None if "forced" in given else drawn} | given,
            )
        )
        return drawn, parameters - parameters.mean(dim=-1, keepdim=True) if self.centred else parameters


def _peaks(weights: WaveNetWeights, made: _Made) -> list[float]:
    """Return the largest magnitudes that each convolution is given."""
    peaks, x = [], _inputs(weights, made)
    for layer, dilation in enumerate(weights.dilations):
        span = (weights.dilated.shape[-1] - 1) * dilation
        a = F.conv1d(F.pad(x, (span, 0)), weights.dilated[layer], weights.dilated_bias[layer], dilation=dilation)
        if weights.conditions is not None:
            a = a + weights.conditions[layer] @ made.rows.mT
        tanh, sigmoid = a.chunk(2, dim=1)
        z = tanh.tanh() * sigmoid.sigmoid()
        peaks += [float(x.abs().max()), float(z.abs().max())]
        x = (x + weights.residual[layer] @ z + weights.residual_bias[layer, :, None]) * weights.residual_scale
    return peaks


def _inputs(weights: WaveNetWeights, made: _Made) -> Tensor:
    """Return what the first layer reads, (B, channels, T)."""
    count = made.inputs.shape[1]
    taps = weights.sizes["input_taps"]
    inputs = F.pad(made.inputs, (taps - 1, 0), value=made.silence)
    x = weights.input_bias[:, None]
    for tap in range(taps):
        own = inputs[:, tap : tap + count]
        if weights.distribution == "CLASSES":
            x = x + weights.input[tap][own.long()].mT
        else:
            x = x + own[:, None] * weights.input[:, tap, None]
    return x


def _weights(weights: WaveNetWeights, number: int) -> int:
    """Count the weights of a convolution that 8 bits make smaller."""
    layer, behind_gates = divmod(number, 2)
    if not behind_gates:
        return weights.dilated[0].numel() + (0 if weights.conditions is None else weights.conditions[0].numel())
    return weights.skip[0].numel() + (weights.residual[0].numel() if layer + 1 < len(weights.dilations) else 0)

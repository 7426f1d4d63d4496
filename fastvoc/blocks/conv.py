"""Convolutions that hold weights, own their padding and call the fused operators.

Every convolution has a bias; a checkpoint without one is a checkpoint with a bias of zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.graph import Convolution, Graph


class Conv1d(nn.Module):
    """A convolution that keeps the length, with its leaky ReLU, residual and tanh fused.

    ::

        zero, reflect, replicate        causal
        . . x x x x x . .               . . . . x x x x x
        └─┴─┼─┴─┘                       └─┴─┴─┴─┤
            y y y y y                           y y y y y

    Parameters
    ----------
    channels_in, channels_out : int
    kernel_size : int
    dilation : int
        Samples between taps.
    padding_mode : {"zero", "reflect", "replicate"}
        What stands outside the signal. Reflection of ``p`` samples needs at least ``p + 1``.
    causal : bool
        Pad on the left only: no output sees a later input.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        padding_mode: str = "zero",
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.padding_mode = padding_mode
        self.causal = causal
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels_out))
        _initialise(self.weight, self.bias, fan_in=channels_in * kernel_size)

    @property
    def padding(self) -> tuple[int, int]:
        """Samples that are laid around the signal, before and behind it."""
        return self._around(self.weight)

    def _around(self, weight: Tensor) -> tuple[int, int]:
        span = (weight.shape[-1] - 1) * self.dilation
        return (span, 0) if self.causal else (span // 2, span - span // 2)

    def forward(self, x: Tensor, *, slope: float = 1.0, residual: Tensor | None = None, tanh: bool = False) -> Tensor:
        """Leaky ReLU of `slope`, pad, convolve, add `residual`, tanh: (B, C_in, T) → (B, C_out, T)."""
        weight = self.weight  # once, since it may be computed
        return ops.conv1d(
            x,
            weight,
            self.bias,
            dilation=self.dilation,
            padding=self._around(weight),
            padding_mode=self.padding_mode,
            slope=slope,
            residual=residual,
            tanh=tanh,
        )

    def lower(self, graph: Graph, x: int, *added: int, **settings: Any) -> int:
        """Add the call of `conv1d` to a graph, with the settings of `fastvoc.graph.Convolution` for what is added."""
        return graph.add(
            Convolution(
                weight=self.weight,
                bias=self.bias,
                padding=self.padding,
                padding_mode=self.padding_mode,
                dilation=self.dilation,
                **settings,
            ),
            x,
            *added,
        )

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Input samples that outputs `first … last` read."""
        return first - self.padding[0], last + self.padding[1]


class Upsample(nn.Module):
    """Leaky ReLU and a transposed convolution that multiplies the length by `rate`.

    Output ``o`` receives input ``i`` through tap ``o + crop_left − i·rate``. Three rules for the crop are in use; they
    agree where ``kernel − rate`` is even, and differ by one sample where it is odd:

    - ``"centred"``: ``(kernel − rate) // 2`` on the left, and what exceeds the length on the right.
    - ``"symmetric"`` (jik876/hifi-gan 4769534, models.py, and what began from it): ``(kernel − rate) // 2`` at both
      ends, which leaves one sample too many if ``kernel − rate`` is odd.
    - ``"output-padded"`` (descriptinc/melgan-neurips 6488045, kan-bayashi/ParallelWaveGAN 8674037):
      ``rate // 2 + rate % 2`` on the left, for a kernel of twice the rate.

    Parameters
    ----------
    channels_in, channels_out : int
    kernel_size : int
        A multiple of `rate` avoids checkerboard artefacts, see `uneven`.
    rate : int
        Output samples per input sample.
    crop_rule : {"centred", "symmetric", "output-padded"}
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        rate: int,
        *,
        crop_rule: str = "centred",
    ) -> None:
        super().__init__()
        excess = kernel_size - rate
        left = rate // 2 + rate % 2 if crop_rule == "output-padded" else excess // 2
        if excess < left:
            raise ValueError(
                f"Upsample: kernel of {kernel_size} taps is too short for rate {rate} with the {crop_rule} crop; "
                f"it must be at least {rate + left}"
            )
        self.rate = rate
        self.crop = (left, left if crop_rule == "symmetric" else excess - left)
        self.extra = excess - sum(self.crop)  # outputs at the end beyond `rate` for each input: one at most
        self.weight = nn.Parameter(torch.empty(channels_in, channels_out, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels_out))
        _initialise(self.weight, self.bias, fan_in=channels_out * kernel_size)

    def forward(self, x: Tensor, *, slope: float = 1.0) -> Tensor:
        """Leaky ReLU of `slope`, transposed convolution, bias: (B, C_in, T) → (B, C_out, T·rate + extra)."""
        return ops.upsample(x, self.weight, self.bias, stride=self.rate, crop=self.crop, slope=slope)

    @property
    def uneven(self) -> bool:
        """Whether some outputs receive more taps than others, which sounds as tones at multiples of the rate.

        Odena, Dumoulin and Olah 2016, *Deconvolution and checkerboard artifacts*.
        """
        return bool(self.weight.shape[-1] % self.rate)

    def lower(self, graph: Graph, x: int, *, slope: float = 1.0) -> int:
        """Add the call of `upsample` to a graph."""
        return graph.add(
            Convolution(weight=self.weight, bias=self.bias, padding=self.crop, stride=self.rate, slope=slope), x
        )


class CausalUpsample(Upsample):
    """A transposed convolution in which no output sees a later input; its kernel is twice the rate.

    The signal is extended by one replicated sample on the left, so that the first hop has a past
    (kan-bayashi/ParallelWaveGAN 8674037, since its version 0.5.4).
    """

    def __init__(self, channels_in: int, channels_out: int, rate: int) -> None:
        super().__init__(channels_in, channels_out, 2 * rate, rate, crop_rule="output-padded")
        self.crop = (rate, rate)

    def forward(self, x: Tensor, *, slope: float = 1.0) -> Tensor:
        """Leaky ReLU of `slope`, transposed convolution, bias: (B, C_in, T) → (B, C_out, T·rate)."""
        return super().forward(F.pad(x, (1, 0), "replicate"), slope=slope)

    def lower(self, graph: Graph, x: int, *, slope: float = 1.0) -> int:
        """Add the call of `upsample` to a graph, whose input is laid behind its first row."""
        call = Convolution(
            weight=self.weight,
            bias=self.bias,
            padding=self.crop,
            padding_mode="replicate",
            stride=self.rate,
            slope=slope,
        )
        return graph.add(call, x)


def _initialise(weight: Tensor, bias: Tensor, fan_in: int) -> None:
    """Start from PyTorch's default, kaiming-uniform with a = √5.

    The originals' custom initialisations (N(0, 0.01), N(0, 0.02)) run after weight norm and change nothing: their
    published models really start from this.
    """
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)

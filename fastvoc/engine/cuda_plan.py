"""A generator on a GPU as one native call: a list of launches, with most layers fused in shared memory."""

from __future__ import annotations

from itertools import count

import torch
from torch import Tensor

from fastvoc.blocks import WaveHead
from fastvoc.engine.layers import layers_of, no_layers, operands
from fastvoc.engine.passes import outside_operators
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import use_backend
from fastvoc.ops._cuda.device import gpu
from fastvoc.ops._cuda.device import refuses as refuses_device
from fastvoc.ops._cuda.network import Network, compiled
from fastvoc.ops._network import Layer, too_short
from fastvoc.ops._op import Slower

FLOAT16_REACH = 2e4
"""The largest value that float16 is trusted with; it ends at 65504, and other mels may be louder."""


class CudaPlan:
    """A generator compiled for the GPU that its weights are on.

    Threads may share a plan: what a call needs of memory is its own. It keeps the weights that it was made with.

    Parameters
    ----------
    generator : TrunkGenerator
        One that `CudaPlan.refuses` does not refuse.
    precision : torch.dtype, optional
        Of the operands of multiplications, and of what lies between layers in memory; torch.float32 is TF32. By
        default that of the weights. Sums are float32, and waves have the dtype of the weights.

    Raises
    ------
    NotImplementedError
        If the kernels cannot run the generator.
    """

    def __init__(self, generator: TrunkGenerator, *, precision: torch.dtype | None = None) -> None:
        self.generator = generator
        self.unrecordable = outside_operators(generator)
        self._layers = layers_of(generator)
        weight = generator.trunk.stem.weight
        self._dtype = weight.dtype
        network = _network(self._layers, weight.device, precision or weight.dtype)
        if isinstance(network, str):
            raise NotImplementedError(f"CudaPlan: {network}")
        self._network = network
        self._packed = network.pack(self._layers)
        self._least = next(frames for frames in count(1) if too_short(self._layers, frames) is None)
        if weight.is_cuda:
            torch.cuda.current_stream(weight.device).synchronize()  # so that any stream may read them from now on

    @staticmethod
    def refuses(generator: Generator, precision: torch.dtype | None = None) -> str | None:
        """Return why a generator has no plan on its device, or None.

        Parameters
        ----------
        generator : Generator
            With the weights, on the device and in the dtype that it is to run with.
        precision : torch.dtype, optional
            As in `CudaPlan`.
        """
        weight = next(generator.parameters())
        precision = precision or weight.dtype
        reason = refuses_device(weight.device, precision, what="its weights are")
        if reason is not None and not isinstance(reason, Slower):
            return reason
        if other := no_layers(generator):
            return other
        network = _network(layers_of(generator), weight.device, precision)  # type: ignore[arg-type]
        return network if isinstance(network, str) else reason

    @property
    def precision(self) -> torch.dtype:
        """Of the operands of multiplications."""
        return self._network.dtype

    def launches(self, batch: int, frames: int) -> list[str]:
        """Name the kernels that mels of this shape launch, in order."""
        return self._network.launches(batch, frames)

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make waves: (B, bands, T) → (B, 1, T·hop), as the generator does.

        Raises
        ------
        ValueError
            If the mels are too short for what the generator reflects at its ends.
        """
        return self._run(mel, None)

    def padded(self, mel: Tensor, lengths: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make waves of mels that end before the tensor does.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
            What stands behind the end of one is not looked at.
        lengths : Tensor, shape (B,), int32
            Frames of each mel, on its device, which are read when the kernels run; more than the receptive field, if
            the generator reflects.

        Returns
        -------
        Tensor, shape (B, 1, T·hop)
            Each wave as of its mel alone, to the bit; what stands behind its end means nothing.
        """
        return self._run(mel, lengths)

    def _run(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        if mel.shape[-1] < self._least and (reason := too_short(self._layers, mel.shape[-1])):
            raise ValueError(reason)
        generator = self.generator
        if generator.standardised:
            mel = (mel - generator.mean[:, None]) / generator.scale[:, None]
        rows = self._network.run(self._packed, mel, dtype=self._dtype, lengths=lengths)
        return rows if isinstance(generator.head, WaveHead) else generator.head(rows)


def _network(layers: list[Layer], device: torch.device, precision: torch.dtype) -> Network | str:
    return compiled(layers, gpu(device), precision)


def overflows(generator: TrunkGenerator, mel: Tensor) -> str | None:
    """Return why float16 may not hold what a generator multiplies, as a sentence, or None.

    Parameters
    ----------
    generator : TrunkGenerator
        In float32.
    mel : Tensor, shape (B, bands, T)
        What it is likely to hear at its loudest.
    """
    layers = layers_of(generator)
    mel = mel.to(generator.trunk.stem.weight)
    if generator.standardised:
        mel = (mel - generator.mean[:, None]) / generator.scale[:, None]
    with torch.inference_mode(), use_backend("reference"):
        values = [*operands(layers, mel), *(layer.weight for layer in layers)]
        largest = float(torch.stack([value.abs().max() for value in values]).max())
    if largest <= FLOAT16_REACH:
        return None
    return f"values reach {largest:.3g} in it, and float16 ends at 65504; beyond {FLOAT16_REACH:g} it is not trusted"

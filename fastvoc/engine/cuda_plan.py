"""A generator on a GPU as one native call: a list of launches, with most layers fused in shared memory."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.engine.runs import as_layers, input_of, layers_of, operands, outside, outside_operators, split
from fastvoc.engine.stream import Stream
from fastvoc.graph import Graph, Native, Network
from fastvoc.ops import use_backend
from fastvoc.ops.cuda import network as cuda
from fastvoc.ops.cuda.device import gpu
from fastvoc.ops.cuda.device import refuses as refuses_device
from fastvoc.ops.network import Layer
from fastvoc.ops.op import Slower
from fastvoc.ops.ragged import ragged, ragged_lengths

FLOAT16_REACH = 2e4
"""The largest value that float16 is trusted with; it ends at 65504, and other mels may be louder."""


class CudaPlan:
    """A generator compiled for the GPU that its weights are on.

    Threads may share a plan: what a call needs of memory is its own. It keeps the weights that it was made with.

    Parameters
    ----------
    generator : Network
        One that `CudaPlan.refuses` does not refuse.
    precision : torch.dtype, optional
        Of the operands of multiplications, and of what lies between layers in memory; torch.float32 is TF32. By
        default that of the weights. Sums are float32, and waves have the dtype of the weights.

    Raises
    ------
    NotImplementedError
        If the kernels cannot run the generator.
    """

    def __init__(self, generator: Network, *, precision: torch.dtype | None = None) -> None:
        self.generator = generator
        self.unrecordable = outside_operators(generator)
        weight = next(generator.parameters())
        self.precision = precision or weight.dtype
        """Of the operands of multiplications."""
        graph = split(generator.graph().fused(), lambda run: _Run(run, weight, self.precision))
        (self._run,) = (node for node in graph.nodes if isinstance(node, _Run))
        self._stream = Stream(graph, hop=generator.hop, like=weight.new_empty(1, generator.mel_bands, 0))
        if weight.is_cuda:
            torch.cuda.current_stream(weight.device).synchronize()  # so that any stream may read them from now on

    @staticmethod
    def refuses(generator: Network, precision: torch.dtype | None = None) -> str | None:
        """Return why a generator has no plan on its device, or None.

        Parameters
        ----------
        generator : Network
            With the weights, on the device and in the dtype that it is to run with.
        precision : torch.dtype, optional
            As in `CudaPlan`.
        """
        weight = next(generator.parameters())
        precision = precision or weight.dtype
        reason = refuses_device(weight.device, precision, what="its weights are")
        if reason is not None and not isinstance(reason, Slower):
            return reason
        try:
            if other := outside(generator):
                return other
        except TypeError as error:
            return str(error)
        network = _network(layers_of(generator), weight.device, precision)
        return network if isinstance(network, str) else reason

    def launches(self, batch: int, frames: int) -> list[str]:
        """Name the kernels that mels of this shape launch, in order."""
        return self._run.network.launches(batch, frames)

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """Make waves: (B, bands, T) → (B, 1, T·hop), as the generator does.

        Raises
        ------
        ValueError
            If the mels are too short for what the generator reflects at its ends.
        """
        return self._stream.whole(mel)

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
        with ragged(lengths, mel.shape[-1]):
            return self._stream.whole(mel)


class _Run(Native):
    """Convolutions that follow one another, compiled for a GPU."""

    def __init__(self, graph: Graph, weight: Tensor, precision: torch.dtype) -> None:
        self.graph = graph
        self._dtype = weight.dtype
        layers = as_layers(graph)
        network = _network(layers, weight.device, precision)
        if isinstance(network, str):
            raise NotImplementedError(f"CudaPlan: {network}")
        self.network = network
        self._packed = network.pack(layers)

    def whole(self, rows: Tensor) -> Tensor:
        """Run on whole signals, which may end before the tensor does: (B, C, n) → (B, C', m)."""
        return self.network.run(self._packed, rows, dtype=self._dtype, lengths=ragged_lengths(rows.shape[-1]))


def _network(layers: list[Layer], device: torch.device, precision: torch.dtype) -> cuda.Network | str:
    return cuda.compiled(layers, gpu(device), precision)


def overflows(generator: Network, mel: Tensor) -> str | None:
    """Return why float16 may not hold what a generator multiplies, as a sentence, or None.

    Parameters
    ----------
    generator : Network
        In float32.
    mel : Tensor, shape (B, bands, T)
        The loudest that it is likely to be given.
    """
    layers = layers_of(generator)
    with torch.inference_mode(), use_backend("reference"):
        mel = input_of(generator, mel.to(next(generator.parameters())))
        multiplied = [layer.weight for layer in layers if layer.kind != "smooth_snake"]
        values = [*operands(layers, mel), *multiplied]
        largest = float(torch.stack([value.abs().max() for value in values]).max())
    if largest <= FLOAT16_REACH:
        return None
    return f"values reach {largest:.3g} in it, and float16 ends at 65504; beyond {FLOAT16_REACH:g} it is not trusted"

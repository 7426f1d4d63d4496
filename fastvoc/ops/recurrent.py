"""WaveNets in native code: one call makes a block of samples, each from the one before, on a CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.availability import backends
from fastvoc.ops.cuda import device as cuda
from fastvoc.ops.op import Slower, forced_backend

SHORTEST, LONGEST = 1 << 10, 1 << 16
"""Samples that are made on one thread after a second one was late: once, and again and again, which is three seconds at
22050 Hz. With a core of its own, a second thread gives half as many again, so that it is worth trying."""

_PRECISIONS = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16"}


@dataclass(frozen=True, kw_only=True, eq=False)
class WaveNetWeights:
    """What a WaveNet computes, as ``fastvoc_recurrent.h`` says it; the names are the header's.

    Attributes
    ----------
    distribution : {"CLASSES", "LOGISTICS", "GAUSSIAN"}
        Of which the head makes the parameters.
    dilations : tuple of int
        Of each layer, in samples.
    residual_scale, skip_scale, smallest_log_scale : float
    input : Tensor, shape (input_taps, classes, channels) or (channels, input_taps)
        Of classes, a table for each tap, oldest first.
    input_bias : Tensor, shape (channels,)
    dilated : Tensor, shape (layers, 2·gated, channels, taps)
        The rows of tanh before those of the sigmoid.
    dilated_bias : Tensor, shape (layers, 2·gated)
    conditions : Tensor, shape (layers, 2·gated, condition), optional
    residual : Tensor, shape (layers, channels, gated)
        That of the last layer is not read.
    residual_bias : Tensor, shape (layers, channels)
    skip : Tensor, shape (layers, skips, gated)
    skip_bias : Tensor, shape (skips,)
        The sum over all layers.
    first_skip : Tensor, shape (skips, channels), optional
        Of the convolved input itself.
    hidden_weight : Tensor, shape (hidden, skips)
    hidden_bias : Tensor, shape (hidden,)
    hidden_condition : Tensor, shape (hidden, condition), optional
        What the head is given of the condition.
    output : Tensor, shape (outputs, hidden)
    output_bias : Tensor, shape (outputs,)
    """

    distribution: Literal["CLASSES", "LOGISTICS", "GAUSSIAN"]
    dilations: tuple[int, ...]
    residual_scale: float
    skip_scale: float
    smallest_log_scale: float
    input: Tensor
    input_bias: Tensor
    dilated: Tensor
    dilated_bias: Tensor
    conditions: Tensor | None
    residual: Tensor
    residual_bias: Tensor
    skip: Tensor
    skip_bias: Tensor
    first_skip: Tensor | None
    hidden_weight: Tensor
    hidden_bias: Tensor
    hidden_condition: Tensor | None
    output: Tensor
    output_bias: Tensor

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that native code is told, by their names there."""
        layers, gates, channels, taps = self.dilated.shape
        return {
            "channels": channels,
            "gated": gates // 2,
            "skips": self.skip.shape[1],
            "hidden": len(self.hidden_weight),
            "outputs": len(self.output),
            "layers": layers,
            "taps": taps,
            "condition": 0 if self.conditions is None else self.conditions.shape[-1],
            "input_taps": self.input.shape[0 if self.distribution == "CLASSES" else 1],
        }

    @property
    def reach(self) -> float:
        """The largest that anything multiplied but the condition can be, whatever is drawn: sums of absolute values."""
        size = {name: value.detach().float().abs() for name, value in vars(self).items() if isinstance(value, Tensor)}
        residual, scale = size["residual"].sum(-1) + size["residual_bias"], abs(self.residual_scale)
        taps = size["input"].amax(1).sum(0) if self.distribution == "CLASSES" else size["input"].sum(1)
        x = taps + size["input_bias"]
        largest = [*(value.max() for value in size.values()), x.max()]
        for added in residual[:-1]:
            x = (x + added) * scale
            largest.append(x.max())
        skips = (size["skip"].sum((0, 2)) + size["skip_bias"]) * abs(self.skip_scale)
        hidden = size["hidden_weight"] @ skips + size["hidden_bias"]
        return float(torch.stack([*largest, skips.max(), hidden.max()]).max())


class Steps(NamedTuple):
    """Some steps of some streams, float32 and contiguous; `rings`, `history` and what results are written."""

    time: Tensor
    """(B,), int64: samples that each stream has made."""
    rings: Tensor
    """(B, rows, channels): rows that each layer remembers."""
    history: Tensor
    """(B, input_taps): latest inputs, newest last."""
    condition: Tensor
    """(B, T, condition)."""
    gates: Tensor | None
    """(B, layers, 2·gated): added to the gates of all steps."""
    noise: Tensor | None
    """(B, numbers, T)."""
    temperature: Tensor | None
    """(B,)."""
    forced: Tensor | None = None
    """(B, T): inputs that are given instead of what was drawn."""
    drawn: Tensor | None = None
    """(B, T): the inputs that were drawn."""
    parameters: Tensor | None = None
    """(B, T, outputs): of the distributions."""


class _Described:
    """A WaveNet as native code is told of it.

    Parameters
    ----------
    weights : WaveNetWeights
    precision : str
        The header's name of what is multiplied.
    **others
        Further fields.
    """

    def __init__(self, weights: WaveNetWeights, precision: str, **others: Any) -> None:
        ffi, library = native.library()
        self.sizes = weights.sizes
        self._numbers = 2 if weights.distribution == "LOGISTICS" else 1
        fields: dict[str, Any] = {
            name: getattr(weights, name) for name in ("residual_scale", "skip_scale", "smallest_log_scale")
        }
        self._dilations = ffi.new("int64_t[]", weights.dilations)
        fields |= self.sizes | others | {"dilations": self._dilations}
        fields |= {
            "precision": getattr(library, f"FASTVOC_{precision}"),
            "distribution": getattr(library, f"FASTVOC_{weights.distribution}"),
        }
        self.pointer = ffi.new("fastvoc_recurrent *", fields)
        tensors = {name: value for name, value in vars(weights).items() if isinstance(value, Tensor)}
        self._single = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
        for name, value in self._single.items():
            setattr(self.pointer, name, native.floats(value))
        self.rows = int(library.fastvoc_recurrent_rows(self.pointer))

    def forget_weights(self) -> None:
        """Drop the weights, which are packed."""
        self._single = {}

    def steps(self, steps: Steps, threads: int) -> Any:
        """Return what native code is told of some steps.

        Raises
        ------
        ValueError
            If a tensor has not the shape that the weights need.
        """
        ffi, _ = native.library()
        batch, count = steps.condition.shape[:2]
        outputs = self.sizes["outputs"]
        shapes = {
            "time": (batch,),
            "rings": (batch, self.rows, self.sizes["channels"]),
            "history": (batch, self.sizes["input_taps"]),
            "condition": (batch, count, self.sizes["condition"]),
            "gates": (batch, self.sizes["layers"], 2 * self.sizes["gated"]),
            "noise": (batch, self._numbers, count),
            "temperature": (batch,),
            "forced": (batch, count),
            "drawn": (batch, count),
            "parameters": (batch, count, outputs),
        }
        for name, shape in shapes.items():
            tensor, dtype = getattr(steps, name), torch.int64 if name == "time" else torch.float32
            if tensor is not None and (
                tuple(tensor.shape) != shape or tensor.dtype != dtype or not tensor.is_contiguous()
            ):
                raise ValueError(
                    f"WaveNet: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; it must be {dtype} of shape "
                    f"{shape}, contiguous"
                )
        if steps.drawn is not None and (steps.noise is None or steps.temperature is None):
            raise ValueError("WaveNet: noise and temperature are needed for what is to be drawn")
        described = ffi.new("fastvoc_steps *", {"threads": threads, "batch": batch, "count": count})
        described.time = ffi.cast("int64_t *", steps.time.data_ptr())
        for name in ("rings", "history", "condition", "gates", "noise", "temperature", "forced", "drawn", "parameters"):
            setattr(described, name, native.floats(getattr(steps, name)))
        return described


class NativeWaveNet:
    """Weights of a WaveNet in the order in which the instruction set in use reads them.

    Threads may share it: what a call needs of memory is its own.

    Parameters
    ----------
    weights : WaveNetWeights
    precision : torch.dtype
        Of what is multiplied, float32 or bfloat16; sums are in float32.
    steps : sequence of float, optional
        With bfloat16, what the convolutions of layers that multiply in 8 bits are given in: two numbers for each layer,
        of the dilated one and of the two behind the gates. 0 leaves one in bfloat16.
    """

    def __init__(self, weights: WaveNetWeights, precision: torch.dtype, steps: Sequence[float] | None = None) -> None:
        ffi, library = native.library()
        others: dict[str, Any] = {"isa": native.isa()}
        if steps is not None:
            others["input_scales"] = ffi.new("float[]", [*steps])
        self._kept = others
        self._pause, self._alone = 0, 0  # samples without a second thread: of the latest pause, and what is left of it
        self._described = _Described(weights, _PRECISIONS[precision], **others)
        self.sizes, self.rows, self._network = (self._described.sizes, self._described.rows, self._described.pointer)
        native.check("WaveNet", library.fastvoc_recurrent_check(self._network))
        self._packed = native.host_memory(library.fastvoc_recurrent_packed_size(self._network), dtype=torch.uint8)
        native.check("WaveNet", library.fastvoc_recurrent_pack(self._network, _pointer(self._packed)))

    @staticmethod
    def refuses(weight: Tensor) -> str | None:
        """Return why a WaveNet with this weight cannot run in native code, or None."""
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}; native steps run on the CPU"
        if absent := backends()["cpu"]:
            return str(absent)
        if weight.dtype not in _PRECISIONS:
            return f"its weights are {weight.dtype}; native steps compute in torch.float32 or torch.bfloat16"
        if weight.dtype == torch.bfloat16 and not native.multiplies_bfloat16():
            return "this processor does not multiply torch.bfloat16; torch.float32 is faster on it"
        return None

    def run(self, steps: Steps) -> None:
        """Make some steps.

        Raises
        ------
        ValueError
            If a tensor has not the shape that the weights need.
        """
        ffi, library = native.library()
        threads = torch.get_num_threads()
        alone, late = self._alone > 0, ffi.new("int *", _UNKNOWN)
        described = self._described.steps(steps, threads)
        described.alone, described.late = alone, late
        workspace = native.scratch(library.fastvoc_recurrent_workspace_size(self._network, threads) // 4)
        native.check(
            "WaveNet",
            library.fastvoc_recurrent_run(self._network, _pointer(self._packed), described, _pointer(workspace)),
        )
        self._remember(steps.condition.shape[1], alone=alone, late=late[0])

    def _remember(self, count: int, *, alone: bool, late: int) -> None:
        """Pause with second threads for so long, if they were late in a call: others have their cores."""
        if alone:
            self._alone = max(0, self._alone - count)
        elif late == 1:
            self._pause = self._alone = min(max(SHORTEST, 4 * self._pause), LONGEST)
        elif late == 0:
            self._pause //= 4


_UNKNOWN = -1
"""Where no thread had a second one."""


class CudaWaveNet:
    """Weights of a WaveNet in the order in which a kernel reads them that makes all samples of a call.

    Threads may share it: what a call needs of memory is its own.

    Parameters
    ----------
    weights : WaveNetWeights
        On the GPU; or on the CPU, where it stands in for one.
    precision : torch.dtype
        Of what is multiplied, float16 or bfloat16; sums are in float32.

    Raises
    ------
    RuntimeError
        If the kernel cannot run it.
    """

    def __init__(self, weights: WaveNetWeights, precision: torch.dtype) -> None:
        ffi, library = native.library()
        self.device = weights.output.device
        self._described = _Described(weights, cuda.PRECISIONS[precision])
        self.sizes, self.rows, self._network = self._described.sizes, self._described.rows, self._described.pointer
        self._gpu = ffi.new("fastvoc_gpu *", cuda.gpu(self.device)._asdict())
        native.check("WaveNet", library.fastvoc_cuda_recurrent_check(self._network, self._gpu))
        packed = native.host_memory(library.fastvoc_cuda_recurrent_packed_size(self._network), dtype=torch.uint8)
        native.check("WaveNet", library.fastvoc_cuda_recurrent_pack(self._network, _pointer(packed)))
        self._described.forget_weights()
        self._packed = cuda.memory(len(packed), self.device)
        self._packed.copy_(packed)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # so that any stream may read them from now on

    @staticmethod
    def refuses(weight: Tensor, precision: torch.dtype, sizes: Mapping[str, int]) -> str | None:
        """Return why a WaveNet cannot run in this kernel, or None.

        Parameters
        ----------
        weight : Tensor
            One of its weights.
        precision : torch.dtype
        sizes : mapping of str to int
            As `WaveNetWeights.sizes`.
        """
        if weight.dtype not in cuda.PRECISIONS:
            return f"its weights are {weight.dtype}; steps on a GPU multiply torch.float16 or torch.bfloat16"
        reason = cuda.refuses(weight.device, precision, what="its weights are")
        if reason is not None and not isinstance(reason, Slower):
            return reason
        ffi, library = native.library()
        needed = library.fastvoc_cuda_recurrent_shared(ffi.new("fastvoc_recurrent *", dict(sizes)))
        there = cuda.gpu(weight.device).shared_per_block
        if needed > there:
            return f"a stream of it needs {needed} bytes of shared memory; a block of this GPU has {there}"
        return reason

    @staticmethod
    def clusters(device: torch.device, sizes: Mapping[str, int], batch: int) -> int:
        """Return how many clusters of blocks make the samples of a batch, or 0 if blocks make streams alone.

        Parameters
        ----------
        device : torch.device
            That some WaveNet can run on.
        sizes : mapping of str to int
            As `WaveNetWeights.sizes`.
        batch : int
            Streams.
        """
        ffi, library = native.library()
        described = ffi.new("fastvoc_recurrent *", dict(sizes))
        gpu = ffi.new("fastvoc_gpu *", cuda.gpu(device)._asdict())
        return int(library.fastvoc_cuda_recurrent_clusters(described, gpu, batch))

    def run(self, steps: Steps) -> None:
        """Make some steps on the current stream of the device.

        Raises
        ------
        ValueError
            If a tensor has not the shape that the weights need, or is on another device.
        """
        _, library = native.library()
        for name, tensor in steps._asdict().items():
            if tensor is not None and tensor.device != self.device:
                raise ValueError(f"WaveNet: {name} is on {tensor.device} but the weights are on {self.device}")
        described = self._described.steps(steps, 1)
        size = library.fastvoc_cuda_recurrent_workspace_size(self._network, self._gpu, len(steps.time))
        workspace = cuda.memory(max(size, 0), self.device)
        with cuda.stream(self.device) as current:
            code = library.fastvoc_cuda_recurrent_run(
                self._network,
                self._gpu,
                cuda.kernels(self.device),
                cuda.pointer(self._packed),
                described,
                cuda.pointer(workspace),
                current,
            )
        native.check("WaveNet", code)


def unasked(backend: str) -> str | None:
    """Return that another backend was asked for than the one of some steps, if one was."""
    asked = forced_backend()
    return None if asked in (None, backend) else f"backend {asked!r} was asked for"


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

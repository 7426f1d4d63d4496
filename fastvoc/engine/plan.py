"""A generator on the CPU as one native call: weights packed once, tiles that pass many layers while they are cached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.blocks import CausalUpsample, Conv1d, IstftHead, PqmfHead, ResidualBlocks, Upsample, WaveHead
from fastvoc.engine.parts import Memory, Shapes, reserve
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import _native, backends

INPUT, NOTHING = -1, -2


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer of a network reads, does and adds; results are named by the number of their layer."""

    kind: str
    input: int
    weight: Tensor
    bias: Tensor | None
    padding: tuple[int, int]
    padding_mode: str = "zero"
    dilation: int = 1
    stride: int = 1
    slope: float = 1.0
    residual: int = NOTHING
    partial: int = NOTHING
    divisor: float = 1.0
    slope_after: float = 1.0
    tanh: bool = False


def layers_of(generator: TrunkGenerator) -> list[Layer]:
    """List the layers of a generator, up to the wave, or to the features that an inverse transform begins with."""
    layers: list[Layer] = []
    trunk, head = generator.trunk, generator.head
    x = _add_conv(layers, trunk.stem, INPUT)
    for up, residual in zip(trunk.up, trunk.residual, strict=True):
        x = _add_upsample(layers, up, x, slope=trunk.slope, slope_after=trunk.slope_after)
        x = _add_residual(layers, residual, x)  # type: ignore[arg-type]
    if isinstance(head, WaveHead):
        x = _add_conv(layers, head.conv, x, slope=head.slope, tanh=True)
        if isinstance(head, PqmfHead):
            _add(
                layers,
                kind="upsample",
                input=x,
                weight=head.filters,
                bias=None,
                padding=head.crop,
                stride=head.rate,
            )
    return layers


class Plan:
    """A generator compiled for the instruction set in use.

    Threads may share a plan: what a call needs of memory is its own.

    Parameters
    ----------
    generator : TrunkGenerator
        One that `Plan.refuses` does not refuse.
    in_order : bool
        Sum every output in the operators' order, so that results are theirs to the bit, instead of multiplying less.
    """

    def __init__(self, generator: TrunkGenerator, *, in_order: bool = False) -> None:
        self.generator = generator
        self._weights = _weights(generator)
        self._isa = _native.isa()
        self._dtype = generator.trunk.stem.weight.dtype
        layers = layers_of(generator)
        self._channels = layers[-1].weight.shape[1 if layers[-1].kind == "upsample" else 0]
        ffi, library = _native.library()
        layers = [replace(layer, weight=_plain(layer.weight), bias=_plain(layer.bias)) for layer in layers]
        described = ffi.new("fastvoc_layer[]", [_described(layer) for layer in layers])
        network = ffi.new(
            "fastvoc_network *",
            {
                "isa": self._isa,
                "precision": getattr(library, _PRECISIONS[self._dtype]),
                "in_order": in_order,
                "count": len(layers),
                "layers": described,
            },
        )
        self._plan = _memory(library.fastvoc_plan_size(network))
        _native.check("plan", library.fastvoc_plan_make(network, _pointer(self._plan)))
        self._packed = _memory(library.fastvoc_plan_packed_size(_pointer(self._plan)))
        library.fastvoc_plan_pack(network, _pointer(self._plan), _pointer(self._packed))

    @staticmethod
    def refuses(generator: Generator) -> str | None:
        """Return why a generator has no plan, or None.

        Parameters
        ----------
        generator : Generator
            With the weights, on the device and in the dtype that it is to run with.
        """
        weight = next(generator.parameters())
        if weight.device.type != "cpu":
            return f"its weights are on {weight.device}; a plan runs on the CPU"
        if absent := backends()["cpu"]:
            return absent
        if weight.dtype not in _PRECISIONS:
            return f"its weights are {weight.dtype}; a plan computes in torch.float32 or torch.bfloat16"
        if weight.dtype == torch.bfloat16 and not _native.multiplies_bfloat16():
            return "this processor does not multiply torch.bfloat16; torch.float32 is faster on it"
        if not isinstance(generator, TrunkGenerator) or type(generator).forward is not TrunkGenerator.forward:
            return f"{type(generator).__name__} is not a trunk and a head"
        if len(generator.trunk.condition):
            return "it is conditioned on a vector per utterance"
        if not isinstance(generator.head, (WaveHead, IstftHead)):
            return f"{type(generator.head).__name__} has no native form"
        return None

    @property
    def stale(self) -> bool:
        """Whether the generator's weights, or the instruction set, are others than those that were packed."""
        return self._isa != _native.isa() or self._weights != _weights(self.generator)

    @property
    def toom_cook_layers(self) -> int:
        """Layers that multiply less by Toom-Cook's method."""
        _, library = _native.library()
        return int(library.fastvoc_plan_toom_cook_layers(_pointer(self._plan)))

    def __call__(self, mel: Tensor) -> Tensor:
        """Make a wave: (B, bands, T) → (B, 1, T·hop), as the generator does.

        Raises
        ------
        ValueError
            If the mel is too short for what the generator reflects at its ends.
        """
        generator = self.generator
        if generator.standardised:
            mel = (mel - generator.mean[:, None]) / generator.scale[:, None]
        # streams one after the other share a state, and each is as fast as all threads make it
        waves = [self.advance(self.begin(1), item[None], last=True, frames=mel.shape[-1]) for item in mel]
        rows = torch.cat(waves) if len(waves) != 1 else waves[0]
        return rows if isinstance(generator.head, WaveHead) else generator.head(rows)

    def begin(self, batch: int) -> Tensor:
        """Return the state of streams that have heard nothing, as bytes: (batch, size)."""
        _, library = _native.library()
        states = torch.empty(batch, library.fastvoc_plan_state_size(_pointer(self._plan)), dtype=torch.uint8)
        for state in states:
            library.fastvoc_plan_begin(_pointer(self._plan), _pointer(state))
        return states

    def advance(self, states: Tensor, mel: Tensor, *, last: bool, frames: int) -> Tensor:
        """Advance streams, whose states are overwritten.

        Parameters
        ----------
        states : Tensor, shape (B, size), uint8
        mel : Tensor, shape (B, bands, T)
            The new frames, standardised if the generator does that; there may be none.
        last : bool
            Whether no others follow.
        frames : int
            All that each stream has heard, these included, for the message of the error.

        Returns
        -------
        Tensor, shape (B, C, rows)
            Of the wave, or of the features that an inverse transform begins with: those that are now certain.

        Raises
        ------
        ValueError
            If a stream ends that is too short for what the generator reflects at its ends.
        """
        ffi, library = _native.library()
        plan, threads = _pointer(self._plan), torch.get_num_threads()
        ready = {library.fastvoc_plan_ready(plan, _pointer(state), mel.shape[-1], last) for state in states}
        if -1 in ready:
            raise ValueError(self._too_short(frames))
        if len(ready) > 1:
            raise ValueError("Plan: the streams have heard different numbers of frames")
        workspace = _memory(library.fastvoc_plan_workspace_size(plan, threads))
        mel = mel.float()
        rows = torch.empty(len(states), self._channels, ready.pop() if ready else 0)
        for state, x, y in zip(states, mel, rows, strict=True):
            code = library.fastvoc_plan_run(
                plan,
                _pointer(self._packed),
                _pointer(state),
                _pointer(workspace),
                threads,
                ffi.cast("float *", x.data_ptr()),
                (0, *x.stride()),
                mel.shape[-1],
                last,
                ffi.cast("float *", y.data_ptr()),
                (0, *y.stride()),
            )
            _native.check("plan", code)
        return rows.to(self._dtype)

    def _too_short(self, frames: int) -> str:
        """Say what the operators would say of the first layer that cannot reflect."""
        rows = [frames]
        for layer in layers_of(self.generator):
            here = rows[layer.input + 1]
            most = max(layer.padding)
            if layer.padding_mode == "reflect" and most >= here:
                return f"conv1d: x has {here} frames; needs at least {most + 1} to reflect {most} of them"
            taps = layer.weight.shape[-1]
            rows.append(
                (here - 1) * layer.stride + taps - sum(layer.padding)
                if layer.kind == "upsample"
                else here + sum(layer.padding) - layer.dilation * (taps - 1)
            )
        return f"Plan: {frames} frames are too few"


class Compiled:
    """A trunk, and a head of convolutions, in pieces: what streams remember is the plan's state.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    plan : Plan
        In order, so that the samples are those of the operators.
    """

    def __init__(self, shapes: Shapes, plan: Plan) -> None:
        self.plan = plan
        # The states of any two streams are equally long, but streams that are still young do not fit together.
        self.young = sum(plan.generator.receptive_field) + 1
        self.heard = reserve(shapes, 1, 0)
        self.slot = reserve(shapes, plan.begin(1).shape[1] // plan.generator.trunk.stem.weight.element_size())

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, C, m)."""
        heard = memory[self.heard].shape[-1] + rows.shape[-1]
        begun = memory[self.heard].shape[-1] > 0
        states = memory[self.slot].clone().view(torch.uint8) if begun else self.plan.begin(len(rows))
        result = self.plan.advance(states, rows, last=last, frames=heard)
        memory[self.slot] = states.view(memory[self.slot].dtype)
        memory[self.heard] = rows.new_zeros(len(rows), 1, min(heard, self.young))
        return result


_PRECISIONS = {torch.float32: "FASTVOC_FLOAT32", torch.bfloat16: "FASTVOC_BFLOAT16"}


def _add(layers: list[Layer], **values: Any) -> int:
    layers.append(Layer(**values))
    return len(layers) - 1


def _add_conv(layers: list[Layer], conv: Conv1d, source: int, **values: Any) -> int:
    return _add(
        layers,
        kind="conv1d",
        input=source,
        weight=conv.weight,
        bias=conv.bias,
        padding=conv.padding,
        padding_mode=conv.padding_mode,
        dilation=conv.dilation,
        **values,
    )


def _add_upsample(layers: list[Layer], up: Any, source: int, **values: Any) -> int:
    common = {"kind": "upsample", "input": source, "weight": up.weight, "bias": up.bias, "stride": up.rate}
    if isinstance(up, CausalUpsample):
        # the row that it repeats in front, and crops again
        left, right = up.crop[0] - up.rate, up.crop[1]
        return _add(layers, **common, padding=(left, right), padding_mode="replicate", **values)
    if type(up) is not Upsample:
        raise TypeError(f"Plan: {type(up).__name__} has no native form")
    return _add(layers, **common, padding=up.crop, **values)


def _add_residual(layers: list[Layer], blocks: ResidualBlocks, x: int) -> int:
    total = NOTHING
    for number, branch in enumerate(blocks.branches):
        y = x
        units = [list(unit) for unit in branch]  # type: ignore[attr-defined]
        for n, unit in enumerate(units):
            skip = _add_conv(layers, unit.pop(), y) if blocks.shortcut else y
            z = y
            for m, conv in enumerate(unit):
                bare = n == m == 0 and not blocks.activate_first
                last = m == len(unit) - 1
                ends = last and n == len(units) - 1
                z = _add_conv(
                    layers,
                    conv,
                    z,
                    slope=1.0 if bare else blocks.slope,
                    residual=skip if last else NOTHING,
                    partial=total if ends else NOTHING,
                    divisor=float(len(blocks.branches)) if ends and number == len(blocks.branches) - 1 else 1.0,
                )
            y = z
        total = y
    return total


def _plain(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().float().contiguous()


def _described(layer: Layer) -> dict[str, Any]:
    ffi, library = _native.library()
    up = layer.kind == "upsample"
    tensors = {"weight": layer.weight, "bias": layer.bias}
    return {
        "kind": library.FASTVOC_UPSAMPLE if up else library.FASTVOC_CONV1D,
        "input": layer.input,
        "residual": layer.residual,
        "partial": layer.partial,
        "padding_mode": getattr(library, f"FASTVOC_{layer.padding_mode.upper()}"),
        "tanh": layer.tanh,
        "in_channels": layer.weight.shape[0 if up else 1],
        "out_channels": layer.weight.shape[1 if up else 0],
        "taps": layer.weight.shape[2],
        "dilation": layer.dilation,
        "stride": layer.stride,
        "left": layer.padding[0],
        "right": layer.padding[1],
        "slope": layer.slope,
        "divisor": layer.divisor,
        "slope_after": layer.slope_after,
        **{name: ffi.NULL if t is None else ffi.cast("float *", t.data_ptr()) for name, t in tensors.items()},
    }


def _weights(generator: Generator) -> list[tuple[int, int]]:
    """Where each weight stands and how often it has been written to."""
    return [(tensor.data_ptr(), tensor._version) for tensor in (*generator.parameters(), *generator.buffers())]


def _memory(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)  # PyTorch aligns to 64 bytes


def _pointer(memory: Tensor) -> Any:
    ffi, _ = _native.library()
    return ffi.cast("void *", memory.data_ptr())

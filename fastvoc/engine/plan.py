"""A generator on the CPU as one native call: weights packed once, tiles that pass many layers while they are cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.blocks import IstftHead, WaveHead
from fastvoc.engine.layers import Layer, Steps, layers_of
from fastvoc.engine.parts import Memory, Shapes, reserve
from fastvoc.engine.watch import Watch
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import _native, backends


class Plan:
    """A generator compiled for the instruction set in use.

    Threads may share a plan: what a call needs of memory is its own.

    Parameters
    ----------
    generator : TrunkGenerator
        One that `Plan.refuses` does not refuse.
    in_order : bool
        Sum every output in the operators' order, so that results are theirs to the bit, instead of multiplying less.
    int8 : dict of int to Steps, optional
        How layers that multiply in 8 bits write what they read, by number. All others multiply in
        bfloat16, whatever the dtype of the weights.

    Raises
    ------
    ValueError
        If the generator has no such layer.
    """

    def __init__(
        self, generator: TrunkGenerator, *, in_order: bool = False, int8: Mapping[int, Steps] | None = None
    ) -> None:
        self.generator = generator
        self._weights = Watch(generator)
        self._isa = _native.isa()
        self._dtype = generator.trunk.stem.weight.dtype
        layers = layers_of(generator)
        for number, steps in (int8 or {}).items():
            if number not in range(len(layers)):
                raise ValueError(f"Plan: layer {number} is to multiply in 8 bits, but there are only {len(layers)}")
            layers[number] = replace(layers[number], int8=steps)
        self._channels = layers[-1].weight.shape[1 if layers[-1].kind == "upsample" else 0]
        ffi, library = _native.library()
        layers = [replace(layer, weight=_plain(layer.weight), bias=_plain(layer.bias)) for layer in layers]
        described = ffi.new("fastvoc_layer[]", [_described(layer) for layer in layers])
        network = ffi.new(
            "fastvoc_network *",
            {
                "isa": self._isa,
                "precision": getattr(library, _PRECISIONS[self._dtype if int8 is None else torch.bfloat16]),
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

    @staticmethod
    def refuses_int8(generator: Generator) -> str | None:
        """Return why a generator has no plan with layers that multiply in 8 bits, or None."""
        if reason := Plan.refuses(generator):
            return reason
        return (
            None if _native.multiplies_bfloat16() else "this processor does not multiply 8-bit integers (AVX512_VNNI)"
        )

    @property
    def stale(self) -> bool:
        """Whether the generator's weights, or the instruction set, are others than those that were packed."""
        return self._isa != _native.isa() or self._weights.changed()

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
        workspace = _native.scratch(library.fastvoc_plan_workspace_size(plan, threads) // 4)
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
        **({} if layer.int8 is None else {"input_scale": layer.int8.scale, "input_zero_point": layer.int8.zero_point}),
        **{name: ffi.NULL if t is None else ffi.cast("float *", t.data_ptr()) for name, t in tensors.items()},
    }


def _memory(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)  # PyTorch aligns to 64 bytes


def _pointer(memory: Tensor) -> Any:
    ffi, _ = _native.library()
    return ffi.cast("void *", memory.data_ptr())

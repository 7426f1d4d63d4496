"""A generator on the CPU as one native call: weights packed once, tiles that pass many layers while they are cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvoc.blocks import WaveHead
from fastvoc.engine.layers import layers_of, no_layers
from fastvoc.engine.watch import Watch
from fastvoc.models import Generator
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import _native, backends
from fastvoc.ops._network import Steps, describe, too_short, with_weights


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
        self._channels = layers[-1].out_channels
        _, library = _native.library()
        layers = with_weights(layers, torch.float32)
        precision = _PRECISIONS[self._dtype if int8 is None else torch.bfloat16]
        described = describe(layers, precision=precision, isa=self._isa, in_order=in_order)
        network = described.pointer
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
        return no_layers(generator)

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
            raise ValueError(too_short(layers_of(self.generator), frames) or f"Plan: {frames} frames are too few")
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


_PRECISIONS = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16"}


def _memory(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8)  # PyTorch aligns to 64 bytes


def _pointer(memory: Tensor) -> Any:
    ffi, _ = _native.library()
    return ffi.cast("void *", memory.data_ptr())

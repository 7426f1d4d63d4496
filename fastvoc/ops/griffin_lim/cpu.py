"""The C++ kernel of `griffin_lim`: whole signals, and streams that remember a state."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.cpu import refuses
from fastvoc.ops.griffin_lim.call import GriffinLim
from fastvoc.ops.op import Prepared

WINDOW = 512
"""Frames of one native call, which nothing can interrupt, and whose magnitudes are kept for all rounds."""


def prepare(call: GriffinLim) -> Prepared:
    """Return what runs the kernel, or why it cannot run this call."""
    return refuses(call.x) or cannot_transform(call.size, call.hop) or functools.partial(_run, call)


def cannot_transform(size: int, hop: int) -> str | None:
    """Return why the kernel has no transform of so many samples, so far apart, as a sentence, or None."""
    others = size // 2
    for factor in (2, 3, 5):
        while others % factor == 0:
            others //= factor
    if others != 1 or size > MOST_SAMPLES:
        return (
            f"a transform of {size} samples; those of the kernel have at most {MOST_SAMPLES}, and half of them has no "
            "factors but 2, 3 and 5"
        )
    if size // hop > MOST_OVERLAP:
        return f"each sample is in {size // hop} frames; the kernel takes at most {MOST_OVERLAP}"
    return None


MOST_SAMPLES, MOST_OVERLAP = 2**16, 64


def _run(call: GriffinLim) -> Tensor:
    """Run a call, with filters that are packed for it: they can change through `.data` without a trace."""
    if not len(call.x):
        return call.empty()
    packed = Packed(call.filters, call.hop, *call[4:])
    return packed.whole(torch.cat([call.x, call.mel], dim=1).contiguous())


class Packed:
    """The filters and tables of `griffin_lim` in the order of the kernel.

    Parameters
    ----------
    filters : Tensor, shape (bands, bins)
        On the CPU.
    hop, before, after, iterations, revisions, momentum, floor
        As in `fastvoc.ops.griffin_lim.call.GriffinLim`, of sizes that `cannot_transform` does not refuse.
    """

    def __init__(
        self,
        filters: Tensor,
        hop: int,
        before: int,
        after: int,
        iterations: int,
        revisions: int,
        momentum: float,
        floor: float,
    ) -> None:
        bands, bins = filters.shape
        self.hop = hop
        # what was packed for one instruction set is read by it alone
        self._described = _describe(
            native.isa(),
            *(bands, 2 * (bins - 1), hop, before, after, iterations, revisions),
            *(momentum / (1 + momentum), floor),
        )
        _, library = native.library()
        plain = filters.detach().resolve_neg().float().contiguous()
        self._packed = native.host_memory(self._described.packed_size, dtype=torch.uint8)
        code = library.fastvoc_griffin_lim_pack(self._described.pointer, native.floats(plain), _pointer(self._packed))
        native.check("griffin_lim", code)

    def whole(self, rows: Tensor) -> Tensor:
        """Run on whole signals, in windows, between which Python handles signals of the system.

        Parameters
        ----------
        rows : Tensor, shape (B, bins + bands, T), float32
            `x` and `mel`, one above the other.

        Returns
        -------
        Tensor, shape (B, 1, T·hop), float32
        """
        states, windows = self.start(len(rows)), torch.split(rows, WINDOW, dim=-1)
        waves = [self.advance(states, window, ended=place == len(windows)) for place, window in enumerate(windows, 1)]
        return torch.cat(waves, dim=-1) if len(waves) != 1 else waves[0]

    def start(self, batch: int) -> Tensor:
        """Return the state of streams of which nothing has come, as bytes: (batch, size)."""
        _, library = native.library()
        states = native.host_memory(batch, self._described.state_size, dtype=torch.uint8)
        for state in states:
            library.fastvoc_griffin_lim_begin(self._described.pointer, _pointer(state))
        return states

    def advance(self, states: Tensor, rows: Tensor, *, ended: bool) -> Tensor:
        """Advance streams.

        Parameters
        ----------
        states : Tensor, shape (B, size), uint8
            Written to.
        rows : Tensor, shape (B, bins + bands, n), float32
            What is new of `x` and `mel`: at first as many frames as overlap, unless they are all.
        ended : bool
            Whether no others follow.

        Returns
        -------
        Tensor, shape (B, 1, samples), float32
            The samples that are certain with them.
        """
        _, library = native.library()
        pointer, threads, frames = self._described.pointer, torch.get_num_threads(), rows.shape[-1]
        counts = {library.fastvoc_griffin_lim_ready(pointer, _pointer(state), frames, ended) for state in states}
        if len(counts) > 1:
            raise ValueError("griffin_lim: the streams were given different numbers of frames")
        waves = native.host_memory(len(rows), 1, max(counts, default=0), dtype=torch.float32)
        workspace = native.scratch(library.fastvoc_griffin_lim_workspace_size(pointer, threads, frames) // 4)
        rows = rows.resolve_neg()
        rows = rows if rows.stride(-1) == 1 else rows.contiguous()
        for state, x, wave in zip(states, rows, waves, strict=True):
            code = library.fastvoc_griffin_lim_run(
                pointer,
                _pointer(self._packed),
                _pointer(state),
                _pointer(workspace),
                threads,
                native.floats(x),
                x.stride(0),
                frames,
                ended,
                native.floats(wave),
            )
            native.check("griffin_lim", code)
        return waves


class _Described(NamedTuple):
    """A call as the native library reads it; sizes are in bytes."""

    pointer: Any
    packed_size: int
    state_size: int


_NUMBERS = (
    *("isa", "bands", "size", "hop", "before", "after", "iterations", "revisions"),
    *("momentum", "floor"),
)


@functools.lru_cache(maxsize=256)
def _describe(*numbers: float) -> _Described:
    ffi, library = native.library()
    call = ffi.new("fastvoc_griffin_lim *", dict(zip(_NUMBERS, numbers, strict=True)))
    native.check("griffin_lim", library.fastvoc_griffin_lim_check(call))
    return _Described(
        pointer=call,
        packed_size=library.fastvoc_griffin_lim_packed_size(call),
        state_size=library.fastvoc_griffin_lim_state_size(call),
    )


def _pointer(memory: Tensor) -> Any:
    ffi, _ = native.library()
    return ffi.cast("void *", memory.data_ptr())

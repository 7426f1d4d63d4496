"""Mels of any length and number to waves, by the fastest way that a generator has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastvoc import ops
from fastvoc.engine.graphs import Graphs
from fastvoc.engine.groups import groups
from fastvoc.engine.habit import Habit
from fastvoc.engine.plan import Plan
from fastvoc.engine.ways import Ways

WINDOW = 4096
"""Frames that run at once: 48 s at 22050 Hz and a hop of 256, for which each layer of HiFi-GAN V1 makes 0.13 GB of
features."""

Item = tuple[Tensor, "Tensor | None"]


class Speaker:
    """What makes waves of mels.

    Parameters
    ----------
    ways : Ways
        Of the generator.
    habit : Habit, optional
        What is put around each mel.
    device, dtype
        Of the weights.
    """

    def __init__(self, ways: Ways, *, habit: Habit | None, device: torch.device, dtype: torch.dtype) -> None:
        self.ways = ways
        self.habit = habit
        self.device = device
        self.dtype = dtype

    def voice(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(bands, T) or (B, bands, T) and (C,) or (B, C) → (T·hop,) or (B, T·hop), on the device of the mel."""
        embedding = condition[None] if condition is not None and condition.ndim == 1 else condition
        wave = self._whole(mel if mel.ndim == 3 else mel[None], embedding).to(mel.device)
        return wave if mel.ndim == 3 else wave[0]

    def voices(self, items: Sequence[Item]) -> list[Tensor]:
        """Make the wave of each mel, (bands, T), with its condition, (C,): on a GPU, of many of them at once."""
        run = self.ways.fastest()
        if len(items) > 1 and isinstance(run, Graphs):
            frames = [self._extended(mel).shape[-1] for mel, _ in items]
            if run.pads(min(frames)):
                waves: dict[int, Tensor] = {}
                for group in groups(frames, WINDOW):
                    waves |= zip(group, self._together(run, [items[n] for n in group]), strict=True)
                return [waves[n] for n in range(len(items))]
        return [self.voice(*item) for item in items]

    def _together(self, run: Graphs, items: Sequence[Item]) -> list[Tensor]:
        if len(items) == 1:
            return [self.voice(*items[0])]
        rows = [self._extended(mel).T.to(self.device, self.dtype) for mel, _ in items]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32, device=self.device)
        conditions = [condition for _, condition in items if condition is not None]
        waves = self._pass(
            partial(run, lengths=lengths),
            pad_sequence(rows, batch_first=True).mT,
            torch.stack(conditions) if conditions else None,
        )
        ends = [len(row) * self.ways.generator.hop for row in rows]
        pieces = zip(waves, ends, items, strict=True)
        # outside inference mode, so that callers may differentiate what they do next
        return [self._cut(wave[:end].clone()).to(mel.device) for wave, end, (mel, _) in pieces]

    def _whole(self, mel: Tensor, condition: Tensor | None) -> Tensor:
        """(B, bands, T) on any device → (B, T·hop) on the generator's."""
        mel = self._extended(mel)
        frames, hop = mel.shape[-1], self.ways.generator.hop
        # outside inference mode, as above
        wave = torch.empty(mel.shape[0], frames * hop, device=self.device, dtype=self.dtype)
        # a plan holds no more of the features than a tile, however long the mel
        run = self.ways.fastest()
        window = max(frames, 1) if isinstance(run, Plan) else WINDOW
        past, future = self.ways.generator.receptive_field if frames > window else (0, 0)
        for start in range(0, frames if mel.shape[0] else 0, window):
            stop = min(start + window, frames)
            first, last = max(0, start - past), min(frames, stop + future)
            piece = self._pass(run, mel[..., first:last], condition)
            wave[:, start * hop : stop * hop] = piece[:, (start - first) * hop : (stop - first) * hop]
        return self._cut(wave)

    def _extended(self, mel: Tensor) -> Tensor:
        return mel if self.habit is None else self.habit.extend(mel)

    def _cut(self, wave: Tensor) -> Tensor:
        if self.habit is None or not self.habit.trimmed:
            return wave
        return self.habit.cut(wave, self.ways.generator.hop)

    def _pass(self, run: Callable[..., Tensor], mel: Tensor, condition: Tensor | None) -> Tensor:
        """Run the network once: (B, bands, T) on any device → (B, T·hop) on the generator's."""
        chosen = nullcontext() if self.ways.backend is None else ops.use_backend(self.ways.backend)
        with torch.inference_mode(), chosen:
            # in one memory order, so that equal mels give equal samples
            arguments = [
                value.to(self.device, self.dtype).contiguous() for value in (mel, condition) if value is not None
            ]
            return run(*arguments)[:, 0]

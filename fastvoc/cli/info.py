"""`fastvoc info`: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fastvoc.cli.command import Command
from fastvoc.cli.terminal import show

if TYPE_CHECKING:
    from torch import nn

    from fastvoc import Vocoder

PROBE = 16
"""Frames of the mel on which operations are counted."""


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """Say what a vocoder is: its architecture, size, cost and mel convention.

    Example: fastvoc info g_02500000 --config config_v1.json
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = "default"
    """Folder or file of a vocoder in any format that fastvoc opens; "default" comes with the package."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to a checkpoint, where it does not lie beside it."""

    def run(self) -> int:
        """Print the facts."""
        from fastvoc import Vocoder
        from fastvoc.checkpoints import InferenceHabit
        from fastvoc.config import to_dict

        vocoder = Vocoder.from_pretrained(self.path, config=self.config)
        parameters = sum(parameter.numel() for parameter in vocoder.generator.parameters())
        past, future = vocoder.receptive_field
        milliseconds = 1000 * vocoder.hop / vocoder.sample_rate
        facts: list[tuple[str, object]] = [
            ("source format", vocoder.source),
            ("parameters", f"{parameters:,}"),
            ("sample rate", f"{vocoder.sample_rate} Hz"),
            ("hop", f"{vocoder.hop} samples, {milliseconds:.2f} ms"),
            ("receptive field before a frame", f"{past} frames, {past * milliseconds:.0f} ms"),
            ("receptive field behind a frame", f"{future} frames, {future * milliseconds:.0f} ms"),
            ("cost", f"{multiply_accumulates(vocoder) / 1e9:.3f} G multiply-accumulates per second of sound"),
            ("mel", vocoder.config.mel.describe()),
            *(("note", note) for note in (*vocoder.notes, *_checkerboard(vocoder))),
        ]
        show(self.path, ("", ""), facts)
        settings = to_dict(vocoder.config)
        tables = [("Architecture", settings["generator"]), ("Mel convention", settings["mel"])]
        if vocoder.config.inference != InferenceHabit():
            tables.append(("Habit of the original's inference", settings["inference"]))
        for title, values in tables:
            show(title, ("", ""), list(_flat(values)))
        return 0


def multiply_accumulates(vocoder: Vocoder) -> float:
    """Count the multiply-accumulates of a vocoder's convolutions, per second of sound.

    Every convolution that runs on a short mel is asked for its weights and its length. Activations, additions and
    Fourier transforms are left out.
    """
    import torch

    from fastvoc.blocks import Conv1d, PqmfHead, ResidualBlocks, Upsample

    count = 0

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal count
        # each input row of a transposed convolution, and each output row of another, meets every weight once
        rows = inputs[0].shape[-1] if isinstance(module, Upsample | PqmfHead) else output.shape[-1]
        weights = [module.filters] if isinstance(module, PqmfHead) else module.parameters()
        count += rows * sum(weight.numel() for weight in weights if weight.ndim == 3)

    generator = vocoder.generator
    kinds = (Conv1d, Upsample, ResidualBlocks, PqmfHead)
    hooks = [module.register_forward_hook(add) for module in generator.modules() if isinstance(module, kinds)]
    widths = [module.weight.shape[1] for name, module in generator.named_modules() if name.endswith("condition.0")]
    mel = torch.zeros(1, generator.mel_bands, PROBE)
    try:
        with torch.inference_mode():
            generator(mel, *(torch.zeros(1, width) for width in widths))
    finally:
        for hook in hooks:
            hook.remove()
    return count / PROBE * vocoder.sample_rate / vocoder.hop


def _checkerboard(vocoder: Vocoder) -> list[str]:
    from fastvoc.blocks import Upsample

    return [
        f"{name} has {module.weight.shape[-1]} taps at rate {module.rate}, no multiple of it: "
        f"there may be tones at multiples of its input's rate"
        for name, module in vocoder.generator.named_modules()
        if isinstance(module, Upsample) and module.uneven
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows

"""`fastvoc info`: what a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from fastvoc.cli.command import Command, UsageError
from fastvoc.cli.terminal import show

if TYPE_CHECKING:
    from torch import nn

    from fastvoc import Autoencoder, Instrument, Vocoder

PROBE = 16
"""Frames of the mel on which operations are counted."""


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """Say what a vocoder is: its architecture, size, cost and mel convention; or an autoencoder, or an instrument.

    Example: fastvoc info g_02500000 --config config_v1.json
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")] = "default"
    """Folder or file of a vocoder in any format that fastvoc opens; "default" comes with the package."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to a checkpoint, where it does not lie beside it: a file, or a name such as
    hifigan-v1."""

    def run(self) -> int:
        """Print the facts."""
        import fastvoc
        from fastvoc import Autoencoder, CodeDecoder, Instrument, Vocoder

        opened = fastvoc.open(self.path, config=self.config)
        if isinstance(opened, Autoencoder):
            return self._autoencoder(opened)
        if isinstance(opened, CodeDecoder):
            opened = opened.vocoder(opened.codebooks[-1])
        if isinstance(opened, Instrument):
            return self._instrument(opened)
        if not isinstance(opened, Vocoder):
            raise UsageError(f"{self.path}: opens as {type(opened).__name__}, of which info tells nothing; print it")
        return self._vocoder(opened)

    def _autoencoder(self, autoencoder: Autoencoder) -> int:
        from fastvoc.config import to_dict

        network, rate = autoencoder.generator, autoencoder.sample_rate
        parts = {"encoder": network.encoder, "decoder": network.decoder}
        sizes = {name: sum(value.numel() for value in part.parameters()) for name, part in parts.items()}
        reach = network.encoder.reach
        facts: list[tuple[str, object]] = [
            ("source format", autoencoder.source),
            ("parameters", f"{sum(sizes.values()):,}"),
            *((f"of the {name}", f"{size:,}") for name, size in sizes.items()),
            ("sample rate", f"{rate} Hz"),
            (
                "code",
                f"{autoencoder.channels} numbers for {autoencoder.hop} samples, {1000 * autoencoder.hop / rate:g} ms",
            ),
            ("the encoder reads", f"{reach} samples, {1000 * reach / rate:.0f} ms, to each side of those"),
            *(("note", note) for note in autoencoder.notes),
        ]
        show(self.path, ("", ""), facts)
        show("Architecture", ("", ""), list(_flat(to_dict(autoencoder.config)["generator"])))
        return 0

    def _instrument(self, instrument: Instrument) -> int:
        from fastvoc.config import to_dict

        rate, samples = instrument.sample_rate, instrument.samples
        facts: list[tuple[str, object]] = [
            ("source format", instrument.source),
            ("parameters", f"{sum(value.numel() for value in instrument.generator.parameters()):,}"),
            ("sample rate", f"{rate} Hz"),
            ("note", f"{samples} samples, {samples / rate:g} s"),
            ("pitches", f"{instrument.lowest} to {instrument.highest}"),
            *(("note", note) for note in instrument.notes),
        ]
        show(self.path, ("", ""), facts)
        show("Architecture", ("", ""), list(_flat(to_dict(instrument.config)["generator"])))
        return 0

    def _vocoder(self, vocoder: Vocoder) -> int:
        from fastvoc.checkpoints import InferenceFrames
        from fastvoc.config import to_dict

        parameters = sum(parameter.numel() for parameter in vocoder.generator.parameters())
        past, future = vocoder.receptive_field
        milliseconds = 1000 * vocoder.hop / vocoder.sample_rate
        facts: list[tuple[str, object]] = [
            ("source format", vocoder.source),
            ("parameters", f"{parameters:,}"),
            ("sample rate", f"{vocoder.sample_rate} Hz"),
            ("hop", f"{vocoder.hop} samples, {milliseconds:.2f} ms"),
            *_extra(vocoder),
            ("receptive field before a frame", f"{past} frames, {past * milliseconds:.0f} ms"),
            ("receptive field behind a frame", f"{future} frames, {future * milliseconds:.0f} ms"),
            ("cost", f"{multiply_accumulates(vocoder) / 1e9:.3f} G multiply-accumulates per second of sound"),
            ("mel", vocoder.config.mel.describe()),
            *(("note", note) for note in (*vocoder.notes, *_checkerboard(vocoder))),
        ]
        show(self.path, ("", ""), facts)
        settings = to_dict(vocoder.config)
        tables = [("Architecture", settings["generator"]), ("Mel convention", settings["mel"])]
        if vocoder.config.inference != InferenceFrames():
            tables.append(("Frames that the original's inference adds", settings["inference"]))
        for title, values in tables:
            show(title, ("", ""), list(_flat(values)))
        return 0


def multiply_accumulates(vocoder: Vocoder) -> float:
    """Count the multiply-accumulates of a vocoder's convolutions, per second of sound.

    Every convolution that runs on a short mel is asked for its weights and its length. Activations, additions and
    Fourier transforms are left out.
    """
    import torch
    from torch import nn

    from fastvoc.blocks import Conv1d, PqmfHead, Upsample
    from fastvoc.recurrence import is_explained

    if is_explained(vocoder.generator):
        return vocoder.generator.multiply_accumulates * vocoder.sample_rate
    count = 0
    transposed = (Upsample, PqmfHead, nn.ConvTranspose1d)

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal count
        # each input row of a transposed convolution, and each output row of another, meets every weight once
        rows = inputs[0].shape[-1] if isinstance(module, transposed) else output.shape[-1]
        weights = [module.filters] if isinstance(module, PqmfHead) else module.parameters()
        count += rows * sum(weight.numel() for weight in weights if weight.ndim == 3)

    generator = vocoder.generator
    kinds = (Conv1d, nn.Conv1d, *transposed)  # residual blocks call each of their convolutions, once one has a hook
    hooks = [module.register_forward_hook(add) for module in generator.modules() if isinstance(module, kinds)]
    widths = [module.weight.shape[1] for name, module in generator.named_modules() if name.endswith("condition.0")]
    mel = torch.zeros(1, generator.mel_bands, PROBE)
    drawn = {}
    if (draws := generator.draws) is not None:
        drawn = {"noise": torch.zeros(1, draws.channels, PROBE * draws.rows_per_frame), "temperature": torch.ones(1)}
    try:
        with torch.inference_mode():
            generator(mel, *(torch.zeros(1, width) for width in widths), **drawn)
    finally:
        for hook in hooks:
            hook.remove()
    return count / PROBE * vocoder.sample_rate / vocoder.hop


def _extra(vocoder: Vocoder) -> list[tuple[str, object]]:
    extra = vocoder.generator.extra_samples
    if extra < 0:
        return [("missing samples", f"{-extra}, of a hop for each frame")]
    return [("extra samples", f"{extra}, at the end of a wave")] if extra else []


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

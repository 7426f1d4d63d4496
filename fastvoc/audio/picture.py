"""Pictures of waves and their mel spectrograms, drawn without a screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from fastvoc.audio.mel import MelConfig, mel_spectrogram


def draw_comparison(path: str | Path, waves: Mapping[str, Tensor], config: MelConfig) -> None:
    """Draw waves side by side over their mel spectrograms, on the same scales.

    Parameters
    ----------
    path : str or Path
        The suffix names the format, such as .png or .svg. The file appears under its name only when it is complete.
    waves : mapping of str to Tensor, shape (T,), float32 or float64
        Title to samples in [-1, 1] at the rate of the convention.
    config : MelConfig
        The convention of the mel spectrograms.

    Raises
    ------
    ValueError
        If there are no waves, or the format is not known.
    """
    # Figure and its canvas, not pyplot: no window system is asked for and no state is left behind. The package takes
    # half a second to import.
    from matplotlib.figure import Figure

    if not waves:
        raise ValueError("draw_comparison: there are no waves; needs at least one")
    path = Path(path)
    mels = [mel_spectrogram(wave.detach().cpu(), config).numpy() for wave in waves.values()]
    low, high = min(mel.min() for mel in mels), max(mel.max() for mel in mels)
    peak = max(float(wave.abs().max()) for wave in waves.values())
    figure = Figure(figsize=(1 + 5 * len(waves), 5.5), layout="constrained", dpi=120)
    axes = figure.subplots(2, len(waves), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 2))
    for column, (title, wave) in enumerate(waves.items()):
        upper, lower = axes[:, column]
        samples = wave.detach().cpu().numpy()
        upper.plot(np.arange(len(samples)) / config.sample_rate, samples, linewidth=0.4, color="black")
        upper.set_title(title)
        upper.set_ylim(-1.05 * peak, 1.05 * peak)
        end = mels[column].shape[-1] * config.hop / config.sample_rate
        image = lower.imshow(
            mels[column], origin="lower", aspect="auto", vmin=low, vmax=high, extent=(0, end, 0, config.bands)
        )
        lower.set_xlabel("time (s)")
        lower.set_xlim(0, end)
    axes[0, 0].set_ylabel("wave")
    axes[1, 0].set_ylabel(f"mel band ({config.low:g}-{config.highest:g} Hz)")
    figure.colorbar(image, ax=axes[1, :], label="log-mel")
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"{path}: suffix {path.suffix!r} is not a known format; known: .png, .svg, .pdf")
    temporary = path.with_name(path.name + ".partial")
    try:
        figure.savefig(temporary, format=suffix)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

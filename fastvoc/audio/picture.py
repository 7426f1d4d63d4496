"""Pictures of waves with their mel spectrograms or codes, drawn without a screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.inputs import as_tensor, as_wave
from fastvoc.audio.instantaneous_frequency import HIGH, NoteSpectrum, mel_band, note_spectrum
from fastvoc.audio.mels.spectrogram import MelConfig, mel_spectrogram
from fastvoc.writing import complete_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 1 << 24
"""Samples of a rainbowgram: 17 minutes at 16 kHz, and 4 GB while it is drawn."""


def draw_comparison(path: str | Path, waves: Mapping[str, Tensor | NDArray[np.floating]], config: MelConfig) -> None:
    """Draw waves side by side over their mel spectrograms, on the same scales.

    Parameters
    ----------
    path : str or Path
        The suffix names the format, such as .png or .svg. The file appears under its name only when it is complete.
    waves : mapping of str to Tensor or ndarray, shape (T,), float32 or float64
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
    drawn = {title: as_wave(wave, "draw_comparison", title).detach().cpu() for title, wave in waves.items()}
    mels = [mel_spectrogram(wave, config).numpy() for wave in drawn.values()]
    low, high = min(mel.min() for mel in mels), max(mel.max() for mel in mels)
    peak = max(float(wave.abs().max()) for wave in drawn.values())
    figure = Figure(figsize=(1 + 5 * len(waves), 5.5), layout="constrained", dpi=120)
    axes = figure.subplots(2, len(waves), sharex=True, sharey="row", squeeze=False, height_ratios=(1, 2))
    for column, (title, wave) in enumerate(drawn.items()):
        upper, lower = axes[:, column]
        samples = wave.numpy()
        upper.plot(np.arange(len(samples)) / config.sample_rate, samples, linewidth=0.4, color="black")
        upper.set_title(title, parse_math=False)
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
    _save(figure, path)


def draw_code(
    path: str | Path,
    wave: Tensor | NDArray[np.floating],
    code: Tensor | NDArray[np.floating],
    sample_rate: int,
    *,
    title: str = "",
) -> None:
    """Draw a wave over its code: a line for each of the numbers of an autoencoder's code, on the same time axis.

    Parameters
    ----------
    path : str or Path
        As in `draw_comparison`.
    wave : Tensor or ndarray, shape (T,)
        Samples in [-1, 1].
    code : Tensor or ndarray, shape (rows, channels)
        Of the wave; the samples behind its last whole row are drawn too.
    sample_rate : int
        In Hz.
    title : str

    Raises
    ------
    ValueError
        If shapes are others, or the format is not known.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    samples = as_wave(wave, "draw_code").detach().float().cpu().numpy()
    rows = as_tensor(code, "code", "draw_code").detach().float().cpu().numpy()
    if samples.ndim != 1 or rows.ndim != 2 or not rows.size:
        raise ValueError(
            f"draw_code: wave and code have shapes {samples.shape} and {rows.shape}; they must be (samples,) and "
            "(rows, channels)"
        )
    hop = len(samples) // len(rows)
    figure = Figure(figsize=(9, 5), layout="constrained", dpi=120)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(np.arange(len(samples)) / sample_rate, samples, linewidth=0.4, color="black")
    upper.set_ylabel("wave")
    upper.set_title(title, parse_math=False)
    # a row lasts as long as its samples, and is drawn where it begins and where it ends
    edges = np.arange(len(rows) + 1) * hop / sample_rate
    for channel in rows.T:
        lower.stairs(channel, edges, baseline=None, linewidth=0.9)
    lower.set_ylabel(f"code, {rows.shape[1]} numbers")
    lower.set_xlabel("time (s)")
    lower.set_xlim(0, len(samples) / sample_rate)
    _save(figure, path)


def draw_rainbowgram(
    path: str | Path, wave: Tensor | NDArray[np.floating], sample_rate: int, *, title: str = "", decibels: float = 80.0
) -> None:
    """Draw a wave as a rainbowgram: brightness is the level of a mel band, hue the instantaneous frequency in it.

    A steady partial is a line of one colour; vibrato and beats change it; noise is of all colours (Engel et al. 2017,
    arXiv:1704.01279, figure 2, here by the transform of `fastvoc.audio.instantaneous_frequency`).

    Parameters
    ----------
    path : str or Path
        As in `draw_comparison`.
    wave : Tensor or ndarray, shape (T,)
        Samples in [-1, 1].
    sample_rate : int
        In Hz.
    title : str
    decibels : float
        From the brightest level down to black.

    Raises
    ------
    ValueError
        If the wave has another shape or no samples, is too long for a picture, or the format is not known.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    samples = as_wave(wave, "draw_rainbowgram").detach().float().cpu()
    if samples.numel() > _LONGEST:
        raise ValueError(f"draw_rainbowgram: wave has {samples.numel()} samples; draw parts of {_LONGEST} at most")
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"draw_rainbowgram: wave has shape {tuple(samples.shape)}; it must be (samples,)")
    figure = Figure(figsize=(8, 5), layout="constrained", dpi=120)
    axes = figure.subplots()
    show_rainbowgram(axes, samples, sample_rate, decibels=decibels)
    axes.set_title(title, parse_math=False)
    _save(figure, path)


def show_rainbowgram(axes: Axes, samples: Tensor, sample_rate: int, *, decibels: float = 80.0) -> None:
    """Draw a wave, (T,), float32, as a rainbowgram into a part of a figure; see `draw_rainbowgram`."""
    from matplotlib.colors import hsv_to_rgb

    settings = NoteSpectrum(sample_rate=sample_rate, samples=len(samples), frames=-(-len(samples) // HIGH.hop) + 3)
    level, turn = note_spectrum(samples, settings, mel=True).unbind(dim=-1)
    # natural logarithms of powers
    brightness = (1 + (level - level.max()) * (10 / np.log(10)) / decibels).clamp(0, 1)
    hue = (turn + 1) / 2 % 1
    picture = hsv_to_rgb(np.stack([hue.T, np.ones_like(hue.T), brightness.T], axis=-1))
    begin, end = -settings.front / sample_rate, len(samples) / sample_rate
    axes.imshow(picture, origin="lower", aspect="auto", extent=(begin, end, 0, settings.bins), interpolation="nearest")
    axes.set_xlim(0, end)
    marks = [hertz for hertz in (250, 500, 1000, 2000, 4000, 8000, 16000) if hertz < 0.45 * sample_rate]
    axes.set_yticks([mel_band(hertz, settings) + 0.5 for hertz in marks], [str(hertz) for hertz in marks])
    axes.set_ylabel("frequency (Hz)")
    axes.set_xlabel("time (s)")


def draw_noise(
    path: str | Path, noise: Tensor | NDArray[np.floating], deviation: float, hop_seconds: float, *, title: str = ""
) -> None:
    """Draw what flows make of a recording, in time, and how often each value comes, beside the normal density.

    Flows that have learnt make noise of recordings: then no speech is left to be seen, and the bars follow the line.

    Parameters
    ----------
    path : str or Path
        As in `draw_comparison`.
    noise : Tensor or ndarray, shape (channels, rows)
        Such as `fastvoc.models.waveglow.Likelihood.z` of one recording.
    deviation : float
        Standard deviation of the density: that of training.
    hop_seconds : float
        From one row to the next.
    title : str

    Raises
    ------
    ValueError
        If there is no noise or it has another shape, or the format is not known.
    """
    from matplotlib.figure import Figure

    path = Path(path)
    rows = as_tensor(noise, "noise", "draw_noise").detach().float().cpu().numpy()
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"draw_noise: noise has shape {rows.shape}; it must be (channels, rows)")
    most = max(4 * deviation, float(np.abs(rows).max()))
    figure = Figure(figsize=(9, 6), layout="constrained", dpi=120)
    upper, lower = figure.subplots(2, 1)
    end = rows.shape[1] * hop_seconds
    image = upper.imshow(
        rows, aspect="auto", cmap="gray", vmin=-4 * deviation, vmax=4 * deviation, extent=(0, end, len(rows), 0)
    )
    figure.colorbar(image, ax=upper)
    upper.set_title(title, parse_math=False)
    upper.set_xlabel("time (s)")
    upper.set_ylabel("channel of z")
    lower.hist(rows.ravel(), bins=200, range=(-most, most), density=True, color="lightgray")
    places = np.linspace(-most, most, 401)
    density = np.exp(-0.5 * (places / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
    lower.plot(places, density, linewidth=0.9, color="black", label=f"normal, deviation {deviation:.3g}")
    lower.set_xlabel(f"z: mean {rows.mean():.3g}, deviation {rows.std():.3g}")
    lower.set_ylabel("density")
    lower.set_yscale("log")
    lower.set_ylim(50 / (most * rows.size), None)  # half of what a single value in a bar is
    lower.legend()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"{path}: suffix {path.suffix!r} is not a known format; known: .png, .svg, .pdf")
    with complete_file(path) as temporary:
        figure.savefig(temporary, format=suffix)

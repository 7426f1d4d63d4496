"""Pictures of a run: its curves, and its sound beside the recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio import MelConfig, mel_spectrogram
from fastvoc.audio.picture import show_rainbowgram
from fastvoc.writing import complete_file

if TYPE_CHECKING:  # takes half a second
    from matplotlib.figure import Figure

_COLUMNS = 4

# Points of a curve; of more, neighbours are averaged.
_POINTS = 1000


def curves(entries: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw every number of a log over the steps, each in a panel of its own.

    Parameters
    ----------
    entries : sequence of mapping
        Lines of a log. Numbers of one kind whose names differ only before the last `/` share a panel.

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name in ("step", "kind", "time") or value is None:
                continue
            line, _, panel = name.rpartition("/")
            points = panels.setdefault((entry["kind"], panel), {}).setdefault(line, [])
            points.append((entry["step"], value))
    rows = max(1, -(-len(panels) // _COLUMNS))
    figure = Figure(figsize=(4 * _COLUMNS, 2.6 * rows), layout="constrained", dpi=100)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for axis, ((kind, panel), lines) in zip(axes, panels.items(), strict=False):
        for label, points in lines.items():
            steps, values = _thinned(np.array(points, dtype=np.float64))
            axis.plot(steps, values, linewidth=1, marker="." if len(steps) < 30 else None, label=label or None)
        values = np.array([value for points in lines.values() for _, value in points])
        if values.min() > 0 and values.max() > 20 * values.min():
            axis.set_yscale("log")
        if any(lines):
            axis.legend(fontsize="small")
        axis.set_title(f"{panel} ({kind})", fontsize="medium")
        axis.set_xlabel("step", fontsize="small")
        axis.grid(alpha=0.3)
    for axis in list(figure.axes)[len(panels) :]:
        axis.set_axis_off()
    return figure


def spectrograms(samples: Mapping[str, tuple[Tensor, Tensor]], config: MelConfig, *, title: str = "") -> Figure:
    """Draw the mels of recordings, of what was made of them, and their differences.

    Parameters
    ----------
    samples : mapping of str to (Tensor, Tensor), each of shape (T,)
        Recording and generated wave, by name.
    config : MelConfig
        Convention of the mels.
    title : str

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 0.6 + 2.6 * max(1, len(samples))), layout="constrained", dpi=80)
    figure.suptitle(title)
    axes = figure.subplots(max(1, len(samples)), 3, squeeze=False)
    for row, (name, waves) in zip(axes, samples.items(), strict=False):
        recorded, made = (mel_spectrogram(wave.detach().cpu().float(), config).numpy() for wave in waves)
        seconds = recorded.shape[1] * config.hop / config.sample_rate
        placed: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, seconds, 0, config.bands)}
        scale = {"vmin": recorded.min(), "vmax": recorded.max()}
        for axis, mel, label in zip(row, (recorded, made), (f"{name}: recording", "generated"), strict=False):
            image = axis.imshow(mel, **placed, **scale)
            axis.set_title(label, fontsize="medium", parse_math=False)
        figure.colorbar(image, ax=row[:2])
        difference = made - recorded
        most = float(np.nanquantile(np.abs(difference), 0.995)) or 1.0
        figure.colorbar(row[2].imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most, **placed), ax=row[2])
        row[0].set_ylabel("mel band")
        row[2].set_title(f"difference, mean {np.abs(difference).mean():.3f}", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    return figure


def rainbowgrams(samples: Mapping[str, tuple[Tensor, Tensor]], sample_rate: int, *, title: str = "") -> Figure:
    """Draw the rainbowgrams of notes, and of what was made at their pitches.

    Parameters
    ----------
    samples : mapping of str to (Tensor, Tensor), each of shape (T,)
        Recorded and made note, by name.
    sample_rate : int
        In Hz.
    title : str

    Returns
    -------
    Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.6 + 2.6 * max(1, len(samples))), layout="constrained", dpi=80)
    figure.suptitle(title)
    axes = figure.subplots(max(1, len(samples)), 2, squeeze=False)
    for row, (name, waves) in zip(axes, samples.items(), strict=False):
        for axis, wave, label in zip(row, waves, (f"{name}: recording", "generated"), strict=True):
            show_rainbowgram(axis, wave.detach().cpu().float(), sample_rate)
            axis.set_title(label, fontsize="medium", parse_math=False)
        row[1].set_ylabel("")
    for axis in axes[:-1].flat:
        axis.set_xlabel("")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG, under a temporary name that is renamed when complete."""
    with complete_file(path) as temporary:
        figure.savefig(temporary, format="png")


def pixels(path: Path) -> NDArray[np.floating]:
    """Read a picture that `save` wrote: (height, width, 3), in [0, 1]."""
    from matplotlib.image import imread

    picture: NDArray[np.floating] = imread(path)
    return picture[..., :3]


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) → (2, at most _POINTS): means of neighbours."""
    parts = np.array_split(points, min(len(points), _POINTS))
    return np.stack([part.mean(axis=0) for part in parts], axis=1)

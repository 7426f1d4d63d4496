"""Rows as pictures: vocoders beside their peers, and operators under the roof of their machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reporting.rows import NAMES, Row, groups, of
from benchmarks.reporting.tables import FAMILIES, speed

OURS, PEER, RED, GREY = "#1f6feb", "#b6bcc6", "#cf222e", "#57606a"


def draw_vocoders(rows: list[Row], path: Path) -> bool:
    """Draw the speed of vocoders: a column of panels for each network, a row for each precision.

    The case with most threads is drawn, of one sound of the length that is nearest to a second. Where fastvoc is slower
    than the best peer, it is red.

    Parameters
    ----------
    rows : list of dict
        Of one device.
    path : Path
        An ``.svg`` file.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    rows = [row for row in of(rows, "vocoders", batch=1) if "times_real_time" in row]
    if not rows:
        return False
    threads = max(row["threads"] for row in rows)
    length = min((row["seconds"] for row in rows), key=lambda value: abs(value - 1))
    rows = [row for row in rows if (row["threads"], row["seconds"]) == (threads, length)]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    with _figure(path, len(precisions), len(networks), (2.1 * len(networks), 2.3 * len(precisions) + 0.5)) as (
        figure,
        axes,
    ):
        for line, precision in enumerate(precisions):
            for column, network in enumerate(networks):
                case = [row for row in rows if (row["network"], row["precision"]) == (network, precision)]
                _bars(axes[line, column], case)
                if line == 0:
                    axes[line, column].set_title(NAMES.get(network, network), fontsize=10, fontweight="bold")
            axes[line, 0].set_ylabel(f"{precision}\ntimes real time", fontsize=9)
        where = f"{threads} thread{'s' if threads > 1 else ''}" if rows[0]["kind"] == "cpu" else "one GPU"
        figure.suptitle(f"{rows[0]['device']}, {where}, {length:g} s of sound, same weights", fontsize=9, color=GREY)
    return True


def draw_roofline(rows: list[Row], path: Path) -> bool:
    """Draw operators in single precision: the rate that each reaches over the operations that it does for each byte.

    All rows are of one device.

    Returns
    -------
    bool
        Whether there was anything to draw.
    """
    rows = of(rows, "ops", dtype="float32")
    if not rows:
        return False
    arithmetic = max(row["ceiling_gflops"] for row in rows)
    bandwidth = max(row["ceiling_gbytes"] for row in rows)
    with _figure(path, 1, 1, (7.5, 4.2)) as (figure, axes):
        axis = axes[0, 0]
        intensity = np.geomspace(0.5, 2000, 50)
        axis.plot(intensity, np.minimum(arithmetic, intensity * bandwidth), color=GREY, linewidth=1)
        markers = dict(zip(dict.fromkeys(row["op"] for row in rows), cycle("osD^vPX*hdp<>"), strict=False))
        for (op,), same in groups(rows, "op").items():
            x = [_intensity(row) for row in same]
            axis.scatter(x, [row["torch_gflops"] for row in same], s=14, color=PEER, marker=markers[op])
            colours = [OURS if row["ratio"] >= 1 else RED for row in same]
            axis.scatter(x, [row["gflops"] for row in same], s=18, color=colours, marker=markers[op], label=op)
        axis.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s")
        axis.set_ylim(bottom=min(min(row["gflops"], row["torch_gflops"]) for row in rows) / 1.5, top=arithmetic * 1.5)
        axis.text(2000, arithmetic * 1.06, f"{arithmetic:,.0f} GFLOP/s", ha="right", fontsize=8, color=GREY)
        axis.text(0.55, 0.7 * bandwidth, f"{bandwidth:,.0f} GB/s", fontsize=8, color=GREY)
        axis.legend(fontsize=8, frameon=False, loc="lower right")
        figure.suptitle(
            f"{rows[0]['device']}, {rows[0].get('threads', 1)} thread: fastvoc blue, slower than PyTorch red, "
            "PyTorch grey",
            fontsize=9,
            color=GREY,
        )
    return True


def _bars(axis: Any, case: list[Row]) -> None:
    speeds = {"fastvoc": max((row["times_real_time"] for row in case if row["engine"] == "fastvoc"), default=None)}
    for family, kinds in FAMILIES.items():
        found = [row["times_real_time"] for row in case if row["engine"] in kinds]
        if found:
            speeds[family] = max(found)
    speeds = {name: value for name, value in speeds.items() if value is not None}
    best = max((value for name, value in speeds.items() if name != "fastvoc"), default=0.0)
    slower = speeds.get("fastvoc", best) < best
    colours = [(RED if slower else OURS) if name == "fastvoc" else PEER for name in speeds]
    bars = axis.bar(range(len(speeds)), list(speeds.values()), color=colours, width=0.75)
    for bar, value in zip(bars, speeds.values(), strict=True):
        middle = bar.get_x() + bar.get_width() / 2
        axis.text(middle, value, speed(value), ha="center", va="bottom", fontsize=7, color=GREY)
    axis.set_xticks(range(len(speeds)), list(speeds), rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    axis.set_ylim(0, 1.15 * max(speeds.values(), default=1))
    axis.set_yticks([])


def _intensity(row: Row) -> float:
    """Return operations per byte; rows of the first version say it only by what share of the bandwidth they take."""
    return row.get("flops_per_byte") or row["gflops"] / (max(row["share_of_bandwidth"], 5e-4) * row["ceiling_gbytes"])


@contextmanager
def _figure(path: Path, lines: int, columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes, and write it as an SVG of which equal rows make equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "fastvoc", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat:
            axis.spines[["top", "right"]].set_visible(False)
        yield figure, axes
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})

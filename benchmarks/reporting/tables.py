"""Rows as tables in Markdown. A row that is slower than a peer stands among the others, and is marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from benchmarks.reporting.rows import NAMES, Row, groups, of

SLOWER = "🔴"
"""Marks what is slower than a peer; GitHub shows no colours in text."""

FAMILIES = {
    "PyTorch": ("PyTorch", "PyTorch, channels-last", "PyTorch, autocast", "PyTorch, narrow weights"),
    "CUDA graph": ("PyTorch, CUDA graph",),
    "torch.compile": ("torch.compile", "torch.compile, freezing", "torch.compile, max-autotune"),
    "ONNX Runtime": ("ONNX Runtime",),
    "OpenVINO": ("OpenVINO",),
    "transformers": ("transformers",),
}
"""Columns of peers; of several ways to run one, the fastest counts."""


def ratio(value: float | None, digits: int = 2) -> str:
    """Write how many times faster than a peer, marked if it is slower."""
    if value is None:
        return "–"
    return f"{SLOWER} {value:.{digits}f}" if value < 1 else f"{value:.{digits}f}"


def sentences(rows: list[Row]) -> list[str]:
    """Say in a line what the rows of one test show: ours beside the fastest other."""
    said = []
    for row in rows:
        if row["suite"] == "vocoders" and "ratio_to_best_peer" in row:
            name = f"{NAMES.get(row['network'], row['network'])}, {row['precision']}, {_threads(row)}"
            fast = f"{speed(row['times_real_time'])} times real time"
            said.append(f"{name}: {fast}, {ratio(row['ratio_to_best_peer'])} times {row['best_peer']}")
        elif row["suite"] == "busy" and row["engine"] == "fastvoc" and row["situation"] != "quiet":
            name = f"{NAMES.get(row['network'], row['network'])}, {row['precision']}, {_threads(row)}"
            where = "beside another process" if row["situation"] == "beside" else f"behind {row['situation']}"
            said.append(f"{name}: {percent(row['share_of_quiet'])} of its speed {where}")
        elif row["suite"] == "streaming":
            name = f"{NAMES.get(row['model'], row['model'])}, stream of {row['frames']} frames at once"
            middle = row["milliseconds_p50_p95_p99"][0]
            said.append(f"{name}: {middle:.2f} ms, {ratio(row['ratio'])} times the fastest without a stream")
        elif row["suite"] == "ops" and row["backend"] != "reference":
            said.append(f"{row['op']}, {row['case']}, {row['dtype']}: {ratio(row['ratio'])} times PyTorch")
    steps = of(rows, "training")
    for ours in (row for row in steps if row["maker"].startswith("fastvoc")):
        others = [
            row for row in steps if not row["maker"].startswith("fastvoc") and row["precision"] == ours["precision"]
        ]
        if others:
            best = min(others, key=lambda row: row["milliseconds"])
            name = f"{NAMES.get(ours['recipe'], ours['recipe'])}, training step, {ours['precision']}"
            said.append(f"{name}: {ratio(best['milliseconds'] / ours['milliseconds'])} times {best['maker']}")
    return said


def vocoders(rows: list[Row]) -> str:
    """Write whole vocoders in times real time."""
    rows = of(rows, "vocoders")
    families = {name: kinds for name, kinds in FAMILIES.items() if any(row["engine"] in kinds for row in rows)}
    lines = []
    networks, precisions = list(NAMES), ["float32", "tf32", "bfloat16", "float16"]

    def place(item: tuple[tuple[Any, ...], list[Row]]) -> tuple[Any, ...]:
        device, network, kind, *others = item[0]
        return (device, networks.index(network), precisions.index(kind), *others)

    cases = groups(rows, "device", "network", "precision", "threads", "seconds", "batch")
    for _, case in sorted(cases.items(), key=place):
        ours = next((row for row in case if row["engine"] == "fastvoc"), None)
        if ours is None or "times_real_time" not in ours:
            continue
        best = ours.get("ratio_to_best_peer")
        lines.append(
            [
                NAMES.get(ours["network"], ours["network"]),
                ours["precision"],
                ours["threads"] if ours["kind"] == "cpu" else "GPU",
                f"{ours['seconds']:g}" + (f" × {ours['batch']}" if ours["batch"] > 1 else ""),
                f"**{speed(ours['times_real_time'])}**",
                *(_fastest(case, kinds) for kinds in families.values()),
                ratio(best),
                percent(ours["share_of_peak"]),
            ]
        )
    names = ["network", "precision", "threads", "seconds", "fastvoc", *families, "to the best peer", "of peak"]
    return markdown(names, lines)


def busy(rows: list[Row]) -> str:
    """Write vocoders on cores that others want: times real time alone, and what is left of it."""
    situations = {"ONNX Runtime": "behind ONNX Runtime", "OpenVINO": "behind OpenVINO", "beside": "beside a process"}
    lines = []
    cases = groups(of(rows, "busy"), "device", "network", "precision", "threads", "seconds", "engine")
    for (_, network, kind, threads, length, engine), case in cases.items():
        made = {row["situation"]: row for row in case}
        left = [percent(made[name]["share_of_quiet"]) if name in made else "–" for name in situations]
        what = [NAMES.get(network, network), kind, threads, f"{length:g}", engine]
        lines.append([*what, speed(made["quiet"]["times_real_time"]), *left])
    return markdown(["network", "precision", "threads", "seconds", "engine", "alone", *situations.values()], lines)


def headline(rows: list[Row]) -> str:
    """Write the first figures: ours as a graph alone and as a user calls it, beside each peer, in milliseconds."""
    engines = {
        "eager": "PyTorch, narrow weights",
        "channels-last": "PyTorch, channels-last",
        "CUDA graph": "PyTorch, CUDA graph",
        "max-autotune": "torch.compile, max-autotune",
    }
    lines = []
    cases = groups(of(rows, "headline"), "device", "network", "precision", "batch", "frames")
    for (_, network, precision, batch, frames), case in cases.items():
        found = {row["engine"]: row for row in reversed(case)}
        ours, replay = found["fastvoc"], found.get("fastvoc, replay")
        peers = [found[name]["milliseconds"] for name in engines.values() if "milliseconds" in found.get(name, {})]
        lines.append(
            [
                NAMES.get(network, network),
                precision,
                f"{batch} × {frames}",
                f"{replay['milliseconds']:.3f}" if replay else "–",
                f"{ours['milliseconds']:.3f}",
                f"**{speed(ours['times_real_time'])}**",
                *(_milliseconds(found.get(name)) for name in engines.values()),
                ratio(min(peers) / ours["milliseconds"] if peers else None),
                percent((replay or ours)["share_of_peak"]),
            ]
        )
    names = ["network", "precision", "frames", "replay, ms", "vocoder(mel), ms", "times real time"]
    return markdown([*names, *(f"{name}, ms" for name in engines), "to the best", "of peak"], lines)


def left_out(rows: list[Row]) -> str:
    """Write which engines were not timed, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in of(rows, "vocoders"):
        if "left_out" in row:
            reasons.setdefault((row["engine"], row["left_out"]), []).append(NAMES.get(row["network"], row["network"]))
    lines = [[engine, ", ".join(dict.fromkeys(names)), why] for (engine, why), names in reasons.items()]
    return markdown(["not timed", "on", "because"], lines)


def operators(rows: list[Row]) -> str:
    """Write operators in microseconds."""
    best = {}
    for key, same in groups(of(rows, "ops"), "device", "op", "case", "dtype", "threads").items():
        best[key] = min(same, key=lambda row: row["microseconds"])  # of the two memory orders
    names = ["operator", "layer", "dtype", "µs", "PyTorch, µs", "ratio", "GFLOP/s", "of arithmetic", "of bandwidth"]
    made = groups(best.values(), "device")
    written = []
    for (device,), mine in made.items():
        lines = [
            [
                row["op"],
                row["case"],
                row["dtype"],
                f"{row['microseconds']:,.0f}",
                f"{row['torch_microseconds']:,.0f}",
                "the same" if row["backend"] == "reference" else ratio(row["ratio"]),
                f"{row['gflops']:,.0f}",
                percent(row["share_of_arithmetic"]),
                percent(row["share_of_bandwidth"]),
            ]
            for row in mine
        ]
        written.append((f"{device}:\n\n" if len(made) > 1 else "") + markdown(names, lines))
    return "\n\n".join(written)


def kernels(rows: list[Row]) -> str:
    """Write the kernels of plans as shares of the core's own multiply-adds."""
    lines = []
    cases = groups(of(rows, "kernels"), "device", "isa", "precision", "method", "channels")
    for (_, isa, kind, method, channels), case in cases.items():
        shares = {row["taps"]: percent(row["share_of_arithmetic"]) for row in case}
        ceiling = f"{mean(row['ceiling_gflops'] for row in case):,.0f}"
        lines.append([isa, kind, method, channels, *(shares.get(taps, "") for taps in (3, 7, 11)), ceiling])
    return markdown(
        ["instructions", "precision", "method", "channels", "3 taps", "7 taps", "11 taps", "ceiling, GFLOP/s"], lines
    )


def voices(rows: list[Row]) -> str:
    """Write what a sentence takes and the delay until its first sound: of one thread the processor's time."""
    lines = []
    cases = groups(of(rows, "voices"), "device", "voice", "threads")
    for (_, _, threads), case in sorted(cases.items(), key=lambda item: str(item[0])):
        of_it = "processor_milliseconds" if threads == 1 else "milliseconds"
        peer = min(row[of_it] for row in case if not row["maker"].startswith("fastvoc"))
        for row in case:
            ours = row["maker"].startswith("fastvoc")
            lines.append(
                [
                    row["voice"],
                    row["maker"],
                    row["threads"],
                    f"{row[of_it]:.0f}",
                    speed(row["times_real_time"]),
                    ratio(peer / row[of_it]) if ours else "",
                    f"{row[f'first_{of_it}']:.0f}",
                    row["megabytes"],
                ]
            )
    names = ["voice", "maker", "threads", "whole, ms", "times real time", "to the best peer", "first sound, ms", "MB"]
    return markdown(names, lines)


def voice_quality(rows: list[Row]) -> str:
    """Write what is heard of a voice's precisions."""

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    lines = [
        [
            row["precision"],
            row["layers_in_int8"] or "",
            number(row["snr_to_float32"], 1),
            number(row["pesq_to_float32"], 2),
            number(row["distill_mos"], 2),
            number(row.get("times_real_time"), 0),
        ]
        for row in of(rows, "voice-quality")
        if "left_out" not in row
    ]
    titles = ["decoder", "layers in 8 bits", "dB, worst", "PESQ against float32", "DistillMOS", "times real time"]
    return markdown(titles, lines)


def autoregressive(rows: list[Row]) -> str:
    """Write samples per second of all streams together, and how fast each of them is."""
    lines = []
    # rows of the first version have no engine
    made = [row for row in of(rows, "autoregressive") if "engine" in row]
    for case in groups(made, "device", "network", "batch", "threads").values():
        peers = {row["engine"]: row["samples_per_second"] for row in case if row["engine"] != "fastvoc"}
        lines += [
            [
                NAMES.get(row["network"], row["network"]),
                "GPU" if row["kind"] == "cuda" else row["threads"],
                row["batch"],
                row["precision"],
                f"**{_hundreds(row['samples_per_second'])}**",
                _share(row["times_real_time_each"]),
                *(_hundreds(peers[name]) if name in peers else "–" for name in ("PyTorch", "ONNX Runtime")),
                ratio(row.get("ratio_to_pytorch"), 1),
            ]
            for row in case
            if row["engine"] == "fastvoc"
        ]
    names = ["network", "threads", "streams", "precision", "samples/s", "times real time, each"]
    return markdown([*names, "PyTorch", "ONNX Runtime", "to PyTorch"], lines)


def recipes(rows: list[Row]) -> str:
    """Write what recipes reach in equal times."""
    measures = ["mel_l1", "mr_stft", "pesq", "periodicity", "voiced_f1"]
    lines = [
        [row["recipe"], row["minutes"], row["steps"], *(f"{row[measure]:.3f}" for measure in measures)]
        for row in sorted(of(rows, "recipes"), key=lambda row: (row["device"], row["minutes"]))
    ]
    return markdown(["recipe", "minutes", "steps", "mel L1", "MR-STFT", "PESQ", "periodicity", "V/UV F1"], lines)


def trials(rows: list[Row]) -> str:
    """Write what is reached with each switch of a recipe flipped, and which of it seeds do not explain."""
    lines = []
    for _, mine in sorted(groups(of(rows, "trials"), "device").items()):
        last = [row for row in mine if row["minutes"] == max(row["minutes"] for row in mine)]
        seeds = [row for row in last if row["trial"].startswith("the recipe")]
        for row in last:
            values = [f"{row[measure]:.3f}" for measure in _TRIED]
            said = "" if row in seeds else _beyond(row, seeds)
            lines.append([row["trial"], row["minutes"], row["steps"], *values, said])
    return markdown(["trial", "minutes", "steps", *_TRIED.values(), "beyond seeds"], lines)


_TRIED = {
    "mel_l1": "mel L1",
    "mr_stft": "MR-STFT",
    "pesq": "PESQ",
    "periodicity": "periodicity",
    "quiet_mel_l1": "quiet mel L1",
    "smoothed_mel_l1": "smoothed mel L1",
}


def _beyond(row: Row, seeds: list[Row]) -> str:
    """Say in which measures a row is further from the mean of the seeds than these are from each other."""
    found: dict[str, list[str]] = {"better": [], "worse": []}
    for measure, name in _TRIED.items():
        values = [seed[measure] for seed in seeds]
        gain = (row[measure] - mean(values)) * (1 if measure == "pesq" else -1)
        if abs(gain) > max(values) - min(values):
            found["better" if gain > 0 else "worse"].append(name)
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in found.items() if names) or "no difference"


def training(rows: list[Row]) -> str:
    """Write training steps in seconds, beside the peers of the same precision."""
    lines = []
    cases = groups(of(rows, "training"), "device", "recipe", "precision", "threads", "batch", "segment")
    for (_, recipe, precision, threads, batch, segment), case in cases.items():
        ours = next((row for row in case if row["maker"].startswith("fastvoc")), None)
        for row in case:
            if ours is None or row is ours:
                continue
            pair = [f"{one['milliseconds'] / 1e3:.2f}" for one in (ours, row)]
            relation = ratio(row["milliseconds"] / ours["milliseconds"])
            memory = [f"{one['peak_gbytes']:.1f}" if one["peak_gbytes"] else "–" for one in (ours, row)]
            step = f"{batch} × {segment}"
            what = [NAMES.get(recipe, recipe), precision, threads, step]
            lines.append([*what, row["maker"], *pair, relation, *memory])
    what = ["network", "precision", "threads", "samples"]
    return markdown([*what, "peer", "fastvoc, s", "peer, s", "ratio", "fastvoc, GB", "peer, GB"], lines)


def streaming(rows: list[Row]) -> str:
    """Write chunks of a stream in milliseconds."""
    lines = [
        [
            NAMES.get(row["model"], row["model"]),
            row["frames"],
            *(f"{value:.2f}" for value in row["milliseconds_p50_p95_p99"]),
            f"{row['overlap_milliseconds_p50_p95_p99'][0]:.2f}",
            ratio(row["ratio"]),
            f"{row['milliseconds_of_sound']:.0f}",
            row.get("frames_to_first_sound", ""),
            row.get("first_sound_milliseconds", ""),
        ]
        for row in of(rows, "streaming")
    ]
    names = ["network", "frames in a chunk", "ms, median", "95 %", "99 %", "overlapping, ms", "ratio", "ms of sound"]
    return markdown([*names, "frames to the first sound", "ms for them"], lines)


def processes(rows: list[Row]) -> str:
    """Write start-up, memory and files."""
    lines = []
    for case in groups(of(rows, "processes"), "device", "network", "engine", "precision", "threads").values():
        short, long = (next((row for row in case if row["seconds"] == length), None) for length in (1, 10))
        if short is None:
            continue
        start = [f"{short['import_seconds']:.2f}", f"{short['first_sample_seconds']:.2f}"]
        memory = [f"{row['peak_mbytes']:.0f}" if row else "–" for row in (short, long)]
        name = NAMES.get(short["network"], short["network"])
        lines.append([name, short["engine"], short["precision"], *start, *memory, f"{short['file_mbytes']:.1f}"])
    names = ["network", "engine", "precision", "import, s", "first sample, s", "MB for 1 s", "MB for 10 s", "file, MB"]
    return markdown(names, lines)


def scaling(rows: list[Row]) -> str:
    """Write what a second of sound costs."""
    lines = [
        [
            row["axis"],
            NAMES.get(row["network"], row["network"]),
            row["engine"],
            f"{row['seconds']:g}",
            row["batch"],
            row["threads"],
            f"{row['milliseconds_per_second']:.1f}",
            f"{row['peak_mbytes']:.0f}" if "peak_mbytes" in row else "",
        ]
        for row in of(rows, "scaling")
    ]
    return markdown(["along", "network", "engine", "seconds", "batch", "threads", "ms per second", "MB"], lines)


def quality(rows: list[Row]) -> str:
    """Write how near to speech, as the mean of clips."""
    measures = ["mel_l1", "mel_l1_whole_range", "multi_resolution_stft", "pesq", "stoi"]
    clips = [row for row in of(rows, "quality") if "clip" in row]
    lines = []
    for (_, maker), same in groups(clips, "device", "maker").items():
        lines.append([maker, *(f"{mean(row[measure] for row in same):.3f}" for measure in measures)])
    return markdown(["maker", "mel L1", "mel L1, whole range", "MR-STFT", "PESQ", "STOI"], lines)


def precision(rows: list[Row]) -> str:
    """Write what precisions and backends change."""
    lines = []
    for (_, network, maker), same in groups(of(rows, "precision"), "device", "network", "maker").items():
        changes = [
            f"{mean(row[key] for row in same):+.4f}" if key in same[0] else ""
            for key in ("pesq_change", "mel_l1_change")
        ]
        lines.append([NAMES.get(network, network), maker, f"{min(row['snr_db'] for row in same):.1f}", *changes])
    return markdown(["network", "computed in", "SNR to float64, dB", "change of PESQ", "change of mel L1"], lines)


def accelerated(rows: list[Row]) -> str:
    """Write the official networks in milliseconds, as they are and accelerated."""
    lines = [
        [
            NAMES.get(row["network"], row["network"]),
            row["threads"] if row["kind"] == "cpu" else "GPU",
            row["backend"],
            f"{row['plain_milliseconds']:.1f}",
            f"{row['milliseconds']:.1f}",
            ratio(row["ratio"]),
        ]
        for row in sorted(of(rows, "accelerated"), key=lambda row: (row["device"], row["network"], row["threads"]))
    ]
    return markdown(["network", "threads", "runs by", "PyTorch, ms", "accelerated, ms", "ratio"], lines)


def host_time(rows: list[Row]) -> str:
    """Write what the host does for operators of a GPU, in microseconds."""
    lines = [
        [
            row["op"],
            row["backend"],
            row["driver"],
            *(
                f"{row[f'{name}_microseconds']:.0f}"
                for name in ("forward", "step", "step_described_anew", "plain_forward", "plain_step")
            ),
        ]
        for row in sorted(of(rows, "host-time"), key=lambda row: (row["device"], row["op"], row["backend"]))
    ]
    names = ["operator", "backend", "driver", "forward, µs", "and backward, µs", "described anew, µs"]
    return markdown([*names, "PyTorch, forward, µs", "PyTorch, and backward, µs"], lines)


def default(rows: list[Row]) -> str:
    """Write the vocoder that comes with the package beside its definition, by the clock and by processor time."""
    lines = [
        [
            f"{row['seconds']:g}",
            row["threads"],
            f"{row['plain_milliseconds']:.1f}",
            f"{row['milliseconds']:.1f}",
            ratio(row["ratio"]),
            f"{row['plain_processor_milliseconds']:.1f}",
            f"{row['processor_milliseconds']:.1f}",
            ratio(row["ratio_of_processor_time"]),
        ]
        for row in sorted(of(rows, "default"), key=lambda row: (row["device"], row["threads"], row["seconds"]))
    ]
    names = ["seconds", "threads", "PyTorch, ms", "fastvoc, ms", "ratio"]
    return markdown([*names, "PyTorch, ms of processors", "fastvoc, ms of processors", "ratio of those"], lines)


def speed(value: float) -> str:
    """Write times real time to three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _share(value: float) -> str:
    """Write times real time, of which there may be few hundredths, to two digits or three."""
    return speed(value) if value >= 0.1 else f"{value:.2g}"


def _hundreds(value: float) -> str:
    """Write samples per second to three digits or so."""
    return f"{value:,.0f}" if value < 1000 else f"{round(value, -2):,.0f}"


def percent(share: float) -> str:
    """Write a share as a whole percentage."""
    return f"{100 * share:.0f} %"


def markdown(names: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Write a table, or nothing if there are no lines."""
    if not lines:
        return ""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [names, ["---"] * len(names), *lines])


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "accelerated": accelerated,
    "default": default,
    "headline": headline,
    "host-time": host_time,
    "vocoders": vocoders,
    "busy": busy,
    "left-out": left_out,
    "operators": operators,
    "kernels": kernels,
    "training": training,
    "autoregressive": autoregressive,
    "recipes": recipes,
    "trials": trials,
    "streaming": streaming,
    "processes": processes,
    "scaling": scaling,
    "quality": quality,
    "precision": precision,
    "voices": voices,
    "voice-quality": voice_quality,
}
"""Section → what writes it."""


def _threads(row: Row) -> str:
    if row["kind"] != "cpu":
        return "GPU"
    return f"{row['threads']} thread{'s'[: row['threads'] - 1]}"


def _milliseconds(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row['milliseconds']:.3f}" if "milliseconds" in row else "wrong" if "off by" in row["left_out"] else "–"


def _fastest(case: list[Row], kinds: Sequence[str]) -> str:
    speeds = [row["times_real_time"] for row in case if row["engine"] in kinds and "times_real_time" in row]
    if speeds:
        return speed(max(speeds))
    off = any("off by" in row.get("left_out", "") for row in case if row["engine"] in kinds)
    return "wrong" if off else "–"

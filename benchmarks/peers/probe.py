"""One engine in a process of its own, started as a server would: what it costs to begin, and how much memory it takes.

`python -m benchmarks.peers.probe` is started by `benchmarks/test_processes.py` and prints a line of JSON. It imports
nothing that the engine does not.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

RUNS = 3


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Start an engine, run it, and report.

    Parameters
    ----------
    request : dict
        ``engine``, ``files``, ``mel`` (a file), ``precision``, ``threads``, ``device``, the modules to ``import``,
        and ``begun``: when the parent started this process, by `time.monotonic`.

    Returns
    -------
    dict
        ``import_seconds`` since the process began, ``first_sample_seconds`` since it began, with the weights loaded and
        a wave made, and ``peak_mbytes`` that calls hold beyond what the imports did.
    """
    import numpy as np

    for name in request["import"]:
        __import__(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(request["threads"])
    mel = np.load(request["mel"])
    imported = time.monotonic()

    from benchmarks.peers.engines import ENGINES, Setting

    bare = _status("VmRSS")
    setting = Setting(
        files=Path(request["files"]),
        mel=mel,
        device=request["device"],
        precision=request["precision"],
        threads=request["threads"],
    )
    run = ENGINES[request["engine"]].start(setting)
    run()
    if request["device"] == "cuda":
        sys.modules["torch"].cuda.synchronize()
    sounded = time.monotonic()
    peak, of = _peak_of_calls(run, bare, request["device"])
    return {
        "import_seconds": round(imported - request["begun"], 3),
        "first_sample_seconds": round(sounded - request["begun"], 3),
        "peak_mbytes": peak,
        "peak_of": of,
    }


def stream(request: dict[str, Any]) -> dict[str, Any]:
    """Push a mel through a stream, chunk after chunk, and report how much memory that took.

    Parameters
    ----------
    request : dict
        ``files``, ``seconds`` of sound, ``frames`` of a chunk, ``threads``.
    """
    import torch

    from benchmarks.measuring.networks import MEL, frames_of, some_mel
    from fastvoc import Vocoder

    torch.set_num_threads(request["threads"])
    vocoder = Vocoder.from_pretrained(Path(request["files"]) / "fastvoc")
    chunk = some_mel(request["frames"])[0]
    streamer = vocoder.streamer()
    streamer.push(chunk)
    bare, begin, samples = _status("VmRSS"), time.monotonic(), 0
    for _ in range(frames_of(request["seconds"]) // request["frames"]):
        samples += len(streamer.push(chunk))
    taken = time.monotonic() - begin
    return {
        "seconds": samples / MEL.sample_rate,
        "cost": taken / (samples / MEL.sample_rate),
        "peak_mbytes": round((_status("VmHWM") - bare) / 1e6, 1),
    }


def _peak_of_calls(run: Any, bare: int, device: str) -> tuple[float, str]:
    """Return megabytes beyond the bare process, and whether they are of the calls or of the start as well."""
    if device == "cuda":
        cuda = sys.modules["torch"].cuda
        cuda.reset_peak_memory_stats()
        run()
        return round(cuda.max_memory_allocated() / 1e6, 1), "calls, on the device"
    forget = Path("/proc/self/clear_refs")
    try:
        forget.write_text("5", encoding="ascii")  # forget the high-water mark of resident memory
        of = "calls"
    except OSError:
        of = "start and calls"
    for _ in range(RUNS):
        run()
    return round((_status("VmHWM") - bare) / 1e6, 1), of


def _status(name: str) -> int:
    """Return a figure of this process's memory in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines[name].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps((stream if asked["engine"] == "stream" else main)(asked)))

"""The kernels in which a vocoder spends most of its time on a GPU, for a profiler that looks at few of them.

``python -m benchmarks.hottest hifigan-v1 --count 3`` prints their names, and which share of the time each one takes;
``ncu --kernel-name "regex:^(a|b|c)$" python -m benchmarks.hottest hifigan-v1 --runs 2`` then looks at them.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measuring.networks import NETWORKS, seeded_vocoder, some_mel


def main() -> None:
    """Run a vocoder; print its hottest kernels if it was asked for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--frames", type=int, default=86, help="of the mel; 86 are a second")
    parser.add_argument("--dtype", default="float16", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--backend", default=None)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--count", type=int, default=0, help="how many kernels to print")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    vocoder = seeded_vocoder(NETWORKS[arguments.network], device="cuda", dtype=dtype, backend=arguments.backend)
    mel = some_mel(arguments.frames).to("cuda")
    vocoder(mel)

    def run() -> None:
        for _ in range(arguments.runs):
            vocoder(mel)
        torch.cuda.synchronize()

    if not arguments.count:
        run()
        return
    times = durations(run)
    for name, time in times.most_common(arguments.count):
        print(f"{name}\t{100 * time / times.total():.0f} %")


def durations(run: Callable[[], Any]) -> Counter[str]:
    """Return the microseconds of each kernel, by its name without namespaces, templates and arguments."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as measured:
        run()
    times: Counter[str] = Counter()
    for event in measured.key_averages():
        words = re.findall(r"\w+", re.split(r"[<(]", event.key.replace("(anonymous namespace)::", ""))[0])
        times[words[-1] if words else event.key] += round(event.self_device_time_total)
    return times


if __name__ == "__main__":
    main()

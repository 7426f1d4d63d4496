"""Latency per chunk of a stream: remembering rows against computing overlaps again, in turn, in one process.

Both run the same operators on the same mel. A row is only written for streams that give the samples of the whole.
`pytest benchmarks/test_streaming.py --results benchmarks/results` keeps the rows; `--rounds` is the number of chunks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastvoc.engine import Line
from fastvoc.engine.parts import Memory, Overlap, Shapes
from fastvoc.models import GriffinLimNetConfig, hifigan, melgan
from fastvoc.ops import last_backends

GENERATORS: dict[str, Any] = {
    "hifigan-v2": hifigan.V2,
    "melgan": melgan.DESCRIPT,
    "griffin-lim-net": GriffinLimNetConfig(),
}
SAMPLE_RATE = 22050


@pytest.mark.parametrize("frames", [1, 4, 16, 64])
@pytest.mark.parametrize("name", GENERATORS)
def test_chunk(
    name: str, frames: int, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest, benchmark: Any
) -> None:
    torch.manual_seed(0)
    generator = GENERATORS[name].build().eval().requires_grad_(False).to(device)
    line, shapes = Line(generator), Shapes()
    overlap = Overlap(shapes, generator)
    chunks = [torch.randn(1, generator.mel_bands, frames, device=device) - 5 for _ in range(8)]

    def again(memory: Memory, mel: Tensor, last: bool) -> Tensor:
        return overlap(memory, mel, last)[:, 0]

    def fresh() -> tuple[Memory, Memory]:
        return line.start(1), [torch.zeros(1, *shape, device=device) for shape in shapes]

    with torch.inference_mode():
        whole = generator(torch.cat(chunks, dim=-1))[:, 0]
        # two sums in single precision, some 30 layers; Griffin-Lim amplifies what is left
        allowed = (0.1 if name == "griffin-lim-net" else 1e-5) * float(whole.abs().max())
        for run, memory in zip((line.run, again), fresh(), strict=True):
            pieces = [run(memory, chunk, chunk is chunks[-1]) for chunk in chunks]
            off = float((torch.cat(pieces, dim=-1) - whole).abs().max())
            assert off <= allowed, f"off by {off:.2e}; {allowed:.2e} is allowed: no number for a wrong result"

        remembering, recomputing = fresh()
        past = torch.randn(1, generator.mel_bands, sum(generator.receptive_field) + 1, device=device) - 5
        for run, memory in ((line.run, remembering), (again, recomputing)):
            run(memory, past, False)
            run(memory, chunks[0], False)
        seconds: list[tuple[float, float]] = []
        for n in range(4 * request.config.getoption("--rounds")):
            chunk = chunks[n % len(chunks)]
            ours = seconds(lambda chunk=chunk: line.run(remembering, chunk, False), device)
            seconds.append((ours, seconds(lambda chunk=chunk: again(recomputing, chunk, False), device)))
        benchmark.pedantic(lambda: line.run(remembering, chunks[0], False), rounds=3)

    ours_ms, theirs_ms = np.percentile(np.array(seconds) * 1e3, [50, 95, 99], axis=0).T.round(3).tolist()
    sound = frames * generator.hop / SAMPLE_RATE * 1e3
    row = {
        "suite": "streaming",
        "model": name,
        "frames": frames,
        "backend": last_backends()["conv1d"],
        "milliseconds_p50_p95_p99": ours_ms,
        "overlap_milliseconds_p50_p95_p99": theirs_ms,
        "ratio": round(theirs_ms[0] / ours_ms[0], 2),
        "milliseconds_of_sound": round(sound, 2),
        "times_real_time": round(sound / ours_ms[0], 2),
    }
    rows.append(row)
    benchmark.extra_info.update(row)

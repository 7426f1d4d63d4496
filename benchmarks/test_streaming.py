"""Latency per chunk of a stream, in turn, in one process: what remembers, and what computes overlaps again.

Ours is what `Vocoder.streamer` gives, as a user pushes. The others run on each chunk together with all frames that
reach into it, once with the same operators and once in plain PyTorch, which is what a vocoder without streams has to
do. A row is only written for streams that give the samples of the whole.
`pytest benchmarks/test_streaming.py --results benchmarks/results` keeps the rows; there are four chunks to a round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.measuring.networks import NETWORKS, runs_on, seeded_vocoder, some_mel
from benchmarks.measuring.stopwatch import interleaved, seconds
from benchmarks.peers.plain import PlainGenerator
from fastvoc import Vocoder
from fastvoc.engine import Stream
from fastvoc.graph import INPUT, Graph, Opaque

CHUNKS = 8


@pytest.mark.parametrize("frames", [1, 4, 16, 64])
@pytest.mark.parametrize("name", [*NETWORKS, "griffin-lim-net"])
def test_chunk(
    name: str, frames: int, device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest, benchmark: Any
) -> None:
    vocoder = seeded_vocoder(NETWORKS[name], device=device) if name in NETWORKS else _default(device)
    generator = vocoder.generator
    past = sum(vocoder.receptive_field) + 1
    mel = some_mel(past + CHUNKS * frames, device=device)[0]
    chunks = list(mel[:, past:].split(frames, dim=1))
    makers: dict[str, Callable[[Tensor], Tensor]] = {"overlap": lambda mel: generator(mel)[:, 0]}
    if name in NETWORKS:
        makers["plain"] = PlainGenerator(generator).to(device)

    with torch.inference_mode():
        whole = vocoder(mel)
        # two sums in single precision, some 30 layers; Griffin-Lim amplifies what is left
        allowed = (0.1 if name == "griffin-lim-net" else 1e-5) * float(whole.abs().max())
        streams = {"ours": _Stream(vocoder)} | {key: _Overlapping(vocoder, make) for key, make in makers.items()}
        for stream in streams.values():
            pieces = [stream.push(mel[:, :past]), *(stream.push(chunk) for chunk in chunks), stream.flush()]
            off = float((torch.cat(pieces) - whole).abs().max())
            assert off <= allowed, f"off by {off:.2e}; {allowed:.2e} is allowed: no number for a wrong result"
            stream.begin()
            stream.push(mel[:, :past])

        position = dict.fromkeys(streams, 0)

        def next_chunk(key: str) -> None:
            position[key] += 1
            streams[key].push(chunks[position[key] % CHUNKS])

        rounds, budget = 4 * request.config.getoption("--rounds"), request.config.getoption("--budget")
        runs = [lambda key=key: next_chunk(key) for key in streams]
        for run in runs:
            run()
        taken = dict(zip(streams, interleaved(runs, device, rounds=rounds, budget=budget), strict=True))
        firsts = [seconds(lambda: _first_sound(vocoder, mel, frames), device) for _ in range(5)]
        benchmark.pedantic(runs[0], rounds=3)

    milliseconds = {
        key: [round(float(value), 3) for value in np.percentile(np.array(column) * 1e3, [50, 95, 99])]
        for key, column in taken.items()
    }
    ours, overlap = milliseconds["ours"], milliseconds["overlap"]
    sound = frames * vocoder.hop / vocoder.sample_rate * 1e3
    row = {
        "suite": "streaming",
        "model": name,
        "frames": frames,
        "backend": runs_on(vocoder),
        "chunks": len(taken["ours"]),
        "milliseconds_p50_p95_p99": ours,
        "overlap_milliseconds_p50_p95_p99": overlap,
        "plain_milliseconds_p50_p95_p99": milliseconds.get("plain"),
        "ratio": round(min(column[0] for key, column in milliseconds.items() if key != "ours") / ours[0], 2),
        "milliseconds_of_sound": round(sound, 2),
        "times_real_time": round(sound / ours[0], 2),
        "frames_to_first_sound": vocoder.streamer().latency + 1,
        "first_sound_milliseconds": round(float(np.median(firsts)) * 1e3, 2),
    }
    rows.append(row)
    benchmark.extra_info.update(row)


class _Stream:
    """A stream as a user has it."""

    def __init__(self, vocoder: Vocoder) -> None:
        self.streamer = vocoder.streamer()

    def begin(self) -> None:
        self.streamer.reset()

    def push(self, mel: Tensor) -> Tensor:
        return self.streamer.push(mel)

    def flush(self) -> Tensor:
        wave: Tensor = self.streamer.flush()
        return wave


class _Made(nn.Module):
    """A generator as far as overlapping needs one."""

    def __init__(self, vocoder: Vocoder, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.hop = vocoder.hop
        self.receptive_field = vocoder.receptive_field

    def needs(self, first: int, last: int) -> tuple[int, int]:
        past, future = self.receptive_field
        return first // self.hop - past, last // self.hop + future

    def forward(self, mel: Tensor) -> Tensor:
        return self.make(mel)[:, None]


class _Overlapping:
    """A generator that runs on each chunk and on all that reaches into it."""

    def __init__(self, vocoder: Vocoder, make: Callable[[Tensor], Tensor]) -> None:
        graph = Graph()
        graph.add(Opaque(_Made(vocoder, make)), INPUT)
        like = torch.zeros(1, vocoder.generator.mel_bands, 0, device=vocoder.device)
        self.stream = Stream(graph, hop=vocoder.hop, like=like)
        self.begin()

    def begin(self) -> None:
        self.memory = self.stream.start(1)

    def push(self, mel: Tensor) -> Tensor:
        return self.stream.advance(self.memory, mel[None], ended=False)[0]

    def flush(self) -> Tensor:
        return self.stream.advance(self.memory, self.stream.no_frames(1), ended=True)[0]


def _first_sound(vocoder: Vocoder, mel: Tensor, frames: int) -> None:
    """Begin a stream and push chunks until there is sound, as if all of them were there already."""
    streamer = vocoder.streamer()
    for chunk in mel.split(frames, dim=1):
        if len(streamer.push(chunk)):
            return


def _default(device: str) -> Vocoder:
    return Vocoder.from_pretrained(device=device)

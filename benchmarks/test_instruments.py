"""A note of four seconds by GANSynth: ours, and the original's arithmetic in plain PyTorch, in one process, in turn.

The original repeats each pixel four times, multiplies all nine taps, and keeps channel after channel. Both make the
same picture before anything is timed. Times are of the process, over all threads, and of the clock beside. Then our own
NSynth decodes a few samples, from which its time for four seconds follows: the paper's ratio to a WaveNet is 54,000 on
a GPU. `pytest benchmarks/test_instruments.py --results benchmarks/results` keeps the rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import Autoencoder, Instrument
from fastvoc.audio.instantaneous_frequency import denormalise, note_wave
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint, InstrumentConfig
from fastvoc.models import GANSynth, GANSynthConfig
from fastvoc.models.gansynth import SLOPE, normalise_pixels
from fastvoc.models.nsynth import H512_BO16

CODES = 1
"""Of NSynth, each of 512 samples: five seconds of a core."""


class PlainGANSynth(nn.Module):
    """The generator's arithmetic as the original does it, from the weights of ours."""

    def __init__(self, generator: GANSynth) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, pitch: Tensor) -> Tensor:
        """(B, latent) and (B,) → (B, 2, frames, bins)."""
        generator = self.generator
        note = F.one_hot(pitch, generator.config.pitches).to(latent)
        x = normalise_pixels(torch.cat([latent, note], dim=1)[..., None, None])
        for block in generator.blocks:
            if block.first is None:
                x = block.conv0(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            else:
                rows, columns = block.first
                x = block.conv0(F.pad(x, (columns - 1, columns - 1, rows - 1, rows - 1)))
            x = normalise_pixels(F.leaky_relu(x, SLOPE))
            x = normalise_pixels(F.leaky_relu(block.conv1(x), SLOPE))
        return torch.tanh(generator.blocks[-1].to_picture(x))


def test_a_note_of_four_seconds(
    device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest, benchmark: Any
) -> None:
    if device != "cpu":
        pytest.skip("compares times of a process")
    torch.manual_seed(0)
    config = InstrumentConfig(generator=GANSynthConfig())
    checkpoint = Checkpoint(config, config.generator.build().state_dict(), "a benchmark")
    threads = max(int(count) for count in request.config.getoption("--threads").split(","))
    torch.set_num_threads(threads)
    runs: dict[str, Callable[[], Tensor]] = {}
    pitch = torch.tensor([36])
    for kind in ("float32", "bfloat16"):
        ours = Instrument(checkpoint, dtype=kind)
        latent = ours.timbre(1)[None].to(ours.dtype)
        plain = PlainGANSynth(ours.generator)
        picture, expected = (network(latent, pitch).float() for network in (ours.generator, plain))
        error = float((picture - expected).abs().max())
        assert error < (1e-3 if kind == "float32" else 0.5), "another picture: no number for a wrong result"

        def originals(plain: PlainGANSynth = plain, latent: Tensor = latent) -> Tensor:
            with torch.no_grad():
                made = denormalise(plain(latent, pitch).float().permute(0, 2, 3, 1))
                return note_wave(made, config.spectrum, mel=config.mel, second=config.second)

        runs[kind] = lambda ours=ours: ours(60, seed=1)  # type: ignore[misc]
        runs[f"plain {kind}"] = originals
    taken: dict[str, list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(request.config.getoption("--rounds")):
        for key, run in runs.items():
            begin = time.process_time(), time.perf_counter()
            run()
            taken[key].append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
    benchmark.pedantic(runs["float32"], rounds=1)
    spent, passed = ({key: median(times[n] for times in values) for key, values in taken.items()} for n in (0, 1))
    seconds = nsynth_seconds(ours.samples)
    row = {
        "suite": "instruments",
        "network": "gansynth",
        "threads": threads,
        "cpu_milliseconds": {key: round(1e3 * value, 1) for key, value in spent.items()},
        "milliseconds": {key: round(1e3 * value, 1) for key, value in passed.items()},
        "ratio": round(spent["plain float32"] / spent["float32"], 2),
        "bfloat16_ratio": round(spent["plain bfloat16"] / spent["bfloat16"], 2),
        "nsynth_cpu_seconds": round(seconds),
        "ratio_to_nsynth": round(seconds / spent["float32"]),
    }
    rows.append(row)
    benchmark.extra_info.update(row)


def nsynth_seconds(samples: int) -> float:
    """Return the time of a process in which our NSynth makes so many samples, from a few of them."""
    checkpoint = Checkpoint(AutoencoderConfig(generator=H512_BO16), H512_BO16.build().state_dict(), "a benchmark")
    autoencoder = Autoencoder(checkpoint)
    code = torch.zeros(CODES, H512_BO16.code_channels)
    begin = time.process_time()
    made = autoencoder.decode(code, seed=1)
    return (time.process_time() - begin) * samples / made.shape[-1]

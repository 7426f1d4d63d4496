"""Train the vocoder that comes with the package: `python -m fastvoc.train.default --help`.

Its network corrects magnitudes, so it can be taught without making sound: a step compares spectra and never runs
Griffin-Lim, which comes in only when the result is judged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from fastvoc.audio import (
    CONVENTIONS,
    mel_l1,
    mel_spectrogram,
    mel_to_wave,
    multi_resolution_stft,
    pesq,
    read_audio,
)
from fastvoc.audio.mel import mel_filters
from fastvoc.checkpoints import VocoderConfig, save_native
from fastvoc.models import GriffinLimNet, GriffinLimNetConfig
from fastvoc.train.data import Segments

MEL = CONVENTIONS["hifigan"]
WHOLE_RANGE = CONVENTIONS["hifigan-loss"]  # up to half the sample rate: what the mel does not show must be right too


@dataclass
class Run:
    """Train the default vocoder, compare it with Griffin-Lim and write it."""

    speech: Path
    """Folder of .wav recordings; the last ones, by name, are held out."""
    out: Path
    """Folder for config.json and model.safetensors."""
    synthesised: Path | None = None
    """Folder of synthesised .wav speech; a second of it is drawn a third as often."""
    held_out: int = 4
    """Recordings of `speech` to judge the result by."""
    steps: int = 20_000
    """Optimiser steps."""
    batch: int = 16
    """Segments of 16384 samples per step."""
    learning_rate: float = 2e-3
    """At its highest, after 100 steps; it falls to 3 % of that along a cosine."""
    seed: int = 0
    """Of weights and data."""


def train(run: Run, console: Console) -> GriffinLimNet:
    """Teach the network the magnitudes."""
    torch.manual_seed(run.seed)
    clips = sorted(run.speech.glob("*.wav"))
    made = [] if run.synthesised is None else sorted(run.synthesised.glob("*.wav"))
    segments = Segments(
        [(clips[: len(clips) - run.held_out], 1.0), (made, 1 / 3)],
        sample_rate=MEL.sample_rate,
        samples=16384,
        speeds=(0.88, 1.13),
        seed=run.seed,
    )
    shown, whole = (torch.from_numpy(mel_filters(config)).float() for config in (MEL, WHOLE_RANGE))
    generator = GriffinLimNetConfig().build()
    generator.start_from(shown)
    optimiser = torch.optim.AdamW(generator.parameters(), lr=run.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / run.steps))),
    )
    mean = 0.0
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=run.steps)
        for step in range(1, run.steps + 1):
            wave = segments.batch(run.batch)
            target = magnitudes(wave)
            estimate = generator.magnitude(mel_spectrogram(wave, MEL))
            loss = distance(estimate, target, shown, whole)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(generator.parameters(), 2.0, error_if_nonfinite=True)
            optimiser.step()
            schedule.step()
            mean += loss.item() / 500
            progress.update(bar, advance=1, description=f"loss {loss.item():.3f}")
            if step % 500 == 0:
                console.print(f"step {step}: loss {mean:.4f}")
                mean = 0.0
    return generator.eval()


def magnitudes(wave: Tensor) -> Tensor:
    """Magnitudes on the frame grid of the mel: (B, T) → (B, fft_size // 2 + 1, frames)."""
    side = (MEL.fft_size - MEL.hop) // 2
    padded = F.pad(wave[:, None], (side, side), "reflect")[:, 0]
    window = torch.hann_window(MEL.fft_size)
    spectrum: Tensor = torch.stft(padded, MEL.fft_size, MEL.hop, window=window, center=False, return_complex=True)
    return spectrum.abs()


def distance(estimate: Tensor, target: Tensor, shown: Tensor, whole: Tensor) -> Tensor:
    """Log-magnitude distance, spectral convergence, and distances of the mels that two filter banks make."""
    convergence = torch.linalg.vector_norm(estimate - target) / torch.linalg.vector_norm(target)
    total: Tensor = (_log(estimate) - _log(target)).abs().mean() + convergence
    for filters in (shown, whole):
        total = total + 2 * (_log(filters @ estimate) - _log(filters @ target)).abs().mean()
    return total


def _log(magnitude: Tensor) -> Tensor:
    return magnitude.clamp(min=MEL.floor).log()


def judge(generator: GriffinLimNet, clips: list[Path], console: Console) -> None:
    """Print mean distances on held-out clips, beside Griffin-Lim's from the same mels."""
    rows: dict[str, list[list[float]]] = {"Griffin-Lim, 60 rounds": [], "this vocoder": []}
    for clip in clips:
        wave, _ = read_audio(clip, MEL.sample_rate)
        wave = wave[: len(wave) // MEL.hop * MEL.hop]
        mel = mel_spectrogram(wave, MEL)
        with torch.inference_mode():
            made = (mel_to_wave(mel, MEL), generator(mel[None])[0, 0])
        for row, other in zip(rows.values(), made, strict=True):
            convergence, log_magnitude = multi_resolution_stft(other, wave)
            mels = mel_l1(other, wave, MEL), mel_l1(other, wave, WHOLE_RANGE)
            row.append([float(x) for x in (*mels, convergence + log_magnitude)] + [pesq(other, wave, MEL.sample_rate)])
    table = Table("", "mel L1", "mel L1, whole range", "MR-STFT", "PESQ", title=f"mean of {len(clips)} clips")
    for name, values in rows.items():
        table.add_row(name, *(f"{mean:.3f}" for mean in torch.tensor(values).mean(dim=0).tolist()))
    console.print(table)


def main() -> None:
    """Train, judge and write."""
    run = tyro.cli(Run, prog="python -m fastvoc.train.default")
    console = Console()
    generator = train(run, console)
    # Half precision halves the file; the filter bank stays exact, as its triangles end in small numbers.
    weights = {name: value if name == "filters" else value.half() for name, value in generator.state_dict().items()}
    save_native(run.out, VocoderConfig(generator=generator.config, mel=MEL), weights)
    generator.load_state_dict(weights)
    judge(generator, sorted(run.speech.glob("*.wav"))[-run.held_out :], console)


if __name__ == "__main__":
    main()

"""`fastvoc demo`: the embedded vocoder on the embedded clip, and how fast published networks are here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import tyro

from fastvoc.cli.command import Command, choose_device, describe_limited
from fastvoc.cli.machine.bench import Bench
from fastvoc.cli.terminal import complain, show

if TYPE_CHECKING:
    from torch import Tensor

RUNS = 5
NETWORKS = ("hifigan-v1", "hifigan-v2", "hifigan-v3", "melgan")


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Turn a recording into its mel spectrogram and back into sound; write demo.wav and demo.png.

    Then published networks are measured beside plain PyTorch, for about ten seconds.

    Example: fastvoc demo --out /tmp
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path()
    """Folder for the two files, made if absent."""
    vocoder: Annotated[str, tyro.conf.arg(metavar="PATH")] = "default"
    """Folder or file of a vocoder in any format that fastvoc opens; "default" comes with the package."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one."""
    speeds: bool = True
    """Measure published networks, with random weights, at the end."""

    def run(self) -> int:
        """Vocode, measure, write, print."""
        import torch

        from fastvoc import Vocoder
        from fastvoc.audio import mel_l1, mel_to_wave, pesq, read_audio, write_audio
        from fastvoc.audio.mels.convention import as_mel_config
        from fastvoc.audio.picture import draw_comparison

        vocoder = Vocoder.from_pretrained(self.vocoder, device=choose_device(self.device))
        original, _ = read_audio(str(files("fastvoc") / "assets" / "demo.wav"), vocoder.sample_rate)
        convention = as_mel_config(vocoder.config.mel, "demo")
        mel = vocoder.mel(original)
        wave = vocoder(mel)
        times = []
        for _ in range(RUNS):
            begin = time.perf_counter()
            vocoder(mel)  # ends with a copy to the CPU, so it is done when it returns
            times.append(time.perf_counter() - begin)
        estimate = mel_to_wave(mel, convention)

        length = min(len(original), len(wave), len(estimate))
        original, wave, estimate = original[:length], wave[:length], estimate[:length]
        self.out.mkdir(parents=True, exist_ok=True)
        if limited := write_audio(self.out / "demo.wav", wave, vocoder.sample_rate):
            complain(f"{self.out / 'demo.wav'}: warning: {describe_limited(limited, len(wave))}")
        draw_comparison(self.out / "demo.png", {"original": original, "vocoder": wave}, convention)

        show("Operators", ("operator", "ran on", "why not on another"), _backends(str(vocoder.device)))
        seconds = length / vocoder.sample_rate
        count = torch.get_num_threads()
        threads = "1 thread" if count == 1 else f"{count} threads"
        where = threads if vocoder.device.type == "cpu" else str(vocoder.device)
        facts = [
            ("sound", f"{seconds:.2f} s at {vocoder.sample_rate} Hz"),
            ("speed", f"{seconds / median(times):.1f} times real time on {where} (median of {RUNS} runs)"),
            ("mel L1 to the original", _beside(wave, estimate, lambda x: float(mel_l1(x, original, convention)))),
            ("PESQ, of at most 4.64", _beside(wave, estimate, lambda x: pesq(x, original, convention.sample_rate))),
            ("written", f"{self.out / 'demo.wav'}, {self.out / 'demo.png'}"),
        ]
        show("Vocoder", ("", ""), facts)
        return Bench(networks=NETWORKS, rounds=RUNS, device=self.device).run() if self.speeds else 0


def _beside(wave: Tensor, estimate: Tensor, measure: Callable[[Tensor], float]) -> str:
    """Measure the vocoder and, as the baseline, Griffin-Lim; or say which package the measure needs."""
    try:
        return f"{measure(wave):.3f} (Griffin-Lim: {measure(estimate):.3f})"
    except ModuleNotFoundError as error:
        return str(error)


def _backends(device: str) -> list[tuple[str, str, str]]:
    """Say what ran each operator, and why the backends that would go before it did not."""
    from fastvoc.ops import OPS, last_backends

    rows = []
    for name, ran in last_backends().items():
        op = OPS[name]
        # the reasons are those of a small call of the same operator on the same device
        case = min((case for case in op.cases() if case.model), key=lambda case: case.flops(64), default=None)
        if case is None:  # an operator that others have defined
            continue
        reasons = op.explain(case.call(device=device, frames=64))
        before = list(reasons)[: list(reasons).index(ran)]
        why = "; ".join(f"{backend}: {reasons[backend]}" for backend in before if reasons[backend] is not None)
        rows.append((name, f"{ran} (made of the others)" if ran == "reference" and op.composed else ran, why))
    return rows

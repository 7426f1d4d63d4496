"""`fastvoc bench`: how fast vocoders are on this machine, beside plain PyTorch and the machines that were measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fastvoc.cli.command import Command, UsageError, choose_device
from fastvoc.cli.terminal import progress, show

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastvoc import Vocoder

NETWORKS = ("hifigan-v1", "hifigan-v2", "hifigan-v3", "melgan", "mb-melgan", "default")
"""The published sizes with random weights, which are as fast as any, and the vocoder that comes with the package."""

FACTOR = 8.0
"""How much farther than plain PyTorch a wave may be from double precision: two bits that the transforms of fast
convolution lose, and one by which a maximum over samples varies."""

GATE_FRAMES = 24


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure how fast vocoders are on this machine, beside plain PyTorch; the exit code is 1 if a wave is wrong.

    Example: fastvoc bench hifigan-v1 hifigan-v2 --compare
    """

    networks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK...")] = ()
    """Among hifigan-v1, hifigan-v2, hifigan-v3, melgan, mb-melgan and default, which comes with the package; all of
    them if none is named."""
    seconds: float = 1.0
    """Length of the sound, in seconds."""
    rounds: int = 7
    """Timed runs, fastvoc and PyTorch in turn; the median counts."""
    threads: int = 0
    """CPU threads; 0 leaves them as torch has them."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and arithmetic."""
    compare: bool = False
    """Show beside each speed the one that was measured for this version, and on which machine."""

    def run(self) -> int:
        """Measure, and print a table."""
        self._check()
        known = _measured() if self.compare else []

        import torch

        device, dtype = choose_device(self.device), getattr(torch, self.dtype)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            where = str(device) if device.type != "cpu" else _threads(torch.get_num_threads())
            rows, wrong = [], False
            for name in progress(self.networks or NETWORKS, "Measuring"):
                speeds = self._speeds(name, device, dtype)
                wrong = wrong or speeds is None
                rows.append(_row(name, speeds, self._nearest(known, name, device.type, torch.get_num_threads())))
        finally:
            torch.set_num_threads(before)
        columns = ["network", "fastvoc", "plain PyTorch", "ratio", *(["measured before", "on"] if self.compare else [])]
        show(f"Times real time, {self.seconds:g} s, {self.dtype}, {where}", columns, rows)
        return 1 if wrong else 0

    def _check(self) -> None:
        """Raise before any work if the options ask for something impossible."""
        unknown = [name for name in self.networks if name not in NETWORKS]
        if unknown:
            raise UsageError(f"{', '.join(unknown)}: is no network that is measured; known: {', '.join(NETWORKS)}")
        if self.seconds <= 0 or self.rounds < 1 or self.threads < 0:
            raise UsageError(
                f"--seconds {self.seconds:g} --rounds {self.rounds} --threads {self.threads}: seconds and rounds must "
                "be positive, threads not negative"
            )

    def _speeds(self, name: str, device: torch.device, dtype: torch.dtype) -> tuple[float, float] | None:
        """Return how many times real time ours and plain PyTorch are, or None if our wave is wrong."""
        import torch

        ours, plain, exact = (
            _open(name, device=device, dtype=kind, backend=backend)
            for kind, backend in ((dtype, None), (dtype, "reference"), (torch.float64, "reference"))
        )
        frames = max(GATE_FRAMES, round(self.seconds * ours.sample_rate / ours.hop))
        values = torch.randn(ours.config.mel.bands, frames, generator=torch.Generator().manual_seed(0))
        mel = (2 * values - 5).clamp(-11, 1).to(device)
        if not _right(ours, plain, exact, mel[:, :GATE_FRAMES]):
            return None
        for vocoder in (ours, plain):
            vocoder(mel)
        taken = [[_seconds(vocoder, mel) for vocoder in (ours, plain)] for _ in range(self.rounds)]
        sound = frames * ours.hop / ours.sample_rate
        fast, slow = (sound / median(column) for column in zip(*taken, strict=True))
        return fast, slow

    def _nearest(self, known: Sequence[dict[str, Any]], name: str, kind: str, threads: int) -> dict[str, Any] | None:
        """Find the measured speed of a network whose threads are nearest."""
        same = [row for row in known if (row["network"], row["precision"], row["kind"]) == (name, self.dtype, kind)]
        return min(same, key=lambda row: abs(row["threads"] - threads), default=None)


def _measured() -> list[dict[str, Any]]:
    """Read the speeds that came with this version."""
    path = files("fastvoc") / "assets" / "speeds.json"
    if not path.is_file():
        raise FileNotFoundError("--compare: no measured speeds came with this installation of fastvoc")
    return list(json.loads(path.read_text(encoding="utf-8")))


def _open(name: str, *, device: torch.device, dtype: torch.dtype, backend: str | None) -> Vocoder:
    """Build a vocoder, with the same weights at each call."""
    import torch

    from fastvoc import Vocoder
    from fastvoc.audio import CONVENTIONS
    from fastvoc.checkpoints import Checkpoint, VocoderConfig
    from fastvoc.models import hifigan, melgan

    if name == "default":
        return Vocoder.from_pretrained(device=device, dtype=dtype, backend=backend)
    presets: dict[str, Any] = {
        "hifigan-v1": hifigan.V1,
        "hifigan-v2": hifigan.V2,
        "hifigan-v3": hifigan.V3,
        "melgan": melgan.DESCRIPT,
        "mb-melgan": melgan.MULTI_BAND,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = presets[name].build().state_dict()
    config = VocoderConfig(generator=presets[name], mel=CONVENTIONS["hifigan"])
    return Vocoder(Checkpoint(config, weights, "random"), device=device, dtype=dtype, backend=backend)


def _right(ours: Vocoder, plain: Vocoder, exact: Vocoder, mel: Tensor) -> bool:
    """Whether our wave is as near to double precision as plain PyTorch's, but for what fast convolution loses."""
    import torch

    truth = exact(mel)
    off, allowed = (float((vocoder(mel).double() - truth).abs().max()) for vocoder in (ours, plain))
    smallest = float(truth.abs().max()) * torch.finfo(ours.dtype).eps
    return off <= FACTOR * allowed + smallest


def _seconds(vocoder: Vocoder, mel: Tensor) -> float:
    import torch

    begin = time.perf_counter()
    vocoder(mel)
    if mel.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _row(name: str, speeds: tuple[float, float] | None, measured: dict[str, Any] | None) -> tuple[object, ...]:
    then: tuple[object, ...] = ()
    if measured is not None:
        threads = f", {_threads(measured['threads'])}" if measured["kind"] == "cpu" else ""
        then = (f"{measured['fastvoc']:.1f}", f"{measured['device']}{threads}, {measured['date'][:10]}")
    if speeds is None:
        return (name, "WRONG", "", "", *then)
    return (name, f"{speeds[0]:.1f}", f"{speeds[1]:.1f}", f"{speeds[0] / speeds[1]:.2f}", *then)

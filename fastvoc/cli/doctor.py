"""`fastvoc doctor`: what runs on this machine, what does not, and why."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from fastvoc.cli.command import Command
from fastvoc.cli.terminal import show

if TYPE_CHECKING:
    from fastvoc.ops._op import Op

Row = tuple[object, ...]

FRAMES = 64
"""Length of the call on which each operator is tried."""

RUNS = 20


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Examine this installation; the exit code is 1 if an operator computes wrongly.

    Example: fastvoc doctor
    """

    def run(self) -> int:
        """Print the tables."""
        import torch

        from fastvoc.ops import OPS, _native, backends

        show("Machine", ("", ""), _machine())
        build = _native.build() or {"reason": "the native library was never built here"}
        facts = [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in build.items()]
        if _native.missing() is None:
            facts.append(("instruction sets here", ", ".join(_native.isas())))
        show("Native library", ("", ""), facts)
        show("CUDA kernels", ("", ""), _cuda_kernels())
        show("Backends", ("", ""), [(name, reason or "usable") for name, reason in backends().items()])
        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        rows = [_try(op, device) for op in OPS.values() for device in devices]
        columns = ("operator", "on", "ran on", "error", "allowed", "µs", "", "small call")
        show("Operators, float32 against float64", columns, rows)
        show("Optional packages", ("", ""), _extras())
        return 1 if any("WRONG" in row for row in rows) else 0


def _machine() -> list[Row]:
    import numpy
    import torch

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return [
        ("fastvoc", version("fastvoc")),
        ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, {torch.get_num_threads()} threads"),
        ("numpy", numpy.__version__),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("system", platform.platform()),
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("GPU", ", ".join(gpus) or "none that torch sees"),
    ]


def _processor() -> str:
    """Return the processor's name; Linux tells it only here."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", table.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if match:
            return match[1]
    return platform.processor() or platform.machine()


def _cuda_kernels() -> list[Row]:
    """Return where kernels for GPUs can come from, and for each GPU where they do, and why not from a better place."""
    import torch

    from fastvoc.ops import _native
    from fastvoc.ops._cuda import cache, image, nvrtc

    build = _native.build()
    architectures = ", ".join(f"sm_{name}" for name in build.get("cuda_architectures", ()))
    compiler = f"NVRTC {nvrtc.version()}, {nvrtc.where()}" if nvrtc.missing() is None else nvrtc.missing()
    rows: list[Row] = [
        ("in the package", f"{architectures}, by {build['cuda_compiler']}" if architectures else build.get("cuda")),
        ("compiled at first use", compiler),
        ("kept in", cache.writable() or cache.folder()),
    ]
    for number in range(torch.cuda.device_count() if torch.version.hip is None else 0):
        loaded = image.load(number)
        name = f"GPU {number}: {torch.cuda.get_device_name(number)}"
        rows.append((name, "none" if loaded.kernels is None else loaded.origin))
        rows.extend(("", f"because {reason}") for reason in loaded.reasons)
    return rows


def _try(op: Op, device: str) -> Row:
    """Run an operator on the cheapest shape of a published model."""
    import torch

    from fastvoc.ops._contract import errors

    case = min((case for case in op.cases() if case.model), key=lambda case: case.flops(FRAMES))
    args = case.arguments(device=device, frames=FRAMES)
    times = []
    with torch.inference_mode():
        for _ in range(RUNS):
            begin = time.perf_counter()
            got = op(*args)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        backend = op.last
        worst = max(errors(op, args, got), key=lambda pair: pair[0] - pair[1])
    verdict = "right" if worst[0] <= worst[1] else "WRONG"
    return (
        op.name,
        device,
        backend,
        f"{worst[0]:.1e}",
        f"{worst[1]:.1e}",
        f"{1e6 * median(times):.0f}",
        verdict,
        case.name,
    )


def _extras() -> list[Row]:
    """Return, for each optional package, its version or how to install it."""
    rows: list[Row] = []
    for requirement in requires("fastvoc") or []:
        match = re.match(r"([A-Za-z0-9._-]+).*;.*extra == ['\"](\w+)['\"]", requirement)
        if match is None or match[2] == "dev":
            continue
        package, extra = match[1], match[2]
        try:
            found = version(package)
        except PackageNotFoundError:
            found = f"not installed; pip install 'fastvoc[{extra}]'"
        rows.append((f"{package} ({extra})", found))
    return rows

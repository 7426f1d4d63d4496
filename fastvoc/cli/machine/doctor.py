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
from typing import TYPE_CHECKING, Any

from fastvoc.cli.command import Command
from fastvoc.cli.terminal import show

if TYPE_CHECKING:
    from fastvoc.ops.op import Op

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

        from fastvoc import native
        from fastvoc.ops import OPS, backends

        show("Machine", ("", ""), _machine())
        build = native.build() or {"reason": "the native library was never built here"}
        facts = [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in build.items()]
        if native.missing() is None:
            facts.append(("instruction sets here", ", ".join(native.isas())))
        show("Native library", ("", ""), facts)
        show("CUDA kernels", ("", ""), _cuda_kernels())
        show("Backends", ("", ""), [(name, reason or "usable") for name, reason in backends().items()])
        devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        tried = [op for op in OPS.values() if any(case.model for case in op.cases())]
        rows = [_try(op, device) for op in tried for device in devices]
        columns = ("operator", "on", "ran on", "error", "allowed", "µs", "", "small call")
        show("Operators, float32 against float64", columns, rows)
        show("Optional packages", ("", ""), _extras())
        return 1 if any("WRONG" in row for row in rows) else 0


def _machine() -> list[Row]:
    import numpy
    import torch

    gpus = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return [
        ("fastvoc", _version("fastvoc") or "from its sources, not installed"),
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

    from fastvoc import native
    from fastvoc.ops.cuda import cache, image, nvrtc

    build = native.build()
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


def _try(op: Op[Any], device: str) -> Row:
    """Run an operator on the cheapest shape of a published model."""
    import torch

    from fastvoc.ops.contract import backend_of, errors

    case = min((case for case in op.cases() if case.model), key=lambda case: case.flops(FRAMES))
    call = case.call(device=device, frames=FRAMES)
    times = []
    with torch.inference_mode():
        for _ in range(RUNS):
            begin = time.perf_counter()
            got = op(call)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        backend = backend_of(op)
        worst = max(errors(call, got, backend), key=lambda pair: pair[0] - pair[1])
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
    if _version("fastvoc") is None:
        return [("unknown", "the package's metadata is made when it is installed")]
    rows: list[Row] = []
    for requirement in requires("fastvoc") or []:
        match = re.match(r"([A-Za-z0-9._-]+).*;.*extra == ['\"](\w+)['\"]", requirement)
        if match is None or match[2] == "dev":
            continue
        package, extra = match[1], match[2]
        found = _version(package) or f"not installed; pip install 'fastvoc[{extra}]'"
        rows.append((f"{package} ({extra})", found))
    return rows


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""The native library with its CUDA kernels compiled for the CPU, so that all floors run where there is no GPU."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CSRC = REPOSITORY / "csrc"


def unhostable() -> str | None:
    """Return why the library cannot be compiled here, or None."""
    if not CSRC.is_dir():
        return "the sources of the native library are not here"
    return None if shutil.which(compiler()) else "there is no C++ compiler"


def compiler() -> str:
    """Return the C++ compiler."""
    return os.environ.get("CXX") or "c++"


def library() -> Path:
    """Return the library, its headers beside it; compiled only if a source has changed."""
    sources = {*CSRC.glob("*.cpp"), *CSRC.glob("cpu/**/*.cpp"), *CSRC.glob("cuda/host/*.cpp")}
    sources -= {CSRC / "cuda" / "host" / "driver.cpp"}
    sources |= {CSRC / "tests" / "emulator" / "driver_on_cpu.cpp"}
    options = ["-std=gnu++17", "-O1", "-fPIC", "-DFASTVOC_ISA=portable", "-Wno-psabi"]
    read = [*sorted(sources), *(path for path in sorted(CSRC.rglob("*")) if path.suffix in {".h", ".cuh", ".cu"})]
    contents = "".join(path.read_text(encoding="utf-8") for path in read)
    digest = hashlib.sha256(f"{compiler()} {options} {contents}".encode()).hexdigest()[:16]
    folder = REPOSITORY / "build" / f"cuda-on-cpu-{digest}"
    if folder.is_dir():
        return folder / "libfastvoc.so"
    for older in folder.parent.glob("cuda-on-cpu-*"):
        if "." not in older.name:
            shutil.rmtree(older, ignore_errors=True)
    temporary = folder.with_suffix(f".{os.getpid()}")
    temporary.mkdir(parents=True)
    for header in CSRC.glob("fastvoc*.h"):
        shutil.copy(header, temporary)
    for source in sources:
        built = temporary / f"{source.parent.name}_{source.stem}.o"
        call(compiler(), *options, "-c", str(source), "-o", str(built))
    objects = map(str, temporary.glob("*.o"))
    call(compiler(), "-shared", *objects, "-o", str(temporary / "libfastvoc.so"), "-ldl", "-lpthread")
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(temporary)
    return folder / "libfastvoc.so"


def call(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"[-4000:])

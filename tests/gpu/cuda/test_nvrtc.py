"""Kernels for GPUs come from the package, or are compiled at first use, once for all processes of a machine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cffi
import pytest
import torch

from fastvoc import native
from fastvoc.ops import availability
from fastvoc.ops.cuda import cache, image, nvrtc

REPOSITORY = Path(__file__).resolve().parents[3]
CSRC = REPOSITORY / "csrc"

needs_nvrtc = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
needs_processes = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks and no SIGKILL here")

KERNEL = """#include "factor.cuh"
extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= FACTOR; }
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one small kernel, no kernels compiled, and an empty cache beside it, in a folder of any name."""
    folder = tmp_path / "påcket 包"
    (folder / "cuda").mkdir(parents=True)
    (folder / "cuda" / "kernels.cu").write_text(KERNEL)
    (folder / "cuda" / "factor.cuh").write_text("#define FACTOR 3.0f\n")
    record(folder, cuda="no CUDA compiler was found when the native library was built")
    monkeypatch.setattr(native, "FOLDER", folder)
    monkeypatch.setenv("FASTVOC_CACHE", str(tmp_path / "cåche 缓存"))
    return folder


def record(folder: Path, **facts: object) -> None:
    (folder / "build.json").write_text(json.dumps(facts))


def compiled(capability: tuple[int, int]) -> image.Image:
    found = image.compiled(capability)
    assert isinstance(found, image.Image), found
    return found


# ---- the cache, by itself


class Process:
    """Another process, which makes a file of the cache: it logs that it began, and then takes its time."""

    SCRIPT = """
import importlib.util, pathlib, sys, time
specification = importlib.util.spec_from_file_location("cache", sys.argv[1])
cache = importlib.util.module_from_spec(specification)
specification.loader.exec_module(cache)
def make():
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(float(sys.argv[3]))
    return b"kernels"
data, kept = cache.once("kernels.cubin", make)
print(data.decode(), kept)
"""

    def __init__(self, log: Path, seconds: float) -> None:
        command = [sys.executable, "-c", self.SCRIPT, str(cache.__file__), str(log), str(seconds)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")

    def result(self) -> str:
        out, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return out


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FASTVOC_CACHE", str(tmp_path / "cåche 缓存"))
    monkeypatch.setenv("PYTHONUTF8", "1")
    yield tmp_path / "log"


def wait_for(event: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not event():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@needs_processes
def test_many_processes_at_once_make_a_file_once(log: Path) -> None:
    results = [process.result() for process in [Process(log, 0.5) for _ in range(6)]]
    assert log.read_text() == "made\n"
    assert sum("kept in" in result for result in results) == 1
    assert sum("read from" in result for result in results) == 5
    assert all(result.startswith("kernels ") and "缓存" in result for result in results)


@needs_processes
def test_a_process_that_is_killed_while_it_makes_a_file_leaves_nothing_stuck(log: Path) -> None:
    first = Process(log, 1000)
    wait_for(log.exists)
    second = Process(log, 0)
    time.sleep(0.3)  # so that it waits for the lock
    assert second.process.poll() is None
    left = cache.folder() / "kernels.cubin.0123.tmp"
    left.write_bytes(b"half of it")  # as if it had been writing
    first.process.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    assert "kernels kept in" in second.result()
    assert time.monotonic() - begin < 10
    first.process.communicate()
    assert {path.name for path in cache.folder().iterdir()} == {"kernels.cubin", "kernels.cubin.lock"}


@needs_processes
def test_a_process_that_was_stopped_is_not_waited_for_for_ever(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Process(log, 1000)
    try:
        wait_for(log.exists)
        first.process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(cache, "PATIENCE", 0.2)
        assert cache.once("kernels.cubin", lambda: b"own")[0] == b"own"
    finally:
        first.process.kill()
        first.process.communicate()


@pytest.mark.parametrize("damage", [b"", b"x", b"0" * 64 + b"kernels", None])
def test_a_damaged_file_is_noticed_and_made_again(
    log: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache.once("kernels.cubin", lambda: b"kernels" * 99)[1].startswith("kept in")
    path = cache.folder() / "kernels.cubin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage is None else damage)
    made = cache.once("kernels.cubin", lambda: b"kernels" * 99)
    assert made == (b"kernels" * 99, f"kept in {path}")
    assert "damaged" in caplog.text
    assert path.read_bytes() == whole


def test_without_a_folder_to_write_in_it_works_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTVOC_CACHE", str(tmp_path / "file" / "below"))
    data, kept = cache.once("kernels.cubin", lambda: b"kernels")
    assert data == b"kernels"
    assert kept.startswith("not kept: the cache") and "cannot be written" in kept
    assert "FASTVOC_CACHE names another folder" in caplog.text
    assert "cannot be written" in (cache.writable() or "")
    monkeypatch.setenv("FASTVOC_CACHE", str(tmp_path / "new" / "folder"))
    assert cache.writable() is None
    assert not (tmp_path / "new").exists()


def test_a_folder_that_can_only_be_read_is_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **others: object) -> int:
        raise OSError(30, "Read-only file system")

    cache.once("known", lambda: b"known")
    # root may write where nobody else may, so the system's answer is played
    monkeypatch.setattr(cache.os, "open", refuse)
    assert cache.once("known", lambda: b"other")[0] == b"known"
    data, kept = cache.once("new", lambda: b"new")
    assert data == b"new" and "Read-only file system" in kept


def test_a_disk_that_is_full_costs_only_the_file(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    data, kept = cache.once("kernels.cubin", lambda: b"kernels")
    assert data == b"kernels" and "No space left" in kept
    assert {path.name for path in cache.folder().iterdir()} == {"kernels.cubin.lock"}


def test_what_goes_wrong_while_making_is_raised_and_can_be_tried_again(log: Path) -> None:
    def fail() -> bytes:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.once("kernels.cubin", fail)
    assert cache.once("kernels.cubin", lambda: b"kernels")[1].startswith("kept in")


# ---- where kernels come from


def test_kernels_of_the_package_serve_the_gpus_that_they_were_compiled_for(package: Path) -> None:
    (package / "kernels.fatbin").write_bytes(b"fatbin")
    built = ["75", "80", "86", "89", "90a", "100", "120", "90-virtual"]
    record(package, cuda=None, cuda_compiler="nvcc 13.0", cuda_architectures=built)
    served = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1), (13, 0)]
    for capability in served:
        found = image.prebuilt(capability)
        assert isinstance(found, image.Image) and found.code == b"fatbin" and "nvcc 13.0" in found.origin
    assert image.prebuilt((8, 7)) == f"the kernels in the package are for sm_{', '.join(built)}, not for sm_87"
    record(package, cuda=None, cuda_compiler="nvcc 13.0", cuda_architectures=["86", "90a"])
    assert [image.not_prebuilt(capability) is None for capability in ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0))] == [
        False, True, True, True, False,
    ]  # fmt: skip
    (package / "kernels.fatbin").unlink()
    assert "cannot be read" in str(image.prebuilt((8, 6)))


def test_every_way_without_kernels_has_its_reason(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert image.unavailable((7, 0)) == "the GPU is sm_70; the CUDA kernels need sm_75 or newer"
    monkeypatch.setattr(nvrtc, "missing", lambda: "CUDA's run-time compiler was not found")
    assert image.unavailable((8, 0)) == (
        "no CUDA compiler was found when the native library was built; CUDA's run-time compiler was not found"
    )
    (package / "cuda" / "kernels.cu").unlink()
    assert "the sources of the CUDA kernels are not in the package" in str(image.unavailable((8, 0)))
    record(package)
    assert "built before there were CUDA kernels" in str(image.prebuilt((8, 0)))


def test_the_backend_says_what_is_missing_first(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = "there is no CUDA driver"
    machine: dict[str, Any] = {"native": "no compiler", "gpu": False, "hip": "7.0", "driver": driver, "gpus": [(7, 0)]}
    monkeypatch.setattr(native, "missing", lambda: machine["native"])
    monkeypatch.setattr(native, "missing_cuda", lambda: machine["driver"])  # test_cuda_driver.py asks for it
    monkeypatch.setattr(native, "hosted", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine["gpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(machine["gpus"]))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: machine["gpus"][number])
    monkeypatch.setattr(nvrtc, "missing", lambda: "there is no NVRTC")
    steps: list[tuple[str, object]] = [
        ("no compiler", {"native": None}),
        ("torch sees no CUDA device", {"gpu": True}),
        ("this PyTorch is for AMD's GPUs; the CUDA kernels are for NVIDIA's", {"hip": None}),
        ("there is no CUDA driver", {"driver": None}),
        ("the GPU is sm_70; the CUDA kernels need sm_75 or newer", {"gpus": [(8, 0)]}),
        ("no CUDA compiler was found when the native library was built; there is no NVRTC", {"gpus": [(7, 0), (9, 0)]}),
    ]
    for reason, change in steps:
        monkeypatch.setattr(torch.version, "hip", machine["hip"])
        assert availability.missing.__wrapped__("cuda") == reason
        machine |= change
    record(package, cuda=None, cuda_compiler="nvcc 13.0", cuda_architectures=["90a"])
    assert availability.missing.__wrapped__("cuda") is None


class Driver:
    """A native library whose driver takes only images that begin in one way."""

    def __init__(self, takes: bytes) -> None:
        self.ffi = cffi.FFI()
        self.takes = takes

    def fastvoc_cuda_load(self, image: Any, kernels: Any) -> int:
        if bytes(self.ffi.buffer(image, len(self.takes))) != self.takes:
            return 1
        kernels[0] = self.ffi.cast("void *", 7)
        return 0

    def fastvoc_cuda_message(self) -> Any:
        return self.ffi.new("char[]", b"too new")


@pytest.mark.parametrize(("takes", "reasons"), [(b"fatbin", 0), (b"cubin", 1), (b"nothing", 2)])
def test_what_the_driver_refuses_is_compiled_here(
    package: Path, monkeypatch: pytest.MonkeyPatch, takes: bytes, reasons: int
) -> None:
    (package / "kernels.fatbin").write_bytes(b"fatbin")
    record(package, cuda=None, cuda_compiler="nvcc 13.0", cuda_architectures=["80"])
    driver = Driver(takes)
    monkeypatch.setattr(native, "library", lambda: (driver.ffi, driver))
    monkeypatch.setattr(native, "missing", lambda: None)
    monkeypatch.setattr(image, "compiled", lambda capability: image.Image(b"cubin", "compiled by NVRTC 12.4"))
    for name, answer in (("get_device_capability", (8, 6)), ("device", nullcontext()), ("mem_get_info", (1, 1))):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, answer=answer: answer)
    loaded = image._load.__wrapped__(0)
    assert (loaded.kernels is None) == (reasons == 2)
    assert loaded.origin == ("compiled with the package by nvcc 13.0", "compiled by NVRTC 12.4", "")[reasons]
    assert (
        loaded.reasons
        == (
            "what was compiled with the package by nvcc 13.0 is refused by the driver (too new)",
            "what was compiled by NVRTC 12.4 is refused by the driver (too new)",
        )[:reasons]
    )
    monkeypatch.setattr(image, "_load", lambda index: loaded)
    device = torch.device("cuda", 0)
    if reasons < 2:
        assert image.kernels(device) == loaded.kernels and image.missing(device) is None
    else:
        assert image.missing(device) == "; ".join(loaded.reasons)
        with pytest.raises(RuntimeError, match="CUDA kernels: what was compiled with the package"):
            image.kernels(device)


def test_no_compiler_is_looked_for_before_somebody_asks() -> None:
    program = "import sys, fastvoc, fastvoc.ops\nprint([name for name in sys.modules if 'nvrtc' in name])"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_run_time_compiler_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_text("not a library")
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter([str(broken), "libnvrtc-that-is-not-there.so"]))
    reason = nvrtc._load.__wrapped__()[2]
    assert "was not found" in reason and str(broken) in reason and "pip install nvidia-cuda-nvrtc" in reason


@needs_nvrtc
def test_a_kernel_is_compiled_once_for_each_gpu_and_again_when_its_sources_change(package: Path) -> None:
    first = compiled((9, 0))
    assert first.code.startswith(b"\x7fELF") and b"scale" in first.code
    assert f"NVRTC {nvrtc.version()}, kept in" in first.origin and "sm_90a" in first.origin
    again = compiled((9, 0))
    assert again.code == first.code and "read from" in again.origin
    assert "kept in" in compiled((7, 5)).origin
    (package / "cuda" / "factor.cuh").write_text("#define FACTOR 4.0f\n")
    changed = compiled((9, 0))
    assert "kept in" in changed.origin and changed.code != first.code


def test_each_reason_why_there_are_no_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(image.native, "missing", lambda: None)
    monkeypatch.setattr(image.native, "library", lambda: (None, None))
    monkeypatch.setattr(image, "unavailable", lambda capability: None)
    monkeypatch.setattr(image, "prebuilt", lambda capability: f"none was built for {capability}")
    monkeypatch.setattr(image, "compiled", lambda capability: "there is no compiler")
    loaded = image._load.__wrapped__(0)
    assert loaded.kernels is None
    assert loaded.reasons == ("none was built for (9, 0)", "there is no compiler")


@needs_nvrtc
def test_a_kernel_that_does_not_compile_says_why(package: Path) -> None:
    (package / "cuda" / "factor.cuh").write_text("#define FACTOR factor\n")
    reason = image.compiled((8, 9))
    assert isinstance(reason, str)
    assert reason.startswith(f"NVRTC {nvrtc.version()} did not compile the kernels for sm_89")
    assert 'kernels.cu(2): error: identifier "factor" is undefined' in reason
    assert "NVRTC" in str(image.compiled((49, 3))) and "does not know sm_493" in str(image.compiled((49, 3)))


@needs_nvrtc
def test_every_program_of_the_compiler_is_given_back(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ffi, library = nvrtc._library()
    held: list[str] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            held.extend([name] if name in ("nvrtcCreateProgram", "nvrtcDestroyProgram") else [])
            return getattr(library, name)

    monkeypatch.setattr(nvrtc, "_library", lambda: (ffi, Counted()))
    compiled((8, 0))
    (package / "cuda" / "factor.cuh").write_text("#define FACTOR factor\n")
    assert isinstance(image.compiled((8, 0)), str)
    assert held == ["nvrtcCreateProgram", "nvrtcDestroyProgram"] * 2


@needs_nvrtc
def test_an_option_that_only_newer_compilers_know_is_left_out_for_others(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "FASTER", ("--no-such-option",))
    assert b"scale" in compiled((8, 0)).code
    monkeypatch.setattr(nvrtc, "OPTIONS", ("--no-such-option-either",))
    assert "option" in str(image.compiled((8, 0)))


@needs_nvrtc
@needs_processes
@pytest.mark.slow
def test_whole_processes_at_once_compile_once(package: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom fastvoc import native\nfrom fastvoc.ops.cuda import image\n"
        "native.FOLDER = pathlib.Path(sys.argv[1])\nprint(image.compiled((8, 0)).origin)"
    )
    command = [sys.executable, "-X", "utf8", "-c", program, str(package)]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), results
    assert sum("kept in" in out for out, _ in results) == 1
    assert sum("compiling the CUDA kernels for sm_80" in errors for _, errors in results) == 1


def thinned(program: str) -> str:
    """Keep one kernel of each kind and precision, which show the compiler as much of the sources as all of them."""

    def first_of_each(rows: re.Match[str]) -> str:
        seen = set[str]()
        return re.sub(r"kernel\((\w+),.*?\)", lambda row: "" if row[1] in seen else seen.add(row[1]) or row[0], rows[0])

    return re.sub(r"#define FASTVOC_\w+\(kernel\)(.*\\\n)*.*\n", first_of_each, program)


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.skipif(not CSRC.is_dir(), reason="the sources of the native library are not here")
def test_the_sources_compile_at_first_use(package: Path) -> None:
    shutil.rmtree(package / "cuda")
    shutil.copytree(CSRC / "cuda" / "device", package / "cuda")
    (package / "cuda" / "program.h").write_text(thinned((CSRC / "cuda" / "device" / "program.h").read_text()))
    found = compiled((9, 0))
    names = {*re.findall(rb"\.text\.(\w+)", found.code)}
    kinds = {name.split(b"_")[0] for name in names}
    assert kinds >= {b"chain", b"convolution", b"hopper", b"pack", b"enter"}
    assert {name.split(b"_")[1] for name in names if b"_" in name} >= {b"f16", b"bf16", b"tf32"}
    assert len(names) < 50  # and not every one, of which there are twice as many

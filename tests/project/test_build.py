"""The native build: what it ships, what it says about itself, and what happens without it."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fastvoc import native
from fastvoc.ops import availability, backends, conv1d, explain, last_backends, use_backend

REPOSITORY = Path(__file__).resolve().parents[2]
CSRC = REPOSITORY / "csrc"
TOOLS = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])

needs_native = pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"]))
needs_sources = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources of the native library are not here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of fastvoc/native."""
    # Caches of their own: the interface that is in use stays the only one, since operators keep what it made.
    cached = ((native, ("_load", "_load_once", "missing", "missing_cuda", "isas")), (availability, ("missing",)))
    for module, names in cached:
        for name in names:
            monkeypatch.setattr(module, name, functools.cache(getattr(module, name).__wrapped__))
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    return tmp_path


@needs_sources
def test_no_native_source_knows_torch() -> None:
    sources = [path for path in CSRC.rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu", ".txt"}]
    assert len(sources) > 3
    guilty = [path.name for path in sources if re.search(r"\b(torch|ATen|c10|pybind11|Python\.h)\b", path.read_text())]
    assert not guilty


@needs_sources
def test_the_header_is_readable_by_cffi() -> None:
    header = (CSRC / "fastvoc.h").read_text()
    declared = set(re.findall(r"\b(fastvoc_\w+)\(", native.declarations(header)))
    assert {"fastvoc_call_run", "fastvoc_call_pack", "fastvoc_error"} <= declared


@needs_native
def test_the_library_has_every_function_of_the_header() -> None:
    _, library = native.library()
    headers = "".join((native.FOLDER / name).read_text() for name in native.HEADERS)
    for name in re.findall(r"\b(fastvoc_\w+)\(", native.declarations(headers)):
        assert callable(getattr(library, name))


@needs_native
def test_threads_whose_first_calls_meet_share_one_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_load", "_load_once"):
        monkeypatch.setattr(native, name, functools.cache(getattr(native, name).__wrapped__))
    barrier = threading.Barrier(8)

    def first(_: int) -> object:
        barrier.wait()
        return native.library()[0]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(first, range(8))))) == 1


@needs_native
def test_every_native_error_is_a_sentence() -> None:
    ffi, library = native.library()
    sentences = {ffi.string(library.fastvoc_error(code)) for code in range(library.FASTVOC_ERROR_COUNT)}
    assert len(sentences) == library.FASTVOC_ERROR_COUNT and b"unknown error" not in sentences
    with pytest.raises(RuntimeError, match="conv1d: a size is out of range"):
        native.check("conv1d", library.FASTVOC_BAD_SIZE)


@needs_native
def test_a_wrong_native_call_is_refused_before_it_touches_memory() -> None:
    ffi, library = native.library()
    good = {"kind": library.FASTVOC_CONV1D, "isa": 0, "threads": 1, "batch": 1, "in_channels": 1, "in_frames": 4}
    good |= {"out_channels": 1, "taps": 3, "dilation": 1, "stride": 1, "groups": 1}
    wrong = {
        "FASTVOC_OK": {},
        "FASTVOC_BAD_ISA": {"isa": 99},
        "FASTVOC_BAD_OPERATOR": {"stride": 2},
        "FASTVOC_BAD_SIZE": {"taps": 5},
        "FASTVOC_BAD_PADDING": {"left": 4, "padding_mode": library.FASTVOC_REFLECT},
    }
    for name, change in wrong.items():
        assert library.fastvoc_call_check(ffi.new("fastvoc_call *", good | change)) == getattr(library, name)


def test_without_a_build_there_is_a_reason_and_the_definition_runs(folder: Path) -> None:
    reason = backends()["cpu"]
    assert reason is not None and "never built" in reason
    x, weight = torch.randn(1, 2, 16), torch.randn(3, 2, 3)
    assert explain(conv1d, x, weight)["cpu"] == reason
    assert conv1d(x, weight).shape == (1, 3, 14)
    assert last_backends()["conv1d"] == "reference"
    with use_backend("cpu"), pytest.raises(NotImplementedError, match="never built"):
        conv1d(x, weight)


def test_a_failed_build_keeps_its_reason(folder: Path) -> None:
    record = {"library": None, "reason": "the native library is absent: no usable C++ compiler"}
    (folder / "build.json").write_text(json.dumps(record))
    assert backends()["cpu"] == record["reason"]


def test_a_library_that_does_not_load_is_a_reason(folder: Path) -> None:
    (folder / "build.json").write_text(json.dumps({"library": "libfastvoc.so", "reason": None}))
    for header in native.HEADERS:
        (folder / header).write_text("int fastvoc_isa_usable(int isa);" if header == "fastvoc.h" else "")
    (folder / "libfastvoc.so").write_text("not a library")
    reason = backends()["cpu"]
    assert reason is not None and "cannot be loaded" in reason


@pytest.mark.slow
@needs_sources
@pytest.mark.parametrize(("compiler", "mode", "built"), [("", "require", True), ("/nonexistent", "auto", False)])
def test_a_wheel_installs_with_and_without_a_compiler(tmp_path: Path, compiler: str, mode: str, built: bool) -> None:
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("_native", "__pycache__", ".git", ".venv", "build", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    # One kind of GPU: compiling for all of them is looked at in tests/gpu/cuda/test_cuda_compile.py.
    environment = os.environ | {"FASTVOC_NATIVE": mode, "FASTVOC_CUDA_ARCHITECTURES": "80"}
    environment |= {"CXX": compiler} if compiler else {}
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run(
        [*command, str(source)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (wheel,) = tmp_path.glob("*.whl")
    assert re.fullmatch(r"fastvoc-[\d.]+-py3-none-\w+\.whl", wheel.name) and "any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("fastvoc/_native/")}
        record = json.loads(archive.read("fastvoc/_native/build.json"))
        included = {f"fastvoc/assets/{name}" for name in ("model.safetensors", "instrument/model.safetensors")}
        assert included <= {*archive.namelist()}
    assert ("fastvoc/_native/libfastvoc.so" in names) == built
    shipped = ("build.json", *native.HEADERS, "cuda/kernels.cu", "cuda/program.h", "cuda/instructions.cuh")
    assert {f"fastvoc/_native/{name}" for name in shipped} <= names
    assert ("fastvoc/_native/kernels.fatbin" in names) == (record.get("cuda", "absent") is None)
    lines = [line for line in done.stdout.splitlines() if "fastvoc: no native library" in line]
    assert len(lines) == (0 if built else 1)
    assert (record["reason"] is None) == built
    if not built:
        assert "install g++ or clang++" in record["reason"]


KERNEL = 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] *= 2; }\n'


def small_sources(source: Path, kernel: str) -> Path:
    """Lay out sources of which a library of one empty function is built in a second."""
    (source / "csrc" / "cuda" / "device").mkdir(parents=True)
    shutil.copy(REPOSITORY / "setup.py", source)
    shutil.copy(CSRC / "CMakeLists.txt", source / "csrc")
    (source / "pyproject.toml").write_text(
        '[project]\nname = "fastvoc"\nversion = "0"\n[tool.setuptools]\npackages = []\n'
    )
    (source / "csrc" / "fastvoc.h").write_text("")
    (source / "csrc" / "fastvoc.cpp").write_text('extern "C" void fastvoc() {}\n')
    (source / "csrc" / "fastvoc_cuda.cpp").write_text("")
    (source / "csrc" / "cpu" / "plan").mkdir(parents=True)
    (source / "csrc" / "cpu" / "plan" / "plan.cpp").write_text("")
    for name in ("convnext", "gated"):
        (source / "csrc" / "cpu" / f"{name}.cpp").write_text("")
    (source / "csrc" / "cuda" / "device" / "kernels.cu").write_text(kernel)
    (source / "csrc" / "cuda" / "device" / "program.h").write_text("")
    return source


def build(source: Path, architectures: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "-q", "build_native", "--inplace", *options]
    environment = os.environ | {"FASTVOC_NATIVE": "require", "FASTVOC_CUDA_ARCHITECTURES": architectures}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@needs_sources
def test_a_library_that_serves_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    source = small_sources(tmp_path, KERNEL)
    kept = "kept what is in"
    assert kept not in build(source, "", "--keep").stdout  # there is none yet
    assert kept in build(source, "", "--keep").stdout
    assert kept not in build(source, "").stdout
    (source / "csrc" / "tests").mkdir()
    (source / "csrc" / "tests" / "unbuilt.cpp").write_text("nonsense")
    assert kept in build(source, "", "--keep").stdout
    (source / "csrc" / "fastvoc.h").write_text("/* changed */")
    assert kept not in build(source, "", "--keep").stdout
    (source / "fastvoc" / "_native" / "libfastvoc.so").write_text("for another machine")
    assert kept not in build(source, "", "--keep").stdout
    record = source / "fastvoc" / "_native" / "build.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"cuda_architectures": ["80", "90a"]}))
    assert kept in build(source, "80;90", "--keep").stdout
    assert kept not in build(source, "89", "--keep").stdout


def fake_driver(folder: Path, *lines: str, code: int = 0) -> None:
    """Write a program that tells of GPUs as NVIDIA's driver does."""
    folder.mkdir(exist_ok=True)
    text = "".join(f"echo '{line}'\n" for line in lines)
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{text}exit {code}\n")
    (folder / "nvidia-smi").chmod(0o755)


@needs_sources
def test_kernels_for_the_gpus_of_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_sources(tmp_path / "source", KERNEL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'driver'}{os.pathsep}{os.environ['PATH']}")
    fake_driver(tmp_path / "driver", "No devices were found", code=6)
    build(source, "here")
    built = source / "fastvoc" / "_native"
    record = json.loads((built / "build.json").read_text())
    assert record["library"] == "libfastvoc.so" and record["cuda"] == "this build was to have none"
    assert not (built / "kernels.fatbin").exists() and (built / "cuda" / "kernels.cu").is_file()
    assert "kept what is in" in build(source, "here", "--keep").stdout
    fake_driver(tmp_path / "driver", "8.6", "8.6", "9.0")
    assert "kept what is in" not in build(source, "here", "--keep").stdout
    record = json.loads((built / "build.json").read_text())
    if shutil.which("nvcc") is not None:
        assert record["cuda"] is None and record["cuda_architectures"] == ["86", "90a"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@needs_sources
def test_the_demo_needs_the_package_alone_and_the_tests_what_they_always_did(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", "setup.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "csrc").mkdir()

    def steps(target: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
        command = ["make", "-n", target]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    demo, tests = steps("demo"), steps("test")
    assert re.search(r"pip install -c constraints\.txt -e \.$", demo, re.MULTILINE) and "[dev]" not in demo
    assert "FASTVOC_CUDA_ARCHITECTURES=${FASTVOC_CUDA_ARCHITECTURES:-here}" in demo
    assert "-e '.[dev]'" in tests and "FASTVOC_CUDA_ARCHITECTURES" not in tests
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".runnable").touch()
    assert "pip install" not in steps("demo")
    assert "-e '.[dev]'" in steps("test")  # what the demo has installed is less
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in steps("demo") + steps("test")


@pytest.mark.slow
@needs_sources
@pytest.mark.parametrize(
    ("kernel", "architectures", "failure"),
    [
        (KERNEL, "80;90;90-virtual", None),
        ("this is not CUDA", "80", "error: "),
        (KERNEL, "12", "Unsupported gpu architecture"),
    ],
    ids=["good", "broken", "unknown GPU"],
)
def test_cuda_kernels_are_compiled_where_there_is_a_compiler_and_cost_only_themselves(
    tmp_path: Path, kernel: str, architectures: str, failure: str | None
) -> None:
    source = small_sources(tmp_path / "source", kernel)
    done = build(source, architectures)
    built = source / "fastvoc" / "_native"
    record = json.loads((built / "build.json").read_text())
    assert record["library"] == "libfastvoc.so" and (built / "libfastvoc.so").is_file()
    assert (built / "cuda" / "kernels.cu").read_text() == kernel  # to be compiled at first use
    image = built / "kernels.fatbin"
    if shutil.which("nvcc") is None:
        assert record["cuda"] == "no CUDA compiler was found when the native library was built"
        assert not image.exists()
    elif failure is None:
        assert record["cuda"] is None and record["cuda_compiler"].startswith("nvcc 1")
        assert record["cuda_architectures"] == ["80", "90a", "90-virtual"]
        assert image.read_bytes()[:4] == bytes.fromhex("50ed55ba")  # of all fatbins; what follows is compressed
    else:
        assert record["cuda"].startswith("the CUDA kernels are absent: nvcc ") and failure in record["cuda"]
        assert f"fastvoc: no compiled CUDA kernels in the package: nvcc {record['cuda_compiler'][5:]}" in done.stderr
        assert record["cuda_architectures"] == [] and not image.exists()

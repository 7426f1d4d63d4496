"""The native build: what it ships, what it says about itself, and what happens without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastvoc.ops import _backends, _native, backends, conv1d, explain, last_backends, use_backend

REPOSITORY = Path(__file__).resolve().parents[1]
CSRC = REPOSITORY / "csrc"
TOOLS = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])

needs_native = pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"]))
needs_sources = pytest.mark.skipif(not CSRC.is_dir(), reason="the sources of the native library are not here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in the place of fastvoc/_native."""
    cached = (_native._load, _native.missing, _native.missing_cuda, _native.isas, _backends.missing)
    for function in cached:
        function.cache_clear()
    monkeypatch.setattr(_native, "FOLDER", tmp_path)
    yield tmp_path
    for function in cached:
        function.cache_clear()


@needs_sources
def test_no_native_source_knows_torch() -> None:
    sources = [path for path in CSRC.rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu", ".txt"}]
    assert len(sources) > 3
    guilty = [path.name for path in sources if re.search(r"\b(torch|ATen|c10|pybind11|Python\.h)\b", path.read_text())]
    assert not guilty


@needs_sources
def test_the_header_is_readable_by_cffi_and_fits_one_screen() -> None:
    header = (CSRC / "fastvoc.h").read_text()
    declared = set(re.findall(r"\b(fastvoc_\w+)\(", _native.declarations(header)))
    assert {"fastvoc_conv1d", "fastvoc_conv1d_pack", "fastvoc_error"} <= declared
    for name in _native.HEADERS:
        assert len((CSRC / name).read_text().splitlines()) <= 120


@needs_native
def test_the_library_has_every_function_of_the_header() -> None:
    _, library = _native.library()
    headers = "".join((_native.FOLDER / name).read_text() for name in _native.HEADERS)
    for name in re.findall(r"\b(fastvoc_\w+)\(", _native.declarations(headers)):
        assert callable(getattr(library, name))


@needs_native
def test_every_native_error_is_a_sentence() -> None:
    ffi, library = _native.library()
    sentences = {ffi.string(library.fastvoc_error(code)) for code in range(library.FASTVOC_ERROR_COUNT)}
    assert len(sentences) == library.FASTVOC_ERROR_COUNT and b"unknown error" not in sentences
    with pytest.raises(RuntimeError, match="conv1d: a size is out of range"):
        _native.check("conv1d", library.FASTVOC_BAD_SIZE)


@needs_native
def test_a_wrong_native_call_is_refused_before_it_touches_memory() -> None:
    ffi, library = _native.library()
    good = {"isa": 0, "threads": 1, "batch": 1, "in_channels": 1, "in_frames": 4, "out_channels": 1, "taps": 3}
    good |= {"dilation": 1, "left": 0, "right": 0}
    wrong = {
        "FASTVOC_OK": {},
        "FASTVOC_BAD_ISA": {"isa": 99},
        "FASTVOC_BAD_SIZE": {"taps": 5},
        "FASTVOC_BAD_PADDING": {"left": 4, "padding_mode": library.FASTVOC_REFLECT},
    }
    for name, change in wrong.items():
        assert library.fastvoc_conv1d_check(ffi.new("fastvoc_conv1d_call *", good | change)) == getattr(library, name)


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
    for header in _native.HEADERS:
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
    # One kind of GPU: compiling for all of them is looked at in tests/test_cuda_compile.py.
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
    assert ("fastvoc/_native/libfastvoc.so" in names) == built
    shipped = ("build.json", *_native.HEADERS, "cuda/kernels.cu", "cuda/program.h", "cuda/instructions.cuh")
    assert {f"fastvoc/_native/{name}" for name in shipped} <= names
    assert ("fastvoc/_native/kernels.fatbin" in names) == (record.get("cuda", "absent") is None)
    lines = [line for line in done.stdout.splitlines() if "fastvoc: no native library" in line]
    assert len(lines) == (0 if built else 1)
    assert (record["reason"] is None) == built
    if not built:
        assert "install g++ or clang++" in record["reason"]


KERNEL = 'extern "C" __global__ void probe(float* x) { x[threadIdx.x] *= 2; }\n'


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
    source = tmp_path / "source"
    (source / "csrc" / "cuda").mkdir(parents=True)
    shutil.copy(REPOSITORY / "setup.py", source)
    shutil.copy(CSRC / "CMakeLists.txt", source / "csrc")
    # A library of one empty function takes a second to build.
    (source / "csrc" / "fastvoc.h").write_text("")
    (source / "csrc" / "fastvoc.cpp").write_text('extern "C" void fastvoc() {}\n')
    (source / "csrc" / "fastvoc_cuda.cpp").write_text("")
    (source / "csrc" / "plan").mkdir()
    (source / "csrc" / "plan" / "cpu.cpp").write_text("")
    (source / "csrc" / "cuda" / "kernels.cu").write_text(kernel)
    (source / "csrc" / "cuda" / "program.h").write_text("")
    command = [sys.executable, "setup.py", "-q", "build_native", "--inplace"]
    environment = os.environ | {"FASTVOC_NATIVE": "require", "FASTVOC_CUDA_ARCHITECTURES": architectures}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
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

"""The library's own way to the driver of a GPU, with a driver in its place that only notes what is asked of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hosting import REPOSITORY, call, compiler
from test_nvrtc import KERNEL, needs_nvrtc

from fastvoc import native
from fastvoc.ops import backends

pytestmark = [
    pytest.mark.skipif(backends()["cpu"] is not None, reason=str(backends()["cpu"])),
    pytest.mark.skipif(sys.platform != "linux" or shutil.which(compiler()) is None, reason="no driver can be built"),
]

DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
typedef struct { unsigned grid[3], block[3], shared; void* stream; void* attributes; unsigned count; } Launch;
static int number(const char* name) { return atoi(getenv(name) ? getenv(name) : "0"); }
#define FUNCTION extern "C" __attribute__((visibility("default"))) int
FUNCTION cuInit(unsigned) { return number("REFUSES"); }
FUNCTION cuGetErrorString(int, const char** why) { *why = "no such luck"; return 0; }
FUNCTION cuGetExportTable(const void**, const void*) { return 1; } /* NVRTC asks for one */
FUNCTION cuCtxGetDevice(int* device) { return *device = 0; }
FUNCTION cuDeviceGetAttribute(int* value, int, int) { *value = 232448; return 0; }
FUNCTION cuDriverGetVersion(int* version) { *version = number("VERSION"); return 0; }
FUNCTION cuStreamIsCapturing(void*, int* status) { *status = number("CAPTURES"); return 0; }
FUNCTION cuModuleLoadData(void** module, const void* image) {
  *module = (void*)&number;
  printf("loads %.3s\n", (const char*)image + 1);
  return 0;
}
FUNCTION cuModuleGetFunction(void** function, void*, const char*) { *function = (void*)&number; return 0; }
FUNCTION cuFuncSetAttribute(void*, int, int) { return 0; }
FUNCTION cuLaunchKernelEx(const Launch* launch, void*, void**, void**) {
  printf("launches with %u\n", launch->count);
  fflush(stdout);
  return 0;
}
"""

NO_NVCC = "no CUDA compiler was found when the native library was built"

MACHINE = """
import pathlib, sys
from contextlib import nullcontext
import torch
from fastvoc import native
from fastvoc.ops import backends
native.FOLDER = pathlib.Path(sys.argv[1])
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_capability = lambda *device: (9, 0)
torch.cuda.device = lambda *device: nullcontext()
torch.cuda.mem_get_info = lambda *device: (1, 1)
"""
"""PyTorch as it is where there is a GPU; what CUDA takes no part in stays on the CPU."""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver, for the path of libraries."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.cpp").write_text(DRIVER)
    call(compiler(), "-shared", "-fPIC", str(folder / "driver.cpp"), "-o", str(folder / "libcuda.so.1"))
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What an installation leaves where there is no nvcc, with a small kernel, which takes no minute to compile."""
    folder = tmp_path / "_native"
    shutil.copytree(native.FOLDER, folder)
    (folder / "kernels.fatbin").unlink(missing_ok=True)
    record = json.loads((folder / "build.json").read_text())
    record |= {"cuda": NO_NVCC, "cuda_compiler": None, "cuda_architectures": []}
    (folder / "build.json").write_text(json.dumps(record))
    (folder / "cuda" / "kernels.cu").write_text(KERNEL)
    (folder / "cuda" / "factor.cuh").write_text("#define FACTOR 3.0f\n")
    return folder


def run(program: str, package: Path, driver: Path | None, **environment: str) -> str:
    libraries = {} if driver is None else {"LD_LIBRARY_PATH": str(driver)}
    libraries |= {"FASTVOC_CACHE": str(package / "cache"), "FASTVOC_CUDA_ON_CPU": ""}
    environment = os.environ | libraries | environment
    command = [sys.executable, "-c", MACHINE + program, str(package)]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_nvrtc
def test_where_there_was_no_nvcc_the_kernels_are_compiled_at_first_use(package: Path, driver: Path) -> None:
    program = """
print(backends()["cuda"], flush=True)
from fastvoc.ops.cuda import image
loaded = image.load(0)
print(loaded.kernels is not None, loaded.origin, loaded.reasons)
"""
    usable, loads, origin = run(program, package, driver).splitlines()
    assert usable == "None"  # nothing speaks against the backend, and nothing has been compiled yet
    assert loads == "loads ELF"
    assert origin.startswith("True compiled by NVRTC") and NO_NVCC in origin
    *_, again = run(program, package, driver).splitlines()
    assert "read from" in again


def test_without_a_driver_its_sentence_is_the_reason(package: Path, driver: Path) -> None:
    program = 'print(backends()["cuda"])'
    assert run(program, package, driver, REFUSES="1") == "the NVIDIA driver does not start (no such luck)\n"
    (package / "empty").mkdir()
    missing = run(program, package, package / "empty")
    assert missing.startswith("the NVIDIA driver's library is not there") or backends()["cuda"] is None


LAUNCHES = """
from fastvoc.ops.cuda.device import Gpu
from fastvoc.ops.cuda.network import Network
from fastvoc.ops.network import INPUT, Layer
layer = Layer(kind="conv1d", input=INPUT, weight=torch.zeros(256, 256, 3).half(), bias=None, padding=(1, 1))
network = Network([layer], Gpu(90, 132, 227 << 10, 228 << 10), torch.float16)
network.run(network.pack([layer]), torch.zeros(1, 256, 64).half(), dtype=torch.float16)
"""


@pytest.mark.parametrize(
    ("version", "captures", "early"), [("12020", "1", False), ("12020", "0", True), ("12030", "1", True)]
)
def test_launches_begin_early_unless_an_older_driver_records_them(
    package: Path, driver: Path, version: str, captures: str, early: bool
) -> None:
    said = run(LAUNCHES, package, driver, VERSION=version, CAPTURES=captures)
    launches = [line for line in said.splitlines() if line.startswith("launches")]
    assert len(launches) >= 2 and ("launches with 1" in launches) == early

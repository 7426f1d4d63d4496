"""The native library against plain loops under sanitizers, and on another processor: the programs of csrc/check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CSRC = REPOSITORY / "csrc"
TOOLS = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CSRC.is_dir(), reason="the sources of the native library are not here"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "c++") is None, reason="there is no C++ compiler"),
]


def run(*command: str | Path, **environment: str) -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def built(name: str, *options: str) -> Path:
    """Compile the programs of csrc/check, again only what has changed, and return their folder."""
    cmake, ninja = shutil.which("cmake", path=TOOLS), shutil.which("ninja", path=TOOLS)
    if cmake is None or ninja is None:
        pytest.skip("cmake and ninja are not installed")
    folder = REPOSITORY / "build" / name
    configure = [cmake, "-S", str(CSRC), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options]
    run(*configure)
    run(cmake, "--build", folder, "-j", "1")
    return folder


@pytest.fixture(scope="module")
def sanitized() -> Path:
    """The programs under address and undefined behaviour sanitizers."""
    return built("checks", "-DFASTVOC_SANITIZE=ON")


@pytest.mark.parametrize(
    ("program", "count"),
    [
        ("random_calls", 300),
        ("random_networks", 60),
        ("hostile_calls", 3000),
        ("toom_cook", 300),
        ("narrow_operands", 100),
    ],
)
def test_random_calls_are_right_and_stay_inside_their_memory(sanitized: Path, program: str, count: int) -> None:
    if not (sanitized / program).is_file():
        pytest.skip(f"{program} checks instructions that this processor's family has not")
    run(sanitized / program, str(count))


def test_random_networks_are_right_on_aarch64() -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None:
        pytest.skip("aarch64-linux-gnu-g++ and qemu-aarch64 are not installed")
    options = ("SYSTEM_NAME=Linux", "SYSTEM_PROCESSOR=aarch64", "CXX_COMPILER=aarch64-linux-gnu-g++")
    folder = built("checks-aarch64", *(f"-DCMAKE_{option}" for option in options), "-DFASTVOC_SANITIZE=none")
    for program, count in (("random_calls", 100), ("random_networks", 20), ("hostile_calls", 300)):
        run("qemu-aarch64", folder / program, str(count), QEMU_LD_PREFIX="/usr/aarch64-linux-gnu")

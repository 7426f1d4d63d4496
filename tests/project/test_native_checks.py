"""The native library against plain loops, under sanitizers and on other processors: the programs of csrc/tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from fastvoc import native

REPOSITORY = Path(__file__).resolve().parents[2]
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


def built(name: str, *options: str, target: str = "all") -> Path:
    """Compile programs of csrc/tests, again only what has changed, and return their folder."""
    cmake, ninja = shutil.which("cmake", path=TOOLS), shutil.which("ninja", path=TOOLS)
    if cmake is None or ninja is None:
        pytest.skip("cmake and ninja are not installed")
    folder = REPOSITORY / "build" / name
    configure = [cmake, "-S", str(CSRC), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", *options]
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:  # tests may run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(*configure)
        run(cmake, "--build", folder, "-j", "1", "--target", target)
    return folder


@pytest.fixture(scope="module")
def sanitized() -> Path:
    """The programs under address and undefined behaviour sanitizers."""
    return built("checks", "-DFASTVOC_SANITIZE=ON")


@pytest.mark.parametrize(
    ("program", "count"),
    [
        ("random_calls", 300),
        ("random_strided_conv1d", 300),
        ("random_convnext", 300),
        ("random_gated", 300),
        ("random_griffin_lim", 150),
        ("random_recurrent", 60),
        ("random_networks", 60),
        ("hostile_calls", 3000),
        ("toom_cook", 300),
        ("narrow_operands", 100),
    ],
)
def test_random_calls_are_right_and_stay_inside_their_memory(sanitized: Path, program: str, count: int) -> None:
    if not (sanitized / program).is_file():
        pytest.skip(f"{program} checks instructions that this processor's family has not")
    if program == "narrow_operands" and "avx512_bf16" not in native.isas():
        pytest.skip(f"{program} is made of instructions that this processor has not")
    run(sanitized / program, str(count))


def test_threads_that_take_over_from_one_another_do_not_race() -> None:
    """For one instruction set, as all share the code that shares work."""
    only = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=any", "-DFASTVOC_SANITIZE=thread")
    run(built("checks-threads", *only, target="random_networks") / "random_networks", "20")


GPU_CHECKS = {
    "cuda_on_cpu": 20,
    "chains": 60,
    "convolutions": 40,
    "hopper": 20,
    "gradients": 30,
    "gated": 150,
    "cuda_networks": 20,
    "activations": 30,
    "hostile_cuda_calls": 2000,
    "hostile_gradients": 1000,
    "recurrent": 12,
}
"""Programs that run the kernels of GPUs on the CPU, and how many cases they draw."""


@pytest.fixture(scope="module")
def sanitized_for_gpus() -> Path:
    """Those programs under address and undefined behaviour sanitizers."""
    return built("checks", "-DFASTVOC_SANITIZE=ON", target="gpu_tests")


@pytest.mark.parametrize(("program", "count"), GPU_CHECKS.items())
def test_kernels_of_gpus_are_right_and_stay_inside_their_memory(
    sanitized_for_gpus: Path, program: str, count: int
) -> None:
    run(sanitized_for_gpus / program, str(count))


@pytest.fixture(scope="module")
def plain_for_gpus() -> Path:
    """The same programs without sanitizers, which are faster."""
    return built("checks-plain", "-DFASTVOC_SANITIZE=none", target="gpu_tests")


def test_many_random_networks_are_right_on_gpus(plain_for_gpus: Path) -> None:
    """The rarest of the mistakes that were planted in the plans showed in one of some hundred networks."""
    run(plain_for_gpus / "cuda_networks", "300")


def notices(program: Path, count: int, site: str) -> bool:
    """Tell whether a program fails if nobody waits at a place in the kernels."""
    environment = os.environ | {"FASTVOC_WITHOUT": site}
    try:
        done = subprocess.run([program, str(count)], env=environment, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def test_every_barrier_and_every_wait_is_needed(plain_for_gpus: Path, tmp_path: Path) -> None:
    folder = plain_for_gpus
    reached: dict[str, list[str]] = {}
    for program in ("chains", "convolutions", "hopper", "gradients", "gated", "cuda_networks", "recurrent"):
        run(folder / program, str(GPU_CHECKS[program]), FASTVOC_SITES=str(tmp_path / program))
        for site in (tmp_path / program).read_text().split():
            reached.setdefault(site, []).append(program)
    assert len(reached) > 30
    unnoticed = [
        site
        for site, programs in sorted(reached.items())
        if not any(notices(folder / program, GPU_CHECKS[program], site) for program in programs)
    ]
    assert not unnoticed, f"nothing fails without {', '.join(unnoticed)}"


def test_random_networks_are_right_on_aarch64() -> None:
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("qemu-aarch64") is None:
        pytest.skip("aarch64-linux-gnu-g++ and qemu-aarch64 are not installed")
    options = ("SYSTEM_NAME=Linux", "SYSTEM_PROCESSOR=aarch64", "CXX_COMPILER=aarch64-linux-gnu-g++")
    folder = built("checks-aarch64", *(f"-DCMAKE_{option}" for option in options), "-DFASTVOC_SANITIZE=none")
    counts = {"random_calls": 100, "random_strided_conv1d": 50, "random_networks": 20, "random_recurrent": 10}
    counts |= {"hostile_calls": 300}
    for program, count in counts.items():
        run("qemu-aarch64", folder / program, str(count), QEMU_LD_PREFIX="/usr/aarch64-linux-gnu")

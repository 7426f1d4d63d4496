"""What the CUDA compiler makes of the kernels for GPUs that are not there: matrix units, copies, budgets."""

from __future__ import annotations

import fcntl
import filecmp
import json
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
CSRC = REPOSITORY / "csrc"
PACKAGE = REPOSITORY / "fastvoc" / "_native"
BUDGETS = Path(__file__).with_name("cuda_budgets.json")
"""The most registers and instructions of each kernel, and of all; FASTVOC_WRITE_BUDGETS=1 writes what there is now."""

TOOLS = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
ARCHITECTURES = ("75", "80", "86", "89", "90a", "100", "120")
INSTRUCTION = re.compile(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ +)?([A-Z]\w*)")


@dataclass
class Compiled:
    """A kernel for one GPU.

    Parameters
    ----------
    registers : int
        Of a thread.
    stack : int
        Bytes of a thread, for what has no register.
    shared : int
        Bytes of a block, beside those that a launch asks for.
    instructions : Counter
        How often each one stands in the code.
    """

    registers: int = 0
    stack: int = 0
    shared: int = 0
    instructions: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        return self.instructions.total() - self.instructions["NOP"]


def built() -> tuple[Path, str, str]:
    """Return the kernels for all GPUs, their compiler, and what it said: the package's if they are of these sources."""
    record = json.loads((PACKAGE / "build.json").read_text()) if (PACKAGE / "build.json").is_file() else {}
    sources = [path.name for path in (CSRC / "cuda" / "device").iterdir()]
    same, _, _ = filecmp.cmpfiles(CSRC / "cuda" / "device", PACKAGE / "cuda", sources, shallow=False)
    if len(same) == len(sources) and {*ARCHITECTURES} <= {*record.get("cuda_architectures", ())}:
        return PACKAGE / "kernels.fatbin", record["cuda_compiler"], ""
    cmake, ninja = shutil.which("cmake", path=TOOLS), shutil.which("ninja", path=TOOLS)
    if cmake is None or ninja is None:
        pytest.skip("cmake and ninja are not installed")
    folder = REPOSITORY / "build" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:  # tests may run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        return compiled_in(folder, cmake, ninja)


def compiled_in(folder: Path, cmake: str, ninja: str) -> tuple[Path, str, str]:
    configure = [cmake, "-S", str(CSRC), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    subprocess.run(configure, check=True, capture_output=True)
    facts = dict(line.split("=", 1) for line in (folder / "facts.txt").read_text().splitlines())
    if facts["cuda"]:
        pytest.skip(facts["cuda"])
    begin = time.monotonic()
    done = subprocess.run(
        [cmake, "--build", str(folder), "--target", "kernels"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
    log = folder / "kernels.log"
    if "Generating" in done.stdout:
        log.write_text(f"{done.stdout}\ncompiled in {time.monotonic() - begin:.0f} s\n")
    return folder / "kernels.fatbin", facts["cuda_compiler"], log.read_text() if log.is_file() else ""


def disassembled(image: Path) -> dict[tuple[str, str], Compiled]:
    """Return what stands in a fatbin, by architecture and kernel."""
    # Triton brings NVIDIA's disassembler along.
    triton = find_spec("triton")
    tool = Path(str(triton.origin)).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if triton else Path()
    if not tool.is_file():
        pytest.skip("cuobjdump, which the package triton has, is not installed")
    kernels: dict[tuple[str, str], Compiled] = {}
    for option in ("-res-usage", "-sass"):
        architecture, kernel = "", Compiled()
        with subprocess.Popen([tool, option, image], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if code := INSTRUCTION.match(line):
                    kernel.instructions[code[1]] += 1
                elif line.startswith("arch = "):
                    architecture = line.split("_")[-1].strip()
                elif name := re.match(r"\s*Function ?: ?(\w+)|\s*Function (\w+):", line):
                    kernel = kernels.setdefault((architecture, name[1] or name[2]), Compiled())
                elif usage := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
                    kernel.registers, kernel.stack, kernel.shared = map(int, usage.groups())
        assert process.returncode == 0
    return kernels


@pytest.fixture(scope="module")
def image() -> tuple[Path, str, str]:
    if not CSRC.is_dir():
        pytest.skip("the sources of the native library are not here")
    return built()


@pytest.fixture(scope="module")
def kernels(image: tuple[Path, str, str]) -> dict[tuple[str, str], Compiled]:
    return disassembled(image[0])


def is_empty(architecture: str, name: str) -> bool:
    """Tell whether a GPU lacks the instructions of a kernel, which is then empty there."""
    if name.startswith("hopper"):
        return architecture != "90a"
    return architecture == "75" and ("bf16" in name or "tf32" in name)


MATRIXLESS = ("pack", "enter", "add_parts", "input_gradient", "smooth_snake", "normalise")

pytestmark = pytest.mark.slow


def test_every_kernel_is_there_for_every_gpu(kernels: dict[tuple[str, str], Compiled]) -> None:
    names = {name for _, name in kernels}
    assert {*kernels} == {(architecture, name) for architecture in ARCHITECTURES for name in names}
    assert {"pack", "enter", "chain_f16_32_8x4", "convolution_bf16_64x64", "hopper_f16_128x256"} <= names


def test_nothing_is_spilled_and_matrix_units_multiply(kernels: dict[tuple[str, str], Compiled]) -> None:
    wrong = []
    for (architecture, name), kernel in kernels.items():
        has = kernel.instructions
        expected = {
            "no stack": kernel.stack == 0 and has["LDL"] == has["STL"] == 0,
            # From sm_90 on, the first KiB is the system's.
            "no fixed shared memory": kernel.shared == (0 if architecture in ("75", "80", "86", "89") else 1024),
        }
        if is_empty(architecture, name):
            expected["an end at once"] = kernel.size <= 8 and has["BPT"] == 1
        elif name.startswith("hopper_recurrent"):
            expected |= {
                "matrix units": has["HMMA"] >= 4,
                "matrices loaded whole": has["LDSM"] >= 2,
                "what is sent to other blocks": has["STAS"] >= 2,
                "fences of all memory where the cluster meets, and at no step": has["MEMBAR"] <= 3,
                "a flush of the first level cache there alone": has["CCTL"] == 1,
            }
        elif name.startswith("hopper"):
            expected |= {"warpgroups that multiply": has["HGMMA"] >= 2, "bulk copies": has["UBLKCP"] >= 1}
        elif not name.startswith(MATRIXLESS):
            expected |= {
                "matrix units": has["HMMA"] >= 4,
                # No instruction transposes a matrix of 32 bits.
                "matrices loaded whole": has["LDSM"] >= 2 or name.startswith("weight_gradient_tf32"),
                "copies behind the back": (has["LDGSTS"] >= 1) == (architecture != "75"),
                "multiplications of matrices, not of numbers": has["FFMA"] <= 8 * has["HMMA"],
            }
        wrong += [f"{name}, sm_{architecture}: {what}" for what, so in expected.items() if not so]
    assert not wrong


def test_kernels_keep_their_budgets(image: tuple[Path, str, str], kernels: dict[tuple[str, str], Compiled]) -> None:
    path, compiler, log = image
    size = path.stat().st_size
    print(f"{path}: {size / 1e6:.1f} MB by {compiler}", *log.splitlines()[-1:], sep="; ")
    most: dict[str, list[int]] = {}
    for (_, name), kernel in kernels.items():
        registers, instructions = most.get(name, (0, 0))
        most[name] = [max(registers, kernel.registers), max(instructions, kernel.size)]
    if os.environ.get("FASTVOC_WRITE_BUDGETS") == "1":
        rows = ",\n".join(f"  {json.dumps(name)}: {numbers}" for name, numbers in sorted(most.items()))
        BUDGETS.write_text(f'{{\n  "compiler": {json.dumps(compiler)},\n  "megabytes": {size / 1e6:.1f},\n{rows}\n}}\n')
    budgets = json.loads(BUDGETS.read_text())
    # Another version of the compiler may assign some registers more.
    spare, factor = (0, 1.02) if budgets.pop("compiler") == compiler else (16, 1.5)
    assert size <= 1.1e6 * factor * budgets.pop("megabytes")
    assert budgets.keys() == most.keys()
    over = [
        f"{name}: {registers} registers, {instructions} instructions; the budget is {budgets[name]}"
        for name, (registers, instructions) in most.items()
        if registers > budgets[name][0] + spare or instructions > factor * budgets[name][1]
    ]
    assert not over


def test_the_compiler_does_not_serialise_what_runs_behind_the_back(image: tuple[Path, str, str]) -> None:
    lines = [line for line in image[2].splitlines() if "Performance Loss" in line or "warning" in line]
    assert not lines

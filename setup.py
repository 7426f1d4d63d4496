"""Builds csrc/ with CMake and Ninja into fastvoc/_native; everything else about the package is in pyproject.toml.

A missing or failing compiler does not stop the installation: the package then runs in plain PyTorch, and one line says
why, here and in fastvoc/_native/build.json. FASTVOC_NATIVE=require makes it an error; FASTVOC_NATIVE=off skips the
build; FASTVOC_CUDA_ARCHITECTURES=80;90 chooses for which GPUs CUDA kernels are compiled, "here" those of this machine,
which may be none. Their sources are shipped too, because they can also be compiled at first use, so that a machine
without nvcc loses nothing but that minute.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"


class BuildFailed(Exception):
    """Why there is no native library, as one sentence."""


class build_native(Command):
    """Compile csrc/ and place library, header and build.json in fastvoc/_native."""

    description = "compile the native library"
    user_options: ClassVar = [
        ("build-lib=", "b", "directory for the package"),
        ("build-temp=", "t", "directory for objects"),
        ("inplace", "i", "place the library in the source tree"),
        ("keep", None, "leave a library that was built from these sources, for these GPUs, and that loads here"),
    ]
    boolean_options: ClassVar = ["inplace", "keep"]

    def initialize_options(self) -> None:
        """Set what the command line may override."""
        self.build_lib: str | None = None
        self.build_temp: str | None = None
        self.inplace = False  # also set by editable installations
        self.keep = False

    def finalize_options(self) -> None:
        """Take the folders of the build."""
        self.set_undefined_options("build", ("build_lib", "build_lib"), ("build_temp", "build_temp"))

    def run(self) -> None:
        """Compile, place the files, and record what happened."""
        mode = os.environ.get("FASTVOC_NATIVE") or "auto"
        if mode not in ("auto", "require", "off"):
            raise SystemExit(f"FASTVOC_NATIVE: {mode!r} is not a mode; known: auto, require, off")
        if self.keep and serves(self._folder()):
            sys.stdout.write(f"kept what is in {self._folder()}\n")
            return
        record: dict[str, object] = {"version": self.distribution.get_version(), "library": None, "reason": None}
        made: list[Path] = []
        try:
            if mode == "off":
                raise BuildFailed("it was built with FASTVOC_NATIVE=off")
            made, facts = compile_library(Path(str(self.build_temp)).resolve() / "csrc")
            record |= {"library": made[0].name, "sources": digest(), **facts}
        except BuildFailed as reason:
            if mode == "require":
                raise SystemExit(f"fastvoc: no native library: {reason}") from None
            record["reason"] = f"the native library is absent: {reason}"
            if mode == "auto":
                sys.stderr.write(f"fastvoc: no native library, so plain PyTorch will run instead: {reason}\n")
        # Only now, so that what was there before can be used meanwhile.
        folder = self._folder()
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "cuda").mkdir(parents=True)
        for path in [*made, *SOURCES.glob("fastvoc*.h")]:
            shutil.copy(path, folder)
        for source in (SOURCES / "cuda" / "device").glob("*"):
            if source.suffix in (".cu", ".cuh", ".h"):
                shutil.copy(source, folder / "cuda")
        (folder / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def get_outputs(self) -> list[str]:
        """Return the files of the package that this command made."""
        return [str(path) for path in sorted(self._folder().rglob("*")) if path.is_file()]

    def get_output_mapping(self) -> dict[str, str]:
        """Return no files: none is a copy of one in the source tree."""
        return {}

    def get_source_files(self) -> list[str]:
        """Return what a source distribution needs."""
        suffixes = {".h", ".cuh", ".cpp", ".cu", ".txt", ".md"}
        return [str(path.relative_to(ROOT)) for path in sorted(SOURCES.rglob("*")) if path.suffix in suffixes]

    def _folder(self) -> Path:
        return (ROOT if self.inplace else Path(str(self.build_lib))) / "fastvoc" / "_native"


def compile_library(folder: Path) -> tuple[list[Path], dict[str, object]]:
    """Configure and compile; return the library, the kernels if there are any, and what CMake found out.

    CUDA kernels that do not compile cost only themselves.
    """
    cmake, ninja = tool("cmake"), tool("ninja")
    # A folder configured by another interpreter's CMake, or for another compiler, would be refused.
    shutil.rmtree(folder, ignore_errors=True)
    configure = [cmake, "-S", str(SOURCES), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    wanted = os.environ.get("FASTVOC_CUDA_ARCHITECTURES", "")
    if wanted == HERE:
        wanted = ";".join(architectures_here())
        if not wanted:
            configure.append("-DFASTVOC_CUDA=OFF")
    if wanted:
        configure.append(f"-DFASTVOC_CUDA_ARCHITECTURES={wanted}")
    call(configure, "no usable C++ compiler; install g++ or clang++, or point CXX at one")
    call([cmake, "--build", str(folder)], "the sources did not compile")
    lines = (folder / "facts.txt").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines if line)
    reason = found["cuda"] or None
    if reason is None:
        failed = f"{found['cuda_compiler']} did not compile them"
        try:
            call([cmake, "--build", str(folder), "--target", "kernels"], failed)
        except BuildFailed as failure:
            reason = f"the CUDA kernels are absent: {failure}"
            sys.stderr.write(f"fastvoc: no compiled CUDA kernels in the package: {failure}\n")
    facts = {
        "compiler": found["compiler"],
        "openmp": found["openmp"] == "TRUE",
        "isas": found["isas"].split(";"),
        "cuda": reason,
        "cuda_compiler": found["cuda_compiler"] or None,
        "cuda_architectures": found["cuda_architectures"].split(";") if reason is None else [],
    }
    library = next(path for path in folder.iterdir() if path.suffix in (".so", ".dylib", ".dll"))
    return [library, *([folder / "kernels.fatbin"] if reason is None else [])], facts


def serves(folder: Path) -> bool:
    """Tell whether a library is of these sources, has kernels for the GPUs that are asked for, and loads here."""
    if not (folder / "build.json").is_file():
        return False
    record = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    built_for = {name.rstrip("a") for name in record.get("cuda_architectures", ())}
    if record.get("sources") != digest() or not {*wanted_architectures()} <= built_for:
        return False
    try:
        ctypes.CDLL(str(folder / record["library"]))
    except OSError:
        return False
    return True


HERE = "here"
"""What FASTVOC_CUDA_ARCHITECTURES is where kernels are compiled for the GPUs of this machine alone."""


def wanted_architectures() -> list[str]:
    """Return the GPUs that FASTVOC_CUDA_ARCHITECTURES names."""
    named = os.environ.get("FASTVOC_CUDA_ARCHITECTURES", "")
    return architectures_here() if named == HERE else [name.rstrip("a") for name in named.split(";") if name]


def architectures_here() -> list[str]:
    """Return the capabilities of this machine's GPUs, such as 90, as the driver's own program tells them."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return sorted({line.replace(".", "") for line in found if re.fullmatch(r"\d+\.\d", line)})


def digest() -> str:
    """Return a checksum of what the library is built from; tests/ is not."""
    files = (path for path in sorted(SOURCES.rglob("*")) if path.is_file() and SOURCES / "tests" not in path.parents)
    contents = hashlib.sha256()
    for path in files:
        contents.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return contents.hexdigest()


def tool(name: str) -> str:
    """Find a build tool on the path or beside this interpreter."""
    path = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
    found = shutil.which(name, path=path)
    if found is None:
        raise BuildFailed(f"{name} was not found; run `pip install {name}`")
    return found


def call(command: list[str], meaning: str) -> None:
    """Run a step of the build; if it fails, say what that means and the first error line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines()]
        detail = next((line for line in lines if re.search(r"\b(error|fatal) *:", line)), "")
        raise BuildFailed(f"{meaning} ({detail})" if detail else meaning)


class BuildWithNative(build):
    """The usual build, then the native library."""

    sub_commands: ClassVar = [*build.sub_commands, ("build_native", None)]


class NativeDistribution(Distribution):
    """A package for one platform."""

    def has_ext_modules(self) -> bool:
        """Say that the package is not pure."""
        return True


class AnyPythonWheel(bdist_wheel):
    """A wheel for every Python of one platform: the library knows no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags for Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    distclass=NativeDistribution,
    cmdclass={"build": BuildWithNative, "build_native": build_native, "bdist_wheel": AnyPythonWheel},
)

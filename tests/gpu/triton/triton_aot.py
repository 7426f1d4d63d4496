"""Compile a launch for a GPU that is not there, and read what became of it. Works with Triton 3.4 to 3.9."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastvoc.ops.triton import Launch, tiles, weight_gradient

TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int32: "*i32"}


@dataclass(frozen=True)
class Compiled:
    """What one launch needs of a GPU.

    Parameters
    ----------
    registers : int
        Of one thread.
    stack : int
        Bytes of one thread that did not fit them.
    shared : int
        Bytes of shared memory of one program.
    ptx : str
    sass : str
    """

    registers: int
    stack: int
    shared: int
    ptx: str
    sass: str

    def count(self, instruction: str) -> int:
        return len(re.findall(rf"\b{instruction}", self.sass))


def describe(capability: int, make: Callable[[], Any]) -> Any:
    """Make launches as they would be made on a GPU of that capability."""
    with (
        patch.object(tiles, "_capability", lambda device: capability),
        patch.object(weight_gradient, "_multiprocessors", lambda device: 132),
    ):
        return make()


def signature(launch: Launch) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Return types, constants and alignments of the arguments, as Triton's own launcher specialises them."""
    types: dict[str, str] = {}
    constants: dict[str, Any] = {}
    alignments: dict[tuple[int], list[list[Any]]] = {}
    for number, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.constants[name] if name in launch.constants else launch.arguments[name]
        if isinstance(value, Tensor):
            types[name] = TYPES[value.dtype]
            alignments[(number,)] = [["tt.divisibility", 16]]
        elif (
            name in launch.constants
            or value is None
            or (type(value) is int and value == 1 and not parameter.do_not_specialize)
        ):
            types[name], constants[name] = "constexpr", value
        elif isinstance(value, float):
            types[name] = "fp32"
        else:
            types[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0 and not parameter.do_not_specialize:
                alignments[(number,)] = [["tt.divisibility", 16]]
    return types, constants, alignments


def compile_for(launch: Launch, capability: int) -> Compiled:
    source = ASTSource(launch.kernel, *signature(launch))
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))  # type: ignore[index]
    return Compiled(registers, stack, binary.metadata.shared, binary.asm["ptx"], sass)

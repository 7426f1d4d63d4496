"""What every command is, and the options that several share.

A command is a frozen dataclass: its docstring and those of its fields are its help, and `run` returns the exit code.
Nothing here imports torch at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    import torch

    from fastvoc import Vocoder


class UsageError(ValueError):
    """A command line that asks for something impossible; its exit code is 2."""


MISTAKES = (ValueError, TypeError, OSError, NotImplementedError)
"""What is raised for a user's mistake; anything else is a bug and shows its traceback."""


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """Anything that `fastvoc` does."""

    debug: bool = False
    """Show the traceback of an error."""

    @abstractmethod
    def run(self) -> int:
        """Do it, and return the exit code."""


@dataclass(frozen=True, kw_only=True)
class VocoderCommand(Command):
    """A command that runs a vocoder."""

    vocoder: Annotated[str, tyro.conf.arg(metavar="PATH")] = "default"
    """Folder or file of a vocoder in any format that fastvoc opens; "default" comes with the package."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to a checkpoint, where it does not lie beside it."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one (under torchrun the one of LOCAL_RANK)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Of weights and arithmetic; "auto" is float32, of which a GPU multiplies the operands in 16 bits."""
    backend: Literal["auto", "cuda", "triton", "cpu", "reference"] = "auto"
    """Run every operator on this one, or fail with the reason; "auto" is the fastest that can."""

    def open(self) -> Vocoder:
        """Open the vocoder as the options say."""
        import torch

        from fastvoc import Vocoder

        return Vocoder.from_pretrained(
            self.vocoder,
            config=self.config,
            device=choose_device(self.device),
            dtype=None if self.dtype == "auto" else getattr(torch, self.dtype),
            backend=None if self.backend == "auto" else self.backend,
        )


@dataclass(frozen=True, kw_only=True)
class FileCommand(Command):
    """A command that makes one file of each file that it is given."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("out")
    """Folder for the results, made if absent; files found inside a folder keep their place in it."""
    overwrite: bool = False
    """Make results again that are complete already, instead of skipping them."""


@dataclass(frozen=True, kw_only=True)
class WaveCommand(VocoderCommand, FileCommand):
    """A command that runs a vocoder on files and writes sound."""

    format: Literal["wav", "flac"] = "wav"
    """Of the sound files."""
    subtype: Literal["16", "24", "float"] = "16"
    """Bits of each sample; "float" is 32-bit floats, in wav only."""

    def check(self) -> None:
        """Raise before any work if the options contradict each other."""
        if self.format == "flac" and self.subtype == "float":
            raise UsageError("--subtype float: flac does not hold floats; use --format wav, or --subtype 16 or 24")


def choose_device(name: str) -> torch.device:
    """Return the device that a name means on this machine."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        # with more processes than GPUs, they share
        return torch.device("cuda", rank("LOCAL_RANK", 0) % count) if count else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: is not a device; known: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(f"--device {name}: torch sees {count} CUDA devices; use --device auto or cpu")
    return device


def rank(name: str, default: int) -> int:
    """Read a number that torchrun puts into the environment."""
    value = os.environ.get(name, "")
    if not value:
        return default
    if not value.isdigit():
        raise UsageError(f"{name}={value}: must be a whole number, as torchrun sets it")
    return int(value)

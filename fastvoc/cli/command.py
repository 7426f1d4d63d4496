"""What every command is, and the options that several share.

A command is a frozen dataclass: its docstring and those of its fields are its help, and `run` returns the exit code.
Nothing here imports torch at the top, so that `--help` answers at once.
"""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastvoc import Autoencoder, Instrument, Vocoder


class UsageError(ValueError):
    """A command line that asks for something impossible; its exit code is 2."""


MISTAKES = (ValueError, TypeError, OSError, NotImplementedError, ModuleNotFoundError)
"""What is raised for a user's mistake or an absent package; anything else is a bug and shows its traceback."""


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
    """The configuration that belongs to a checkpoint, where it does not lie beside it, or a name such as hifigan-v1."""
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
class SoundCommand(FileCommand):
    """A command that writes sound."""

    format: Literal["wav", "flac"] = "wav"
    """Of the sound files."""
    subtype: Literal["16", "24", "float"] = "16"
    """Bits of each sample; "float" is 32-bit floats, in wav only."""
    seed: int | None = None
    """Of the random numbers of a network that draws some, the same for every file; by default a fresh one, which is
    printed."""
    temperature: float | None = None
    """How much such a network leaves to chance, from 0; by default what is usual for it."""

    def check(self) -> None:
        """Raise before any work if the options contradict each other."""
        if self.format == "flac" and self.subtype == "float":
            raise UsageError("--subtype float: flac does not hold floats; use --format wav, or --subtype 16 or 24")
        if self.seed is not None:
            from fastvoc.noise import LARGEST_SEED

            if not 0 <= self.seed <= LARGEST_SEED:
                raise UsageError(f"--seed {self.seed}: must be between 0 and {LARGEST_SEED}")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise UsageError(f"--temperature {self.temperature:g}: must be a finite number, and not below 0")

    def chosen_seed(self) -> int:
        """Return the seed, which is printed where it is a fresh one."""
        from fastvoc.noise import fresh_seed

        seed = self.seed
        if seed is None:
            seed = fresh_seed()
            print(f"seed {seed}")
        return seed

    def write(self, path: Path, wave: Tensor, sample_rate: int) -> float:
        """Write a sound file, warn if it was limited, and return how many seconds it lasts."""
        from fastvoc.audio import write_audio

        limited = write_audio(path, wave, sample_rate, self.subtype)
        if limited:
            warnings.warn(describe_limited(limited, len(wave)), stacklevel=2)
        return len(wave) / sample_rate


@dataclass(frozen=True, kw_only=True)
class WaveCommand(VocoderCommand, SoundCommand):
    """A command that runs a vocoder on files and writes sound."""

    def sampling(self, vocoder: Vocoder) -> dict[str, Any]:
        """Return what a vocoder that draws random numbers is called with; any other has no such options."""
        if vocoder.draws is None:
            from fastvoc.engine.sampling import describe_no_draws

            for name, value in (("--seed", self.seed), ("--temperature", self.temperature)):
                if value is not None:
                    raise UsageError(f"{name} {value}: {describe_no_draws(vocoder.config.generator.kind)}")
            return {}
        return {"seed": self.chosen_seed(), "temperature": self.temperature}


@dataclass(frozen=True, kw_only=True)
class AutoencoderCommand(Command):
    """A command that runs an autoencoder."""

    autoencoder: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """Folder or file of an autoencoder, such as a checkpoint of NSynth."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to it, where it does not lie beside it."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one (under torchrun the one of LOCAL_RANK)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Of weights and arithmetic; "auto" is float32."""

    def open(self) -> Autoencoder:
        """Open the autoencoder as the options say."""
        import torch

        import fastvoc
        from fastvoc.faces.autoencoder import Autoencoder

        opened = fastvoc.open(
            self.autoencoder,
            config=self.config,
            device=choose_device(self.device),
            dtype=None if self.dtype == "auto" else getattr(torch, self.dtype),
        )
        if not isinstance(opened, Autoencoder):
            kind = opened.config.generator.kind
            raise UsageError(f"--autoencoder {self.autoencoder}: holds {kind!r}, which is for {type(opened).__name__}")
        return opened


@dataclass(frozen=True, kw_only=True)
class InstrumentCommand(Command):
    """A command that plays an instrument."""

    instrument: Annotated[str, tyro.conf.arg(metavar="PATH")] = "instrument"
    """Folder or file of an instrument, such as a checkpoint of GANSynth; "instrument" comes with the package."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to it, where it does not lie beside it."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one (under torchrun the one of LOCAL_RANK)."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Of weights and arithmetic; "auto" is float32."""

    def open(self) -> Instrument:
        """Open the instrument as the options say."""
        import torch

        import fastvoc
        from fastvoc.faces.instrument import Instrument

        opened = fastvoc.open(
            self.instrument,
            config=self.config,
            device=choose_device(self.device),
            dtype=None if self.dtype == "auto" else getattr(torch, self.dtype),
        )
        if not isinstance(opened, Instrument):
            kind = opened.config.generator.kind
            raise UsageError(f"--instrument {self.instrument}: holds {kind!r}, which is for {type(opened).__name__}")
        return opened

    def fit(self, wave: Tensor) -> Tensor:
        """Make a note that is louder than a file can hold as loud as that."""
        peak = float(wave.abs().max())
        return wave / peak if peak > 1 else wave


def describe_limited(limited: int, samples: int) -> str:
    """Say how much of a wave was louder than its file can hold."""
    return f"{limited} of {samples} samples lay beyond full scale and were limited, which may be heard"


def choose_device(name: str) -> torch.device:
    """Return the device that a name means on this machine."""
    from fastvoc.device import read_device

    try:
        return read_device(name, f"--device {name}")
    except ValueError as error:
        raise UsageError(str(error)) from None


def rank(name: str, default: int) -> int:
    """Read a number that torchrun puts into the environment."""
    value = os.environ.get(name, "")
    if not value:
        return default
    if not value.isdigit():
        raise UsageError(f"{name}={value}: must be a whole number, as torchrun sets it")
    return int(value)

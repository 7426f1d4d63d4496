"""`fastvoc convert`: a vocoder of any format becomes a folder of ours, or of the original HiFi-GAN."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastvoc.cli.command import Command, UsageError


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Write a vocoder of any format as a folder of config.json and weights.

    Example: fastvoc convert tts_hifigan.nemo my-vocoder
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """Folder or file of a vocoder in any format that fastvoc opens, or its name on the Hugging Face hub; "default"
    comes with the package."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the result, made if absent."""
    to: Literal["native", "hifigan"] = "native"
    """Format of the result: fastvoc's own (model.safetensors), or that of the original HiFi-GAN (g_00000000), which
    other tools open; not every architecture can be expressed there."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to a checkpoint, where it does not lie beside it."""
    half: bool = False
    """Store the weights in half precision, which halves the file and changes the sound by less than can be heard; not
    with --to hifigan."""
    overwrite: bool = False
    """Replace a result that exists already."""

    def run(self) -> int:
        """Open, write, and say what was noticed."""
        self._check()

        from fastvoc.checkpoints import hifigan, open_checkpoint, save_native
        from fastvoc.vocoder import DEFAULT

        path = str(files("fastvoc") / "assets") if self.path == DEFAULT else self.path
        checkpoint = open_checkpoint(path, config=self.config)
        if self.to == "native":
            save_native(self.out, checkpoint.config, checkpoint.weights, half=self.half)
        else:
            hifigan.save(self.out, checkpoint.config, checkpoint.weights)
        print(f"{self.path}: {checkpoint.source}")
        for note in checkpoint.notes:
            print(f"  note: {note}")
        print(f"{self.out}: written")
        return 0

    def _check(self) -> None:
        """Raise before any work if the result has no place or no such form."""
        if self.half and self.to != "native":
            raise UsageError(f"--half: a folder for --to {self.to} holds single precision; leave out one of them")
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out}: is a file; the result is a folder")
        source = Path(self.path)
        folder = source if source.is_dir() else source.parent
        if self.out.exists() and source.exists() and self.out.samefile(folder):
            raise UsageError(f"{self.out}: holds what is converted; name another folder for the result")
        if not self.overwrite and self.out.is_dir() and any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is not empty; name another folder, or replace files in it with --overwrite")

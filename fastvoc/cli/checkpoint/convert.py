"""`fastvoc convert`: a vocoder of any format becomes a folder of ours, of another that is written, or an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fastvoc.cli.command import Command, UsageError

if TYPE_CHECKING:
    from fastvoc.checkpoints import Format


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Write a vocoder of any format as a folder of config.json and weights, or as an ONNX file for other engines.

    Example: fastvoc convert tts_hifigan.nemo my-vocoder
    """

    path: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """Folder or file of a vocoder in any format that fastvoc opens, or its name on the Hugging Face hub; "default"
    comes with the package."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the result, made if absent, or a file whose name ends in .onnx."""
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT")] = "native"
    """Format of the result: native is fastvoc's own (model.safetensors); hifigan (g_00000000) and melgan (netG.pt) are
    those of the originals, which other tools open, and which cannot express every architecture."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The configuration that belongs to a checkpoint, where it does not lie beside it: a file, or a name such as
    hifigan-v1."""
    half: bool = False
    """Store the weights in half precision, which halves the file and changes the sound by less than can be heard; not
    with another --to."""
    overwrite: bool = False
    """Replace a result that exists already."""

    def run(self) -> int:
        """Open, write, and say what was noticed."""
        self._check()

        from fastvoc.checkpoints import FORMATS, VocoderConfig, open_checkpoint
        from fastvoc.checkpoints.formats.native import in_half
        from fastvoc.config import nearest
        from fastvoc.faces.face import locate
        from fastvoc.faces.voice import Voice, open_voice

        writers = {one.name: one.write for one in FORMATS if one.write is not None}
        if self.to not in writers:
            known = "name OUT voice.onnx instead" if self.to == "onnx" else nearest(self.to, list(writers))
            raise UsageError(f"--to {self.to}: is no format that is written; {known}")
        if self.half and not FORMATS[self.to].half:
            raise UsageError(f"--half: a folder for --to {self.to} holds single precision; leave out one of them")
        where = locate(self.path)
        read = open_voice if Voice.opens(where) else open_checkpoint
        checkpoint = read(where, config=self.config)
        if not isinstance(checkpoint.config, VocoderConfig) and (self._is_onnx or self.to != "native"):
            kind = checkpoint.config.generator.kind
            raise UsageError(f"{self.path}: holds {kind!r}, which is no vocoder; name a folder, and leave out --to")
        if self._is_onnx:
            from fastvoc.export import write_onnx
            from fastvoc.faces.vocoder import Vocoder

            write_onnx(Vocoder(checkpoint), self.out)
            return self._say(checkpoint.source, checkpoint.notes)
        own = self._files_of(FORMATS[self.to])
        if others := [path.name for one in FORMATS if one.write for path in self._files_of(one) if path not in own]:
            raise ValueError(
                f"{self.out}: holds {others[0]} of another format, which would be opened instead; name another folder"
            )
        weights = in_half(checkpoint.config, checkpoint.weights) if self.half else checkpoint.weights
        writers[self.to](self.out, checkpoint.config, weights)
        return self._say(checkpoint.source, checkpoint.notes)

    def _files_of(self, form: Format) -> list[Path]:
        return [path for pattern in form.files for path in self.out.glob(pattern)]

    @property
    def _is_onnx(self) -> bool:
        return self.out.suffix.lower() == ".onnx"

    def _say(self, source: str, notes: Sequence[str]) -> int:
        print(f"{self.path}: {source}")
        for note in notes:
            print(f"  note: {note}")
        print(f"{self.out}: written")
        return 0

    def _check(self) -> None:
        """Raise before any work if the result has no place or no such form."""
        if self._is_onnx:
            if self.half or self.to != "native":
                raise UsageError(f"{self.out}: an ONNX file is in single precision; leave out --half and --to")
            if self.out.is_dir():
                raise UsageError(f"{self.out}: is a folder; the result is a file")
            if self.out.exists() and not self.overwrite:
                raise UsageError(f"{self.out}: exists; name another file, or replace it with --overwrite")
            return
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"{self.out}: is a file; the result is a folder, or a file whose name ends in .onnx")
        source = Path(self.path)
        folder = source if source.is_dir() else source.parent
        if self.out.exists() and source.exists() and self.out.samefile(folder):
            raise UsageError(f"{self.out}: holds what is converted; name another folder for the result")
        if not self.overwrite and self.out.is_dir() and any(self.out.iterdir()):
            raise UsageError(f"{self.out}: is not empty; name another folder, or replace files in it with --overwrite")

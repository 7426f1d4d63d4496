"""Files have their names when they are complete; what fails in the middle leaves the older file, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from fastvoc.audio import CONVENTIONS, write_audio
from fastvoc.audio.picture import draw_comparison
from fastvoc.cli.vocoder.mel_files import read_mel, write_mel
from fastvoc.train.report.report import pictures

WAVE = torch.sin(torch.arange(4000) / 9) / 2


def comparison(path: Path) -> None:
    draw_comparison(path, {"one": WAVE}, CONVENTIONS["hifigan"])


WRITERS: dict[str, tuple[str, Callable[[Path], Any], Any, str]] = {
    "a mel": ("clip.npy", lambda path: write_mel(path, torch.ones(80, 5)), np, "save"),
    "sound": ("clip.wav", lambda path: write_audio(path, WAVE, 8000), soundfile, "write"),
    "a comparison": ("two.png", comparison, Figure, "savefig"),
    "a picture of training": ("curves.png", lambda path: pictures.save(Figure(), path), Figure, "savefig"),
}
"""A name, what writes it, and the function of a library that puts bytes into it."""


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("what", WRITERS)
def test_a_file_is_complete_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, error: BaseException
) -> None:
    name, write, library, function = WRITERS[what]
    whole = getattr(library, function)

    def broken(*arguments: Any, **options: Any) -> None:
        whole(*arguments, **options)
        raise error

    def names() -> list[str]:
        return [path.name for path in tmp_path.iterdir()]

    with monkeypatch.context() as patched:
        patched.setattr(library, function, broken)
        with pytest.raises(type(error)):
            write(tmp_path / name)
    assert names() == []
    (tmp_path / name).write_bytes(b"older")
    with monkeypatch.context() as patched:
        patched.setattr(library, function, broken)
        with pytest.raises(type(error)):
            write(tmp_path / name)
    assert names() == [name]
    assert (tmp_path / name).read_bytes() == b"older"
    write(tmp_path / name)
    assert names() == [name]
    assert (tmp_path / name).read_bytes() != b"older"


def test_a_mel_is_read_as_it_was_written(tmp_path: Path) -> None:
    mel = torch.randn(80, 7, generator=torch.Generator().manual_seed(0))
    write_mel(tmp_path / "clip.npy", mel)
    assert torch.equal(read_mel(tmp_path / "clip.npy"), mel)

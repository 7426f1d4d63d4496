"""Files appear under their names only when they are complete, whatever the name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from fastvoc.audio import CONVENTIONS, write_audio
from fastvoc.audio.picture import draw_comparison
from fastvoc.cli.vocoder.mel_files import write_mel
from fastvoc.config import write_json
from fastvoc.writing import complete_file, temporary_path

WAVE = torch.linspace(-1, 1, 2048)

# 255 bytes is what file systems take; letters of three bytes reach it sooner
NAMES = {
    "short": "a",
    "longest": "a" * 251,
    "longest, of three bytes a letter": "音" * 83,
    "undecodable": os.fsdecode(b"caf\xe9"),
    "undecodable and longest": os.fsdecode(b"\xe9" * 251),
}

WRITERS = {
    "sound": (".wav", lambda path: write_audio(path, WAVE, 22050)),
    "sound, compressed": (".ogg", lambda path: write_audio(path, WAVE, 22050)),
    "mel": (".npy", lambda path: write_mel(path, WAVE[None])),
    "picture": (".png", lambda path: draw_comparison(path, {"one": WAVE}, CONVENTIONS["hifigan"])),
    "settings": (".x", lambda path: write_json(CONVENTIONS["hifigan"], path)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_writer_takes_every_name_that_the_file_system_takes(tmp_path: Path, name: str, writer: str) -> None:
    suffix, write = WRITERS[writer]
    path = tmp_path / (NAMES[name] + suffix)
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system does not take the name")
    write(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_size > 0


def test_temporary_name_is_short_in_the_same_folder_and_its_own() -> None:
    long = [Path("folder", "a" * 254 + letter) for letter in "bc"]
    names = [temporary_path(path) for path in (*long, Path("folder", "b.wav"))]
    assert {path.parent for path in names} == {Path("folder")}
    assert len(set(names)) == 3
    assert max(len(os.fsencode(path.name)) for path in names) <= 64
    assert names[2].name.startswith("b.wav.") and names[2].name.endswith(".partial")
    assert temporary_path(long[0]) == names[0]
    with ThreadPoolExecutor(1) as others:
        assert others.submit(temporary_path, long[0]).result() != names[0]


def test_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half"), complete_file(path) as temporary:
        temporary.write_bytes(np.zeros(9).tobytes())
        raise RuntimeError("half written")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

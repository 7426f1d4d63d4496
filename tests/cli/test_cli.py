"""The command line: what it writes, what it says, and the exit codes that scripts rely on."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file

from fastvoc import Vocoder, __version__
from fastvoc.audio import CONVENTIONS, MelConfig, convert_mel, mel_l1, mel_spectrogram, read_audio
from fastvoc.audio.picture import draw_comparison
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.cli import COMMANDS, command, main, terminal
from fastvoc.cli.checkpoint.info import multiply_accumulates
from fastvoc.cli.machine import doctor
from fastvoc.cli.vocoder.mel_files import read_mel
from fastvoc.models import HiFiGANConfig, MelGANConfig
from fastvoc.ops import OPS, backends, contract
from fastvoc.train.data.lists import SUFFIXES

BANDS = 6
RATE = 16000
MEL = MelConfig(sample_rate=RATE, fft_size=256, hop=8, window_size=256, bands=BANDS, low=0, high=8000)


def make_vocoder(generator: Any) -> Vocoder:
    torch.manual_seed(0)
    weights = {name: 2 * value for name, value in generator.build().state_dict().items()}
    return Vocoder(Checkpoint(VocoderConfig(generator=generator, mel=MEL), weights, "a test"))


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return make_vocoder(HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4)))


@pytest.fixture(scope="module")
def folder(vocoder: Vocoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("vocoder") / "small"
    vocoder.save_pretrained(path)
    return str(path)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_mel(frames: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.rand(BANDS, frames, generator=torch.Generator().manual_seed(seed)) * 10 - 11


def save_mel(path: str, frames: int = 20) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, a_mel(frames).numpy())
    return file


def save_tone(path: str, rate: int = RATE, *, channels: int = 1) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate // 10) / rate)
    soundfile.write(file, np.stack([tone] * channels, axis=1), rate)
    return file


def files_in(path: str) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file())


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastvoc {__version__}\n"
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "notes"), "notes render", "notes evaluate"])
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Example: fastvoc {name}" in shown
    assert "--debug" in shown


WRONG_USAGE = {
    "no command": [],
    "unknown command": ["sing"],
    "unknown option": ["vocode", "x.npy", "--louder"],
    "unknown choice": ["vocode", "x.npy", "--format", "aiff"],
    "no input": ["vocode"],
    "floats in flac": ["resynth", "x.wav", "--format", "flac", "--subtype", "float"],
    "two conventions": ["mel", "x.wav", "--convention", "hifigan", "--vocoder", "x"],
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_is_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(WRONG_USAGE[case]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_process_has_the_exit_code_and_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastvoc", "vocode", "absent.npy", "--vocoder", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "fastvoc: nowhere: no such file or folder\n"


MEL_FILES = {
    "npy": lambda mel, path: np.save(path, mel.numpy()),
    "npy, double": lambda mel, path: np.save(path, mel.double().numpy()),
    "npy, other byte order": lambda mel, path: np.save(path, mel.numpy().astype(">f4")),
    "npy, Fortran order": lambda mel, path: np.save(path, np.asfortranarray(mel.numpy())),
    "npy, batch of one": lambda mel, path: np.save(path, mel[None].numpy()),
    "npz": lambda mel, path: np.savez(path, mel=mel.numpy()),
    "pt": lambda mel, path: torch.save(mel, path),
    "pt, dictionary": lambda mel, path: torch.save({"mel": mel, "step": 3}, path),
    "safetensors": lambda mel, path: save_file({"mel": mel}, path),
}


@pytest.mark.parametrize("kind", MEL_FILES)
def test_vocode_reads_every_format(kind: str, vocoder: Vocoder, folder: str) -> None:
    MEL_FILES[kind](a_mel(), f"clip.{kind.split(',')[0]}")
    assert main(["vocode", f"clip.{kind.split(',')[0]}", "--vocoder", folder, "--subtype", "float"]) == 0
    wave, rate = soundfile.read("out/clip.wav", dtype="float32")
    assert rate == RATE
    # another memory order may add in another order
    np.testing.assert_allclose(wave, vocoder(a_mel()).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "subtype"), [("wav", "16"), ("wav", "24"), ("flac", "16"), ("flac", "24")])
def test_format_and_subtype_are_what_was_asked_for(name: str, subtype: str, vocoder: Vocoder, folder: str) -> None:
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--format", name, "--subtype", subtype]) == 0
    found = soundfile.info(f"out/clip.{name}")
    assert (found.format, found.subtype) == (name.upper(), f"PCM_{subtype}")
    wave, _ = soundfile.read(f"out/clip.{name}")
    np.testing.assert_allclose(wave, vocoder(a_mel()).numpy(), rtol=0, atol=2.0 ** -int(subtype))


SEVERAL = {
    "npz with f0": (lambda mel, path: np.savez(path, f0=np.zeros(20), mel=mel), "a.npz"),
    "pt with f0": (lambda mel, path: torch.save({"f0": torch.zeros(20), "mel": torch.from_numpy(mel)}, path), "a.pt"),
    "safetensors with f0": (
        lambda mel, path: save_file({"f0": torch.zeros(20), "mel": torch.from_numpy(mel)}, path),
        "a.safetensors",
    ),
    "HDF5": (lambda mel, path: save_hdf5(path, mel=mel), "a.h5"),
    "HDF5 dump of ParallelWaveGAN": (lambda mel, path: save_hdf5(path, wave=np.zeros(160), feats=mel), "a.h5"),
    "npz, by name": (lambda mel, path: np.savez(path, x=mel, y=np.zeros(3)), "a.npz", "--key", "x"),
    "npz, by name beside a mel": (lambda mel, path: np.savez(path, x=mel, mel=-mel), "a.npz", "--key", "x"),
    "HDF5, by name in a group": (lambda mel, path: save_hdf5(path, **{"a/b": mel, "c": mel}), "a.h5", "--key", "a/b"),
    "npy of (frames, bands)": (lambda mel, path: np.save(path, mel.T), "a.npy", "--transposed"),
    "npy of (1, frames, bands)": (lambda mel, path: np.save(path, mel.T[None]), "a.npy", "--transposed"),
    "HDF5 of (frames, bands)": (lambda mel, path: save_hdf5(path, feats=mel.T, f0=mel), "a.hdf5", "--transposed"),
}


def save_hdf5(path: str, **arrays: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


@pytest.mark.parametrize("kind", SEVERAL)
def test_mel_is_found_among_several_arrays_and_turned(kind: str, vocoder: Vocoder, folder: str) -> None:
    save, name, *options = SEVERAL[kind]
    save(a_mel().numpy(), name)
    assert main(["vocode", name, "--vocoder", folder, "--subtype", "float", *options]) == 0
    wave, _ = soundfile.read("out/a.wav", dtype="float32")
    np.testing.assert_allclose(wave, vocoder(a_mel()).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "options", "sentence"),
    [
        ({"mel": a_mel(), "feats": a_mel()}, [], "holds 2 arrays (mel, feats); name the mel with --key"),
        ({"x": a_mel(), "y": a_mel()}, ["--key", "z"], "holds no array that is called 'z'; it holds x, y"),
        ({"mel": a_mel()}, ["--transposed"], "shape (20, 6) and must be (6, frames); it seems to be transposed: leave"),
        (
            {"mel": a_mel().T},
            [],
            "shape (20, 6) and must be (6, frames); it seems to be transposed: --transposed turns",
        ),
    ],
)
def test_mel_that_is_not_found_names_the_option(
    arrays: dict, options: list[str], sentence: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("a.npz", **{name: mel.numpy() for name, mel in arrays.items()})
    assert main(["vocode", "a.npz", "--vocoder", folder, *options]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("a.npz: ")
    assert sentence in shown


def test_hdf5_without_its_package_says_how_to_install_it(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    Path("a.h5").write_bytes(b"")
    assert main(["vocode", "a.h5", "--vocoder", folder]) == 1
    assert capsys.readouterr().err == "a.h5: is an HDF5 file; to read it, run: pip install 'fastvoc[hdf5]'\n"


def broken_mels() -> None:
    save_mel("bad/good.npy")
    np.save("bad/a-transposed.npy", a_mel().T.numpy())
    np.save("bad/b-objects.npy", np.array([{}], dtype=object))
    np.save("bad/c-integers.npy", np.zeros((BANDS, 5), dtype=np.int16))
    np.save("bad/d-batch.npy", np.zeros((2, BANDS, 5), dtype=np.float32))
    np.savez("bad/e-two.npz", one=a_mel().numpy(), other=a_mel().numpy())
    Path("bad/f-cut.npy").write_bytes(Path("bad/good.npy").read_bytes()[:-9])
    Path("bad/g-empty.npy").touch()
    for name in ("h-text.pt", "i-text.npz", "j-text.safetensors"):
        Path("bad", name).write_text("not a mel")
    torch.save([1, 2], "bad/k-list.pt")
    np.save("bad/l-words.npy", np.array(["mel"]))
    torch.save(torch.empty(BANDS, 5, device="meta"), "bad/m-meta.pt")
    torch.save(a_mel().to_sparse(), "bad/n-sparse.pt")
    np.savez("bad/o-none.npz")


ERROR_LINES = {
    "a-transposed.npy": "seems to be transposed",
    "b-objects.npy": "pickled objects are never opened",
    "c-integers.npy": "must be floating point",
    "d-batch.npy": "holds 2 mels; one file holds one",
    "e-two.npz": "holds 2 arrays (one, other); name the mel with --key",
    "f-cut.npy": "is damaged",
    "g-empty.npy": "is damaged",
    "h-text.pt": "is damaged",
    "i-text.npz": "is damaged",
    "j-text.safetensors": "is damaged",
    "k-list.pt": "holds a list",
    "l-words.npy": "is damaged, or not a .npy file of numbers",
    "m-meta.pt": "holds a sparse, quantized or empty kind of tensor",
    "n-sparse.pt": "holds a sparse, quantized or empty kind of tensor",
    "o-none.npz": "holds no array",
}


def test_bad_files_are_named_one_line_each_and_the_others_go_on(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_mels()
    assert main(["vocode", "bad", "absent.npy", "--vocoder", folder]) == 1
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert lines[0] == "absent.npy: no such file or folder"
    assert len(lines) == 1 + len(ERROR_LINES)
    for line, (name, sentence) in zip(lines[1:], ERROR_LINES.items(), strict=True):
        assert line.startswith(f"bad/{name}: ")
        assert sentence in line
    assert files_in("out") == ["good.wav"]
    assert shown.out.startswith("1 written to out, 16 failed; ")


def test_debug_shows_the_traceback(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("clip.npy").touch()
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--debug"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "EOFError" in shown  # the cause too


def test_bug_is_not_hidden(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Vocoder, "__call__", broken)
    save_mel("clip.npy")
    with pytest.raises(AssertionError, match="a bug"):
        main(["vocode", "clip.npy", "--vocoder", folder])


def test_interruption_is_130_and_leaves_nothing_incomplete(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Vocoder, "__call__", interrupted)
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder]) == 130
    assert files_in("out") == []


def test_suspicious_mel_is_a_warning_with_the_name(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("loud.npy", 8.7 * a_mel().numpy())
    assert main(["vocode", "loud.npy", "--vocoder", folder]) == 0
    shown = capsys.readouterr().err
    assert shown.startswith("loud.npy: warning: ")
    assert "decibels" in shown
    assert len(shown.splitlines()) == 1


def test_limited_samples_are_counted_by_every_command_that_writes_sound(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loud(*_: object, **__: object) -> torch.Tensor:
        return torch.tensor([0.5, 1.5, -3.0, 1.0] * 3000)

    save_mel("a.npy")
    save_tone("b.wav")
    monkeypatch.setattr(Vocoder, "__call__", loud)
    limited = "6000 of 12000 samples lay beyond full scale and were limited"
    for arguments, name in (["vocode", "a.npy"], "a.npy"), (["resynth", "b.wav"], "b.wav"):
        assert main([*arguments, "--vocoder", folder]) == 0
        assert capsys.readouterr().err.startswith(f"{name}: warning: {limited}")
        assert main([*arguments, "--vocoder", folder, "--subtype", "float", "--overwrite"]) == 0
        assert capsys.readouterr().err == ""
    assert main(["demo", "--out", "shown", "--no-speeds"]) == 0
    assert capsys.readouterr().err.startswith(f"shown/demo.wav: warning: {limited}")


def test_sound_in_the_range_of_integers_is_a_warning_of_every_command(
    folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write("big.wav", 16000 * np.sin(np.arange(1600) / 9), RATE, subtype="FLOAT")
    for command_line in (["mel", "--vocoder", folder], ["resynth", "--vocoder", folder]):
        main([command_line[0], "big.wav", *command_line[1:]])
        shown = capsys.readouterr().err
        assert "big.wav: warning: " in shown
        assert "integers of 16 bits, divide them by 32768" in shown


def test_complete_results_are_skipped_and_counted(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel("mels/a.npy")
    save_mel("mels/b.npy")
    vocode = ["vocode", "mels", "--vocoder", folder]
    assert main(vocode) == 0
    assert capsys.readouterr().out.startswith("2 written to out; ")
    Path("out/a.wav").write_bytes(b"as it was")
    Path("out/b.wav").unlink()
    assert main(vocode) == 0
    assert capsys.readouterr().out.startswith("1 written to out, 1 skipped, complete already (--overwrite")
    assert Path("out/a.wav").read_bytes() == b"as it was"
    assert main([*vocode, "--overwrite"]) == 0
    assert capsys.readouterr().out.startswith("2 written to out; ")
    assert soundfile.info("out/a.wav").frames == 160
    assert files_in("out") == ["a.wav", "b.wav"]


def test_nothing_but_results_is_printed_to_a_pipe(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert re.fullmatch(r"1 written to out; 0\.0 s of sound in \d+\.\d s, \d+\.\d times real time\n", shown.out)


NAMES = {
    "a file": (["set/one.npy"], ["one.wav"]),
    "a folder": (["set"], ["deep/er/three.wav", "deep/one.wav", "one.wav", "two.wav"]),
    "a glob": (["set/*.npy"], ["one.wav"]),
    "any depth": (["set/**/*.npy"], ["deep/er/three.wav", "deep/one.wav", "one.wav"]),
    "a wildcard for a folder": (["set/d*/one.npy"], ["deep/one.wav"]),
    "a glob of folders": (["set/d*"], ["deep/er/three.wav", "deep/one.wav"]),
    "other case": (["set/*.NPY"], ["two.wav"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_results_are_named_after_the_inputs(case: str, folder: str) -> None:
    inputs, expected = NAMES[case]
    for name in ("one.npy", "deep/one.npy", "deep/er/three.npy", "two.NPY.npy"):
        save_mel(f"set/{name}", frames=5)
    Path("set/two.NPY.npy").rename("set/two.NPY")
    Path("set/notes.txt").write_text("not a mel")
    assert main(["vocode", *inputs, "--vocoder", folder]) == 0
    assert files_in("out") == expected


def test_linked_folders_are_searched_and_loops_end(folder: str) -> None:
    save_mel("data/near/one.npy", frames=5)
    save_mel("elsewhere/two.npy", frames=5)
    Path("data/linked").symlink_to(Path("elsewhere").resolve(), target_is_directory=True)
    Path("data/near/up").symlink_to(Path("data").resolve(), target_is_directory=True)
    Path("elsewhere/back").symlink_to(Path("data").resolve(), target_is_directory=True)
    Path("data/near/lost").symlink_to("nowhere")
    for number, pattern in enumerate(("data", "data/**/*.npy", "data/*/*.npy")):
        assert main(["vocode", pattern, "--vocoder", folder, "--out", f"out{number}"]) == 0
        assert files_in(f"out{number}") == ["linked/two.wav", "near/one.wav"]


def test_what_macs_write_beside_files_is_no_input(folder: str) -> None:
    save_mel("data/one.npy", frames=5)
    Path("data/._one.npy").write_bytes(b"resource fork")
    for number, pattern in enumerate(("data", "data/*.npy", "data/**")):
        assert main(["vocode", pattern, "--vocoder", folder, "--out", f"out{number}"]) == 0
        assert files_in(f"out{number}") == ["one.wav"]


@pytest.mark.parametrize("pattern", ["~/mels/*.npy", "~/mels", "~/mels/one.npy"])
def test_home_folder_is_expanded_in_every_path(pattern: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_mel("house/mels/one.npy", frames=5)
    monkeypatch.setenv("HOME", str(Path("house").resolve()))
    Path("house/v").symlink_to(folder, target_is_directory=True)
    assert main(["vocode", pattern, "--vocoder", "~/v", "--out=~/waves"]) == 0
    assert files_in("house/waves") == ["one.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on other systems")
def test_names_that_are_no_text_are_files_as_others(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9")
    for number, (suffix, save) in enumerate(
        {
            "npy": lambda path: np.save(path, a_mel().numpy()),
            "npz": lambda path: np.savez(path, a_mel().numpy()),
            "pt": lambda path: path.open("wb").write(_bytes(lambda file: torch.save(a_mel(), file))),
            "safetensors": lambda path: path.write_bytes(safetensors_bytes({"mel": a_mel()})),
        }.items()
    ):
        Path(f"mels{number}").mkdir()
        save(Path(f"mels{number}", f"{name}.{suffix}"))
        assert main(["vocode", f"mels{number}", "--vocoder", folder, "--out", f"out{number}"]) == 0
        assert files_in(f"out{number}") == [f"{name}.wav"]
    assert main(["resynth", "out0", "--vocoder", folder, "--out", "again"]) == 0
    Path("mels0", f"{name}.npy").write_bytes(b"")
    assert main(["vocode", "mels0", "--vocoder", folder, "--overwrite"]) == 1
    assert "caf" in capsys.readouterr().err


def _bytes(write: Any) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


# What a terminal is asked for, of which every code page lacks something.
TERMINAL = {
    "doctor": (["doctor"], 0),
    "info": (["info", "语音/é"], 0),
    "info of nothing": (["info", "没有"], 1),
    "convert": (["convert", "语音/é", "结果"], 0),
    "vocode": (["vocode", "梅尔", "--vocoder", "语音/é", "--out", "声音"], 1),
    "resynth": (["resynth", "é.wav", "--vocoder", "语音/é"], 1),
    "mel": (["mel", "é.wav", "--convention", "hifigan"], 1),
    "bench": (["bench", "é"], 2),
    "demo": (["demo", "--vocoder", "语音"], 1),
    "train": (["train", "list"], 0),
    "train on nothing": (["train", "配方"], 1),
    **{f"help of {name}": ([name, "--help"], 0) for name in COMMANDS},
}


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252", "utf-8"])
def test_no_command_dies_of_a_code_page(encoding: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, "语音/é")
    Path("梅尔").mkdir()
    Path("梅尔", os.fsdecode(b"\xe9.npy") if sys.platform == "linux" else "é.npy").write_bytes(b"")
    for case, (arguments, code) in TERMINAL.items():
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            found = main(arguments)
            for stream in streams:
                stream.flush()
        shown = b"".join(stream.buffer.getvalue() for stream in streams)  # type: ignore[attr-defined]
        assert found == code, (case, shown)
        assert shown
        assert b"Traceback" not in shown


def test_process_of_another_code_page_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastvoc", "info", "没有"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr) == (
        1,
        b"fastvoc: \\u6ca1\\u6709: no such file or folder" + os.linesep.encode(),
    )


def test_file_that_is_named_twice_is_done_once(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel("set/one.npy")
    assert main(["vocode", "set/one.npy", "set", "set/*.npy", "--vocoder", folder]) == 0
    assert capsys.readouterr().out.startswith("1 written")


def test_name_with_brackets_is_a_file_first(folder: str) -> None:
    save_mel("take[1].npy")
    assert main(["vocode", "take[1].npy", "--vocoder", folder]) == 0
    assert files_in("out") == ["take[1].wav"]


def test_results_of_an_earlier_run_are_no_inputs(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_tone("clip.wav")
    for _ in range(2):
        assert main(["resynth", ".", "--vocoder", folder]) == 0
    assert files_in("out") == ["clip.wav"]
    assert "1 skipped" in capsys.readouterr().out


def test_two_inputs_never_become_one_result(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel("a/clip.npy")
    save_mel("b/clip.npy")
    assert main(["vocode", "a/clip.npy", "b/clip.npy", "--vocoder", folder]) == 2
    assert "a/clip.npy and b/clip.npy would both become out/clip.wav" in capsys.readouterr().err
    assert not Path("out").exists()


def test_result_never_replaces_an_input(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = save_tone("clip.wav").read_bytes()
    assert main(["resynth", "clip.wav", "--vocoder", folder, "--out", ".", "--overwrite"]) == 2
    assert "would replace an input" in capsys.readouterr().err
    assert Path("clip.wav").read_bytes() == before


@pytest.mark.parametrize("pattern", ["empty", "empty/*.npy"])
def test_input_that_gives_nothing_is_an_error(pattern: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["vocode", pattern, "--vocoder", folder]) == 1
    assert re.match(rf"{re.escape(pattern)}: this (folder holds|glob matches) no file", capsys.readouterr().err)


def test_processes_share_the_files(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        save_mel(f"mels/{number}.npy", frames=5)
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        # only the first speaks of what is wrong for all
        assert main(["vocode", "mels", "absent.npy", "--vocoder", folder, "--out", f"out{number}"]) == (number == 0)
        assert ("absent.npy" in capsys.readouterr().err) == (number == 0)
        shares.append(files_in(f"out{number}"))
    assert shares == [["0.wav", "3.wav", "6.wav"], ["1.wav", "4.wav"], ["2.wav", "5.wav"]]


@pytest.mark.parametrize(("number", "count"), [("3", "3"), ("one", "3")])
def test_nonsense_in_the_environment_is_refused(
    number: str, count: str, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", number)
    monkeypatch.setenv("WORLD_SIZE", count)
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder]) == 2
    assert f"RANK={number}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gpus", "local", "expected"), [(0, "1", "cpu"), (1, "", "cuda:0"), (4, "2", "cuda:2"), (2, "3", "cuda:1")]
)
def test_automatic_device(gpus: int, local: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert str(command.choose_device("auto")) == expected


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_device_that_is_not_there_is_refused(device: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--device", device]) == 2
    assert capsys.readouterr().err.startswith(f"fastvoc: --device {device}: ")


def test_forced_backend_that_refuses_gives_its_reason(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    absent = [(name, reason) for name, reason in backends().items() if reason is not None]
    if not absent:
        pytest.skip("every backend is usable here")
    name, reason = absent[0]
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--backend", name]) == 1
    assert str(reason) in capsys.readouterr().err


def test_dtype_is_that_of_the_arithmetic(folder: str) -> None:
    save_mel("clip.npy")
    options = ["--vocoder", folder, "--subtype", "float", "--dtype", "float64"]
    assert main(["vocode", "clip.npy", *options]) == 0
    exact = Vocoder.from_pretrained(folder, dtype=torch.float64)(a_mel()).float()
    wave, _ = soundfile.read("out/clip.wav", dtype="float32")
    np.testing.assert_array_equal(wave, exact.numpy())


def test_mel_of_another_convention_is_converted(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Vocoder.from_pretrained(folder).config.mel
    theirs = replace(own, logarithm="decimal", floor=1e-10)
    decimal = convert_mel(a_mel(), own, theirs)
    np.save("clip.npy", decimal.numpy())
    monkeypatch.setitem(CONVENTIONS, "theirs", theirs)
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--subtype", "float", "--convention", "theirs"]) == 0
    wave, _ = soundfile.read("out/clip.wav", dtype="float32")
    np.testing.assert_array_equal(wave, Vocoder.from_pretrained(folder)(decimal, convention=theirs).numpy())


@pytest.mark.parametrize(
    ("name", "sentence"), [("hifigen", "did you mean 'hifigan'"), ("vocos", "cannot be converted exactly: the mel has")]
)
def test_mel_of_an_impossible_convention_is_wrong_usage(
    name: str, sentence: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_mel("clip.npy")
    assert main(["vocode", "clip.npy", "--vocoder", folder, "--convention", name]) == 2
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(16000, 1, "wav"), (24000, 2, "flac"), (8000, 1, "ogg")])
def test_resynth_takes_any_rate_and_format(
    rate: int, channels: int, suffix: str, vocoder: Vocoder, folder: str
) -> None:
    save_tone(f"clip.{suffix}", rate, channels=channels)
    assert main(["resynth", f"clip.{suffix}", "--vocoder", folder, "--subtype", "float"]) == 0
    wave, written = soundfile.read("out/clip.wav", dtype="float32")
    assert written == RATE
    original, _ = read_audio(f"clip.{suffix}", RATE)
    np.testing.assert_array_equal(wave, vocoder(vocoder.mel(original)).numpy())


def test_mel_is_in_the_convention_that_was_named(capsys: pytest.CaptureFixture[str]) -> None:
    save_tone("clips/tone.wav", 22050)
    assert main(["mel", "clips", "--convention", "hifigan", "--out", "mels"]) == 0
    wave, _ = read_audio("clips/tone.wav")
    found = read_mel(Path("mels/tone.npy"))
    assert found.dtype == torch.float32
    assert torch.equal(found, mel_spectrogram(wave, CONVENTIONS["hifigan"]))
    assert CONVENTIONS["hifigan"].describe() in capsys.readouterr().out
    assert files_in("mels") == ["tone.npy"]


def test_folders_are_searched_for_what_training_takes_for_sound(capsys: pytest.CaptureFixture[str]) -> None:
    """Each ending is a recording to both, and there is no second list of them."""
    tone = save_tone("tone.wav").rename("tone")
    for ending in SUFFIXES:
        Path("clips", ending[1:]).mkdir(parents=True)
        Path("clips", ending[1:], f"tone{ending}").write_bytes(tone.read_bytes())
    assert main(["mel", "clips", "--convention", "hifigan", "--out", "mels"]) == 0
    assert files_in("mels") == sorted(f"{ending[1:]}/tone.npy" for ending in SUFFIXES)


def test_mel_is_in_the_convention_of_a_vocoder(vocoder: Vocoder, folder: str) -> None:
    save_tone("tone.wav", 24000)
    assert main(["mel", "tone.wav", "--vocoder", folder]) == 0
    wave, _ = read_audio("tone.wav", RATE)
    assert torch.equal(read_mel(Path("out/tone.npy")), vocoder.mel(wave))


def test_unknown_convention_has_a_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    save_tone("tone.wav")
    assert main(["mel", "tone.wav", "--convention", "hifi-gan"]) == 2
    assert "did you mean 'hifigan'?" in capsys.readouterr().err


def test_info_tells_what_a_vocoder_is(vocoder: Vocoder, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", folder]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    past, future = vocoder.receptive_field
    for fact in (
        f"parameters {sum(p.numel() for p in vocoder.generator.parameters()):,}",
        "sample rate 16000 Hz",
        "hop 8 samples, 0.50 ms",
        f"before a frame {past} frames, {past * 0.5:.0f} ms",
        f"behind a frame {future} frames, {future * 0.5:.0f} ms",
        MEL.describe(),
        "kind hifigan",
        "rates [4, 2]",
    ):
        assert fact in shown


def test_info_counts_multiply_accumulates(vocoder: Vocoder) -> None:
    # per mel frame: 1 row behind the stem, 4 behind the first stage, 8 behind the second
    convolutions = sum(2 * 3 * taps for taps in (3, 7, 11))  # taps of the three residual blocks of a stage
    per_frame = (
        6 * 8 * 7 + 8 * 4 * 8 + 4 * 4 * 4 * convolutions + 4 * (4 * 2 * 4) + 8 * 2 * 2 * convolutions + 8 * 2 * 7
    )
    assert multiply_accumulates(vocoder) == per_frame * RATE / 8


def test_info_counts_the_filter_bank() -> None:
    pqmf: Any = {"pqmf": {"bands": 2, "taps": 10, "cutoff": 0.25}}
    generator = MelGANConfig(
        mel_bands=BANDS, channels=4, rates=(4,), rate_kernel_sizes=(8,), units=1, unit_kernel_sizes=(3, 1), **pqmf
    )
    per_frame = 6 * 4 * 7 + 4 * 2 * 8 + 4 * (2 * 2 * (3 + 1 + 1) + 2 * 2 * 7 + 2 * 11)
    assert multiply_accumulates(make_vocoder(generator)) == per_frame * RATE / 8


def test_info_of_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nowhere"]) == 1
    assert capsys.readouterr().err == "fastvoc: nowhere: no such file or folder\n"


def test_doctor_tries_every_operator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for name in OPS:
        assert re.search(rf"^{name} +cpu +(cpu|reference) .* right ", shown, flags=re.MULTILINE)
    for name, reason in backends().items():
        assert re.search(rf"^{name} +{re.escape(reason or 'usable')}", shown, flags=re.MULTILINE)
    for fact in (f"torch +{re.escape(torch.__version__)}", f"numpy +{re.escape(np.__version__)}", r"pesq \(eval\) +\S"):
        assert re.search(fact, shown)


def test_doctor_needs_no_installed_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert re.search("fastvoc +from its sources, not installed", shown) and "made when it is installed" in shown


def test_doctor_finds_a_wrong_operator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(contract, "errors", lambda *_: [(1e-3, 1e-6)])
    assert main(["doctor"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_a_bar_is_shown_once_a_second_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = MagicMock()
    bar.live.is_started = False
    now = [100.0]
    monkeypatch.setattr(terminal, "Progress", lambda *columns, **options: bar)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    started = []
    for _ in terminal.progress(range(4), "Counting"):
        started.append(bar.start.called)
        now[0] += 0.4
    assert started == [False, False, False, True]
    assert bar.advance.call_count == 4 and bar.stop.called


def test_picture_is_complete_or_absent(tmp_path: Path) -> None:
    wave = torch.sin(torch.arange(4000) / 9)
    draw_comparison(tmp_path / "two.png", {"one": wave, "other": wave / 2}, MEL)
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"suffix '\.txt' is not a known format"):
        draw_comparison(tmp_path / "two.txt", {"one": wave}, MEL)
    assert files_in(str(tmp_path)) == ["two.png"]


def one_frame_off(wave: torch.Tensor, convention: MelConfig) -> float:
    """The mel L1 of a perfect vocoder that is late by one frame: who is worse is badly wrong."""
    return float(mel_l1(wave[convention.hop :], wave[: -convention.hop], convention))


@pytest.mark.slow
def test_demo_writes_sound_and_picture_and_says_how_fast(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "shown"]) == 0
    assert files_in("shown") == ["demo.png", "demo.wav"]
    shown = capsys.readouterr().out
    assert re.search(r"speed +\d+\.\d times real time on \d+ threads? \(median of 5 runs\)", shown)
    assert re.search(r"^conv1d +(cpu|reference)", shown, flags=re.MULTILINE)
    for name in ("hifigan-v1", "hifigan-v2", "hifigan-v3", "melgan"):  # fastvoc, plain PyTorch, ratio
        assert re.search(rf"^{name} +\d+\.\d +\d+\.\d +\d+\.\d\d", shown, flags=re.MULTILINE)
    found = re.search(r"mel L1 to the original +(\d+\.\d+) +\(Griffin-Lim: (\d+\.\d+)\)", shown)
    assert found is not None
    convention = Vocoder.from_pretrained().config.mel
    original, _ = read_audio(str(files("fastvoc") / "assets" / "demo.wav"), convention.sample_rate)
    assert soundfile.info("shown/demo.wav").frames > len(original) - 2 * convention.hop
    assert max(map(float, found.groups())) < one_frame_off(original, convention)


def test_real_speech_survives_mel_and_vocode(speech: list[Path]) -> None:
    original, _ = read_audio(speech[0])
    soundfile.write("clip.wav", original[: 2 * 22050].numpy(), 22050)
    assert main(["mel", "clip.wav", "--out", "mels"]) == 0
    assert main(["vocode", "mels/clip.npy", "--out", "waves"]) == 0
    convention = Vocoder.from_pretrained().config.mel
    original, _ = read_audio("clip.wav", convention.sample_rate)
    wave, _ = read_audio("waves/clip.wav")
    length = min(len(wave), len(original))
    assert length > len(original) - 2 * convention.hop
    assert mel_l1(wave[:length], original[:length], convention) < one_frame_off(original, convention)

"""Files and folders that are made to break whoever opens them, and folders that many write to at once."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastvoc.audio import MelConfig
from fastvoc.checkpoints import VocoderConfig, foreign_settings, open_checkpoint, save_native
from fastvoc.checkpoints.formats import hifigan
from fastvoc.cli import main
from fastvoc.cli.vocoder.mel_files import read_mel
from fastvoc.models import HiFiGANConfig

TINY = HiFiGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3, 5), dilations=((1,), (2,)))
MEL = MelConfig(sample_rate=16000, fft_size=32, hop=8, window_size=24, bands=80, low=0, high=7000, root_epsilon=1e-9)
CONFIG = VocoderConfig(generator=TINY, mel=MEL)


def native(folder: Path, **settings: str) -> Path:
    """Our own folder, some text of whose settings is replaced."""
    save_native(folder, CONFIG, TINY.build().state_dict())
    text = (folder / "config.json").read_text()
    for old, new in settings.items():
        assert f'"{old}": ' in text
        text = text.replace(f'"{old}": ', f'"{old}": {new}', 1)
    (folder / "config.json").write_text(text)
    return folder


def official(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda content: content) -> Path:
    foreign.official(folder, TINY, MEL)
    path = folder / "g_00000005"
    torch.save(change(torch.load(path, weights_only=True)), path)
    return path


def zipped_again(path: Path, compression: int) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    return whole.getvalue()


def refused(path: Path, sentence: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        open_checkpoint(path, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_compressed_archives_are_refused_and_stored_ones_are_not(tmp_path: Path) -> None:
    """PyTorch reads compressed bytes as weights, and a megabyte of them may be gigabytes."""
    path = official(tmp_path)
    stored, compressed = (zipped_again(path, kind) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    path.write_bytes(stored)
    assert open_checkpoint(path).config.generator == TINY
    path.write_bytes(compressed)
    refused(path, r"g_00000005: is a compressed archive, as PyTorch writes none; save it again")


def test_an_archive_whose_members_overlap_is_refused(tmp_path: Path) -> None:
    """A list may name the same bytes many times."""
    path = official(tmp_path)
    whole = bytearray(path.read_bytes())
    begin = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x06\x06") if b"PK\x06\x06" in whole else whole.index(b"PK\x05\x06")
    listed = bytes(whole[begin:end])
    most = 200
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    count = len(zipfile.ZipFile(path).namelist()) * most
    large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(listed) * most, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + len(listed) * most, 1)
    path.write_bytes(bytes(whole[:begin]) + listed * most + large + locator + tail)
    refused(path, "is damaged: its members claim [0-9]+ bytes, more than the file has|is damaged or cut short")


def test_archives_of_nemo_are_read_no_further_than_weights_can_be_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    path = tmp_path / "bomb.nemo"
    with tarfile.open(path, "w:gz") as archive:
        for name, size in (("model_config.yaml", 2), ("junk", 65 << 20), ("model_weights.ckpt", 65 << 20)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"{}" if size == 2 else bytes(size)))
    extract = tarfile.TarFile.extractfile

    def watched(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
        read.append(member.size)
        return extract(archive, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", watched)
    assert path.stat().st_size < 1 << 20
    refused(path, r"is an archive without model_weights\.ckpt")
    assert read == [2]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    os.mkfifo(tmp_path / "model.pt")
    refused(tmp_path / "model.pt", r"model\.pt: is a pipe or a device; expected a file or a folder")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        open_checkpoint(tmp_path)
    path = official(tmp_path)
    os.mkfifo(tmp_path / "stats.npy")
    assert open_checkpoint(path).config.generator == TINY


def test_links_that_go_round_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to("b.pt")
    (tmp_path / "b.pt").symlink_to("a.pt")
    with pytest.raises(FileNotFoundError, match=r"a\.pt: is a link to b\.pt, where there is nothing"):
        open_checkpoint(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        open_checkpoint(tmp_path)
    path = official(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("config.json")
    refused(path, r"there is no config\.json beside it")


def header(text: bytes, data: bytes = bytes(8), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

SAFETENSORS = {
    "overlap": (header(b'{"a":%b,"b\\nc":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' % ENTRY), "damaged"),
    "backwards": (header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}'), "damaged"),
    "beyond the end": (header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'), "damaged"),
    "overflow": (header(b'{"a":{"dtype":"F32","shape":[%d,%d],"data_offsets":[0,8]}}' % (1 << 63, 4)), "damaged"),
    "a hole": (header(b'{"a":%b}' % ENTRY, bytes(64)), "damaged"),
    "endless header": (header(b'{"a":%b}' % ENTRY, length=(1 << 32) - 1), "4294967295 bytes of names"),
    "names alone": (header(b"{" + b" " * (1 << 23) + b"}", b""), "bytes of names, more than a vocoder has"),
    "deep": (header(b'{"a":' + b"[" * 9999), "damaged"),
    "nothing": (header(b"{}", b""), "holds no tensors"),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_headers_of_safetensors_are_not_believed(tmp_path: Path, name: str) -> None:
    content, sentence = SAFETENSORS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, sentence)


def test_floats_of_few_bits_are_no_weights(tmp_path: Path) -> None:
    folder = native(tmp_path / "ours")
    weights = load_file(folder / "model.safetensors")
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in weights.items()}, folder / "model.safetensors")
    refused(folder, "holds float8_e4m3fn; weights are floats of 16 bits or more")


def test_giants_that_a_small_file_claims_are_never_made(tmp_path: Path) -> None:
    """A view repeats one number as often as its shape says."""
    giant = replace(TINY, channels=16384, kernel_sizes=(3, 5), dilations=((1,), (2,)))
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in giant.build().state_dict().items()}
    assert sum(shape.numel() for shape in shapes.values()) > 1 << 30
    state = {}
    for theirs, ours in hifigan.table(giant):
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = torch.zeros(1).expand(shapes[f"{ours}.{kind}"])
    path = official(tmp_path, lambda content: {"generator": state})
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"upsample_initial_channel": giant.channels}))
    assert path.stat().st_size < 1 << 16
    refused(path, "the settings ask for [0-9]+ values; no vocoder has more than 1073741824")


def test_dictionaries_in_each_other_end(tmp_path: Path) -> None:
    """Sixty names in each of five levels are a billion in a file of some kilobytes."""
    inner: dict[str, Any] = {str(name): torch.zeros(1) for name in range(60)}
    for _ in range(5):
        inner = {str(name): inner for name in range(60)}
    torch.save(inner, tmp_path / "wide.pt")
    refused(tmp_path / "wide.pt", "holds no tensors|holds tensors such as")
    inner["itself"] = inner
    inner["a"] = torch.zeros(1)
    torch.save(inner, tmp_path / "round.pt")
    refused(tmp_path / "round.pt", "holds tensors such as a,")


def pwg(folder: Path) -> Path:
    return foreign.parallel_wavegan(folder, replace(TINY, crop_rule="output-padded"), MEL, statistics=None)


def claimed(shape: tuple[int, ...]) -> bytes:
    """The header of an array, without its numbers."""
    whole = io.BytesIO()
    np.lib.format.write_array_header_2_0(whole, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return whole.getvalue()


def test_statistics_are_small_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pwg(tmp_path)
    np.savez_compressed(tmp_path / "stats.npz", mean=np.zeros(1 << 20), scale=np.ones(80))
    assert (tmp_path / "stats.npz").stat().st_size < 1 << 16
    read: list[str] = []
    take = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(
        np.lib.npyio.NpzFile, "__getitem__", lambda self, name: (read.append(name), take(self, name))[1]
    )
    refused(path, r"stats\.npz: holds mean, scale; expected mean and scale, one number for each band")
    assert read == ["scale"]
    with zipfile.ZipFile(tmp_path / "stats.npz", "w") as archive:
        for name in ("mean.npy", "scale.npy"):
            archive.writestr(name, claimed((1 << 40,)))
    refused(path, r"stats\.npz: is no readable file of statistics")
    (tmp_path / "stats.npz").unlink()
    (tmp_path / "stats.npy").write_bytes(claimed((2, 1 << 40)))
    refused(path, r"stats\.npy: is no readable file of statistics")
    with (tmp_path / "stats.npy").open("r+b") as file:
        file.truncate(1 << 30)  # sparse
    refused(path, r"stats\.npy: has 1073741824 bytes, too many for statistics")


def test_statistics_are_not_taken_from_where_a_link_leads(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = pwg(tmp_path)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["mean"], file["scale"] = np.zeros(80), np.ones(80)
    with h5py.File(tmp_path / "stats.h5", "w") as file:
        for name in ("mean", "scale"):
            file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), name)
    refused(path, r"stats\.h5: holds no mean and scale of the mel bands")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_mel_that_no_memory_holds_is_a_bad_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"mel.{kind}"
    if kind == "npy":
        path.write_bytes(claimed((80, 1 << 40)))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mel.npy", claimed((80, 1 << 40)))
    with pytest.raises(ValueError, match=rf"mel\.{kind}: is damaged, or not a \.{kind} file of numbers"):
        read_mel(path)


AMBIGUOUS = {
    "JSON": '{"a": 1, "b": {"hop": 1, "hop": 2}}',
    "JSON with comments": '{"a": 1, // one\n"hop": [1], "hop": [2]}',
    "YAML": "hop: 1\na: 2\nhop: 3\n",
    "YAML behind a tag": "a: !new:thing\n  hop: 1\n  hop: 2\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_setting_that_is_there_twice_has_to_be_the_same(name: str) -> None:
    with pytest.raises(ValueError, match=r"^here: holds hop twice, with different values; leave one of them$"):
        foreign_settings.parse(AMBIGUOUS[name], "here")
    assert foreign_settings.parse('{"hop": 1, "hop": 1}', "here") == {"hop": 1}
    assert foreign_settings.parse("a: &a {hop: 1}\nb: {<<: *a, hop: 2}", "here")["b"] == {"hop": 2}


SETTINGS = {
    "a mel twice": ({"mel": '{}, "mel": '}, "holds mel twice"),
    "no rate that there is": ({"sample_rate": "1" + "0" * 30}, "mel.sample_rate is 1"),
    "a transform that no memory holds": ({"fft_size": "9" * 12}, "mel.fft_size is 9"),
    "more digits than are read": ({"fft_size": "9" * 5000}, "is neither readable JSON nor YAML"),
    "not a number": ({"low": 'NaN, "lower": '}, r"mel\.low is nan"),
    "depth": ({"generator": "[" * 5000 + "]" * 5000 + ', "x": '}, "is nested too deeply"),
    "names with control characters": (
        {"mel": '{"\\u001b[31m\\nmel": 1}, "x": '},
        r"mel\.\?\[31m\?mel is not a known field",
    ),
    "end": ({"mel": "\x00"}, "is neither readable JSON nor YAML"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_our_own_folder_are_not_believed(tmp_path: Path, name: str) -> None:
    changes, sentence = SETTINGS[name]
    refused(native(tmp_path / "ours", **changes), sentence)


def test_notes_are_lines_that_no_terminal_obeys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = official(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"\x1b[2J\nnote: all is well": 1, "a" * 5000: 1}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    first, second = open_checkpoint(path).notes
    assert first == "config.json: ?[2J?note: all is well is not a setting of HiFi-GAN; it was ignored"
    assert len(second) < 900
    assert main(["convert", str(path), str(tmp_path / "ours")]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and len(told.splitlines()) == 4


def save_often(folder: Path, rate: int, failures: Any) -> None:
    """Save vocoders of one network, whose weights say which mel they belong to."""
    config = replace(CONFIG, mel=replace(MEL, sample_rate=rate))
    weights = {name: torch.full_like(tensor, rate) for name, tensor in TINY.build().state_dict().items()}
    try:
        for _ in range(20):
            save_native(folder, config, weights)
    except Exception as error:
        failures.put(repr(error))


def test_many_may_write_one_folder_and_it_is_whole_at_any_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    save_native(tmp_path, CONFIG, {k: torch.full_like(v, 16000) for k, v in TINY.build().state_dict().items()})
    writers = [context.Process(target=save_often, args=(tmp_path, rate, failures)) for rate in (20000, 24000)]
    for writer in writers:
        writer.start()
    try:
        while any(writer.is_alive() for writer in writers):
            values = {float(tensor.flatten()[0]) for tensor in load_file(tmp_path / "model.safetensors").values()}
            assert len(values) == 1 and values <= {16000.0, 20000.0, 24000.0}
            json.loads((tmp_path / "config.json").read_text())
    finally:
        for writer in writers:
            writer.join()
    assert failures.empty()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert open_checkpoint(tmp_path).config.mel.sample_rate in (20000, 24000)


@pytest.mark.parametrize("to", ["native", "hifigan"])
def test_a_disk_that_is_full_is_one_line_and_leaves_what_was_there(tmp_path: Path, to: str) -> None:
    pytest.importorskip("resource")
    larger = replace(TINY, channels=64)
    save_native(tmp_path / "larger", VocoderConfig(generator=larger, mel=MEL), larger.build().state_dict())
    native(tmp_path / "ours")
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "out"), "--to", to]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    program = """
import resource, signal, sys
from fastvoc.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))
sys.exit(main(sys.argv[1:]))
"""
    arguments = ["convert", str(tmp_path / "larger"), str(tmp_path / "out"), "--to", to, "--overwrite"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large" in done.stderr and len(done.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = native(tmp_path / "ours")
    (tmp_path / "file").write_text("")
    assert main(["convert", str(folder), str(tmp_path / "file" / "below")]) == 1
    assert "file" in capsys.readouterr().err
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["convert", str(folder), str(tmp_path / "locked")]) == 1
    assert "Permission denied" in capsys.readouterr().err

"""Recordings are found wherever they are named, cost their paths, and are refused by name where they are no use."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastvoc.config import from_dict, to_dict
from fastvoc.train.data import DataConfig
from fastvoc.train.lists import Recording
from fastvoc.train.reading import LONGEST, Unusable, read_recording, samples_of
from fastvoc.train.recordings import Recordings, find_recordings, split_recordings

RATE = 8000


def write(path: Path, *, seconds: float = 0.5, rate: int = RATE, channels: int = 1, level: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.flac", "a/1.wav", "a/10.ogg", ".hidden/3.wav", "a/.4.wav"):
        write(tmp_path / "speech" / name)
    (tmp_path / "speech" / "notes.txt").write_text("not a recording")
    return tmp_path / "speech"


def names(recordings: Recordings, folder: Path) -> list[str]:
    return [Path(recording.path).relative_to(folder).as_posix() for recording in recordings]


def test_a_folder_counts_with_all_below_it_in_the_order_of_names(folder):
    assert names(find_recordings([str(folder)]), folder) == ["a/1.wav", "a/10.ogg", "b/2.flac"]


def test_globs_and_files_stand_beside_folders_in_the_order_given(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = find_recordings(["b/2.flac", "**/1*", str(folder / "b")])
    assert names(found, folder) == ["b/2.flac", "a/1.wav", "a/10.ogg", "b/2.flac"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("list.txt", "a/1.wav\n\n a/10.ogg \n", ["a/1.wav", "a/10.ogg"]),
        ("train.csv", "\ufeffa/1|Text.|text\nb/2.flac|More, | and more\n", ["a/1.wav", "b/2.flac"]),
        (
            "wav.scp",
            "utt1 a/1.wav\nutt2\tb/2.flac\nutt3 my clips/a 1.wav\n",
            ["a/1.wav", "b/2.flac", "my clips/a 1.wav"],
        ),
        ("nemo.json", '{"audio_filepath": "a/1.wav", "duration": 0.49, "text": "x"}\n', ["a/1.wav"]),
        ("m.jsonl", '{"path": "a/1.wav"}\n{"wav": "b/2.flac"}\n', ["a/1.wav", "b/2.flac"]),
    ],
)
def test_lists_of_every_kind(folder, name, text, expected):
    (folder / name).write_text(text, encoding="utf-8")
    found = find_recordings([str(folder / name)])
    assert names(found, folder) == expected
    assert all(recording.duration == math.inf for recording in found)


def test_relative_paths_of_a_list_start_from_the_root(folder, tmp_path):
    listed = tmp_path / "training.txt"
    listed.write_text("1|In the beginning.\n")
    assert names(find_recordings([str(listed)], root=str(folder / "a")), folder) == ["a/1.wav"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("wav.scp", "utt1 a.wav\nutt2 sph2pipe -f wav a.sph |\n", "line 2: is a shell command.*never run"),
        ("wav.scp", "utt1\n", "line 1: is 'utt1'; needs an utterance's name, a space and its sound file"),
        ("wav.scp", "utt1 raw.ark:812\n", "archives"),
        ("m.jsonl", '{"path": "a.wav"}\n{"path": \n', "line 2: is not JSON"),
        ("m.json", "[1, 2]\n", "line 1: is a JSON list; a manifest has one object in each line"),
        ("m.jsonl", '{"audio_file": "a.wav"}\n', "known keys: audio_filepath.*it has audio_file"),
        ("m.jsonl", '{"path": "a.wav", "offset": -1}\n', "offset -1 and duration None are no excerpt"),
        ("list.txt", "|text\n", "begins with '|'"),
        ("list.txt", "\n", "names no recordings"),
        ("list.npy", b"\x93NUMPY\xff", "neither a sound file by its suffix nor a list"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=reason) as error:
        find_recordings([str(path)])
    assert str(path) in str(error.value)


def test_no_command_of_a_list_is_run(tmp_path):
    (tmp_path / "wav.scp").write_text(f"utt1 touch {tmp_path}/run |\n")
    with pytest.raises(ValueError, match="never run"):
        find_recordings([str(tmp_path / "wav.scp")])
    assert not (tmp_path / "run").exists()


def test_sources_that_are_missing_or_empty_are_named(tmp_path):
    for source in ("nowhere", "nowhere.wav"):
        with pytest.raises(FileNotFoundError, match=source):
            find_recordings([str(tmp_path / source)])
    for source in (tmp_path, tmp_path / "*.wav"):
        with pytest.raises(ValueError, match="names no recordings"):
            find_recordings([str(source)])


def test_an_excerpt_is_read_alone(tmp_path):
    wave = np.repeat([0.1, 0.2, 0.3, 0.4], RATE)
    soundfile.write(tmp_path / "a.wav", wave, RATE, subtype="FLOAT")
    lines = [{"path": "a.wav"}, {"path": "a.wav", "offset": 1.0, "duration": 2}, {"path": "a.wav", "offset": 3}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = find_recordings([str(tmp_path / "m.jsonl")])
    read = [read_recording(recording, RATE)[0].numpy() for recording in found]
    for samples, (first, last) in zip(read, [(0, 4), (1, 3), (3, 4)], strict=True):
        np.testing.assert_array_equal(samples, wave[first * RATE : last * RATE].astype(np.float32))
    assert [samples_of(recording, 2 * RATE) for recording in found] == [2 * len(samples) for samples in read]


def test_a_recording_costs_its_path_and_eight_bytes(tmp_path):
    count = 50_000
    path = "/data/corpus/speaker-{:03d}/chapter-{:04d}/utterance-{:07d}.flac"
    with (tmp_path / "list.txt").open("w") as file:
        file.writelines(path.format(i % 1000, i // 1000, i) + "|text\n" for i in range(count))
    tracemalloc.start()
    recordings = find_recordings([str(tmp_path / "list.txt")])
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = count * (len(path.format(0, 0, 0)) + 8)
    assert recordings.nbytes == size
    # growing in steps of an eighth may leave that unused, and moves everything once more
    assert kept < 1.13 * size + 50_000
    assert most < 2.3 * size
    assert recordings[12_345].path == path.format(345, 12, 12_345)


def test_recordings_know_their_names_in_order_but_not_their_folder():
    def fingerprint(*paths: str) -> int:
        return Recordings(map(Recording, paths)).fingerprint

    assert fingerprint("/a/1.wav", "/a/2.wav") == fingerprint("/elsewhere/1.wav", "/b/2.wav")
    assert len({fingerprint(*paths) for paths in (["1", "2"], ["2", "1"], ["12"], ["1"], [])}) == 5
    for index in (-1, 1):
        with pytest.raises(IndexError):
            Recordings([Recording("a")])[index]


def test_what_is_held_out_lies_evenly_and_is_not_trained_on(tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}.wav", seconds=0.01)
    split = split_recordings(DataConfig(recordings=str(tmp_path), held_out=3))
    assert names(split.seen, tmp_path) == ["1.wav", "5.wav", "8.wav"]
    assert names(split.training, tmp_path) == [f"{number}.wav" for number in (0, 2, 3, 4, 6, 7, 9)]
    assert len(split.unseen) == 0


def test_validation_sets_are_left_out_of_training_wherever_they_stand(folder):
    config = DataConfig(recordings=str(folder), validation=str(folder / "a" / "*.ogg"), unseen=[str(folder / "b")])
    split = split_recordings(config)
    assert [names(part, folder) for part in split[:3]] == [["a/1.wav"], ["a/10.ogg"], ["b/2.flac"]]


def test_a_split_knows_how_many_recordings_come_from_each_source(folder):
    sources = [str(folder / "a"), str(folder / "b"), str(folder)]
    split = split_recordings(DataConfig(recordings=sources, held_out=2))
    # of a/1, a/10, b/2, a/1, a/10, b/2 the second and the fifth
    assert names(split.seen, folder) == ["a/10.ogg", "a/10.ogg"]
    assert split.sizes == (1, 1, 2)
    split = split_recordings(DataConfig(recordings=sources, validation=str(folder / "a")))
    assert split.sizes == (0, 1, 1)
    assert len(split.training) == 2


def test_weights_name_every_source():
    assert DataConfig(recordings=("a", "b"), weights=(1, 0.5)).weights == (1.0, 0.5)
    with pytest.raises(ValueError, match="weights are 1, but recordings names 2 sources"):
        DataConfig(recordings=("a", "b"), weights=(1,))
    with pytest.raises(ValueError, match="greater than 0"):
        DataConfig(recordings="a", weights=(0,))


def test_nothing_left_to_train_on_is_an_error(folder):
    with pytest.raises(ValueError, match=r"all 3 are set aside.*held_out"):
        split_recordings(DataConfig(recordings=str(folder), held_out=3))


def test_a_config_survives_writing_and_refuses_what_would_part_mels_from_recordings():
    config = from_dict(DataConfig, {"recordings": "speech", "gain": [-6, 0], "unseen": ["a", "b"]}, "test")
    assert config.recordings == ("speech",)
    assert from_dict(DataConfig, to_dict(config), "test") == config
    with pytest.raises(ValueError, match="trim, gain would change the recordings and not the mels of 'tts'"):
        from_dict(DataConfig, {"recordings": "a", "mels": "tts", "trim": 40, "gain": [-6, 0]}, "test")
    with pytest.raises(ValueError, match="the first value is the lower one"):
        from_dict(DataConfig, {"recordings": "a", "gain": [0, -6]}, "test")
    with pytest.raises(ValueError, match="did you mean 'recordings'"):
        from_dict(DataConfig, {"recording": "a"}, "test")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_any_format_rate_and_channel_count_is_read(tmp_path, name):
    path = write(tmp_path / name, rate=16000, channels=2)
    wave, whole = read_recording(Recording(str(path)), RATE)
    assert whole
    # lossy formats add a few hundred samples of padding
    assert abs(len(wave) - RATE // 2) <= (0 if name.endswith(("wav", "flac")) else 1200)
    assert float(wave.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


def test_silence_at_the_ends_is_cut(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 220 * np.arange(4 * RATE) / RATE)
    soundfile.write(tmp_path / "a.wav", np.pad(tone, 2 * RATE), RATE)
    recording = Recording(str(tmp_path / "a.wav"))
    wave, _ = read_recording(recording, RATE, trim=40)
    frame = 2048
    assert 4 * RATE <= len(wave) <= 4 * RATE + 2 * frame
    assert len(read_recording(recording, RATE)[0]) == 8 * RATE


def test_of_a_long_recording_a_piece_is_read(tmp_path):
    rate = 100
    soundfile.write(tmp_path / "a.wav", np.linspace(0.1, 0.9, 10 * int(LONGEST) * rate), rate, subtype="FLOAT")
    recording = Recording(str(tmp_path / "a.wav"))
    pieces = [read_recording(recording, rate, random=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert [(len(wave), whole) for wave, whole in pieces] == [(LONGEST * rate, False)] * 3
    starts = [float(wave[0]) for wave, _ in pieces]
    assert starts[0] == starts[1] != starts[2]


def broken(path: Path, kind: str) -> None:
    wave = 0.5 * np.sin(np.arange(4000) / 5)
    if kind == "not a readable":
        path.write_bytes(b"RIFFnonsense")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "silent; all":
        soundfile.write(path, np.zeros(4000), RATE)
    elif kind == "silent; its peak is -68 dB":
        soundfile.write(path, 8e-4 * wave, RATE, subtype="FLOAT")
    elif kind == "holds 2 values":
        wave[[7, 9]] = np.nan, np.inf
        soundfile.write(path, wave, RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    "kind",
    ["no such file", "not a readable", "no samples", "silent; all", "silent; its peak is -68 dB", "holds 2 values"],
)
def test_a_recording_that_is_no_use_says_why_by_name(tmp_path, kind):
    path = tmp_path / "bad.wav"
    broken(path, kind)
    with pytest.raises(Unusable, match=kind) as error:
        read_recording(Recording(str(path)), RATE)
    assert str(error.value).startswith(f"{path}: ")
    assert error.value.whole


def test_the_table_of_fields_in_the_documentation_is_that_of_the_code():
    page = Path(__file__).resolve().parents[1] / "docs" / "data.md"
    if not page.is_file():
        pytest.skip("the pages are not here")
    table = page.read_text(encoding="utf-8").split("## The fields of DataConfig")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|")[0].strip(" `") for line in table.splitlines() if line.startswith("| `")]
    assert rows == [field.name for field in fields(DataConfig)]

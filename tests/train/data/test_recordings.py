"""Recordings are found wherever they are named, cost their paths, and are refused by name where they are no use."""

from __future__ import annotations

import json
import math
import os
import shutil
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fastvoc.cli.inputs import plan
from fastvoc.config import from_dict, to_dict
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.lists import Recording
from fastvoc.train.data.reading import LONGEST, Unusable, rate_of, read_recording, samples_of
from fastvoc.train.data.recordings import Recordings, find_recordings, split_recordings

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


def test_links_are_followed_but_in_no_circle_and_not_out_of_the_folder(folder, tmp_path):
    """By a folder, by globs of any depth, and by the command line."""
    write(tmp_path / "elsewhere" / "speaker" / "5.wav")
    write(tmp_path / "outside.wav")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(folder / "a")  # met already
    (folder / "a" / "circle").symlink_to(folder)
    (folder / "b" / "circle").symlink_to(folder / "b")
    (tmp_path / "elsewhere" / "speaker" / "circle").symlink_to(tmp_path / "elsewhere")
    (folder / "out").symlink_to(tmp_path)
    (folder / "nowhere").symlink_to(tmp_path / "nowhere")
    (folder / "e.wav").symlink_to(tmp_path / "outside.wav")
    expected = ["a/1.wav", "a/10.ogg", "b/2.flac", "c/speaker/5.wav", "e.wav"]
    assert sorted(names(find_recordings([str(folder)]), folder)) == expected
    assert names(find_recordings([f"{folder}/**/*"]), folder) == expected
    assert names(find_recordings([f"{folder}/**"]), folder) == expected
    assert names(find_recordings([f"{folder}/**/speaker/**/*.wav"]), folder) == ["c/speaker/5.wav"]
    for source in (str(folder), f"{folder}/**/*.*"):
        jobs, problems = plan([source], (".wav", ".flac", ".ogg"), tmp_path / "out", ".npy")
        found = {job.source.relative_to(folder).as_posix() for job in jobs}
        assert (found - {".hidden/3.wav", "a/.4.wav"}, problems) == ({*expected}, [])


def test_a_folder_of_nothing_but_links_is_one_of_recordings(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for name in ("a", "b"):
        (tmp_path / "links" / name).symlink_to(folder / name)
    assert names(find_recordings([str(tmp_path / "links")]), tmp_path / "links") == ["a/1.wav", "a/10.ogg", "b/2.flac"]


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
        (
            "hf.jsonl",
            '{"file_name": "a/1.wav"}\n{"audio": {"path": "b/2.flac", "bytes": null}}\n',
            ["a/1.wav", "b/2.flac"],
        ),
        ("cv.tsv", 'client_id\tpath\tsentence\nx\ta/1.wav\tHe said "no\nx\tb/2.flac\t\n', ["a/1.wav", "b/2.flac"]),
        ("bare.tsv", "a/1\tText\nid\tb/2.flac\tText\n", ["a/1.wav", "b/2.flac"]),
        ("hf.csv", 'file_name,transcription\na/1.wav,"One,\n\ntwo"\n\nb/2.flac,x\n', ["a/1.wav", "b/2.flac"]),
        (
            "hf2.csv",
            '\ufeff"transcription", "file_name"\r\n"a, b", "a/1.wav"\r\nx, b/2.flac\r\n',
            ["a/1.wav", "b/2.flac"],
        ),
        ("coqui.csv", "audio_file|text|speaker_name\na/1|x, y|z\nb/2.flac|x|z\n", ["a/1.wav", "b/2.flac"]),
        ("bare.csv", "a/1.wav,One, two\nb/2.flac,x\n", ["a/1.wav", "b/2.flac"]),
        ("windows.txt", "a\\1.wav|Text.\r\nb\\2.flac\r\n", ["a/1.wav", "b/2.flac"]),
        ("windows.jsonl", '{"path": "a\\\\1.wav"}\n', ["a/1.wav"]),
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
        ("m.jsonl", '{"audio": {"bytes": "UklGRg=="}}\n', "line 1: its recording has no path, but bytes"),
        ("m.jsonl", '{"path": "a\\ud800.wav"}\n', "line 1: 'a.*wav' has characters that no file name has"),
        ("m.jsonl", '{"path": "a\\u0000.wav"}\n', "line 1: 'a.*wav' has characters that no file name has"),
        ("m.jsonl", '{"path": "a.wav", "mel_filepath": 1}\n', "line 1: mel_filepath is 1; needs the name of a file"),
        ("list.txt", "\ns3://bucket/a.wav\n", "line 2: 's3://bucket/a.wav': is an address.*copy it to this machine"),
        ("wav.scp", "utt1 https://host/a.wav\n", "line 1: 'https://host/a.wav': is an address.*GanTask"),
        ("m.jsonl", '{"path": "shard-0.tar"}\n', "line 1: 'shard-0.tar': is no sound file.*unpack it.*GanTask"),
        ("list.tsv", "path\ttext\na.wav\tx\n\tx\n", r"line 3: has nothing in column 1, 'path'; it is \['', 'x'\]"),
        ("list.csv", "text,file\na\n", r"line 2: has nothing in column 2, 'file'; it is \['a'\]"),
        ("list.npy", b"\x93NUMPY\xff", "neither a sound file by its suffix nor a list"),
    ],
)
def test_a_list_that_is_none_is_refused_with_its_line(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=reason) as error:
        find_recordings([str(path)])
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "source", ["s3://bucket/wavs", "hf://datasets/a/b", "https://host/a.wav", "gs://b/*.wav", "file:///data/wavs"]
)
def test_an_address_is_named_as_it_is_written(source):
    with pytest.raises(ValueError, match="is an address, and recordings are read from sound files; copy it") as error:
        find_recordings([source])
    assert str(error.value).startswith(f"{source}: ")


@pytest.mark.parametrize("name", ["train.parquet", "shard-000.tar", "wavs.tar.gz", "LJSpeech.ZIP", "data.arrow"])
def test_what_sound_would_have_to_be_unpacked_from_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PAR1")
    with pytest.raises(
        ValueError, match=f"{name}: is no sound file, .*; unpack it and name the folder, or write a loop"
    ):
        find_recordings([str(tmp_path / name)])
    (tmp_path / name).unlink()
    write(tmp_path / name / "a.wav")  # a folder may have any name
    assert names(find_recordings([str(tmp_path / name)]), tmp_path / name) == ["a.wav"]


@pytest.mark.parametrize("home", ["wavs", "clips"])
def test_recordings_are_found_in_the_folder_that_their_list_comes_with(tmp_path, home):
    write(tmp_path / home / "LJ001-0001.wav")
    (tmp_path / "metadata.csv").write_text("LJ001-0001|Text.|text\nLJ001-0002|Text.|text\n")
    listed = tmp_path / "metadata.csv"
    assert names(find_recordings([str(listed)]), tmp_path / home) == ["LJ001-0001.wav", "LJ001-0002.wav"]
    write(tmp_path / "LJ001-0001.wav")  # what lies beside the list goes first
    assert names(find_recordings([str(listed)]), tmp_path) == ["LJ001-0001.wav", "LJ001-0002.wav"]


def test_a_name_that_looks_like_columns_is_told_how_they_are_written(tmp_path):
    (tmp_path / "metadata.csv").write_text("LJ001-0001,hello there\n")
    (recording,) = find_recordings([str(tmp_path / "metadata.csv")])
    with pytest.raises(
        Unusable, match=r"LJ001-0001,hello there.wav: no such file; columns of a list need '\|' or a tab"
    ):
        read_recording(recording, RATE)


@pytest.mark.skipif(os.name == "nt", reason="there a backslash parts folders")
def test_a_file_whose_name_has_a_backslash_is_itself(tmp_path):
    write(tmp_path / "a\\1.wav")
    (tmp_path / "list.txt").write_text("a\\1.wav\n")
    assert names(find_recordings([str(tmp_path / "list.txt")]), tmp_path) == ["a\\1.wav"]


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
    split = split_recordings(DataConfig(recordings=str(tmp_path), held_out=3), sample_rate=RATE)
    assert names(split.seen, tmp_path) == ["1.wav", "5.wav", "8.wav"]
    assert names(split.training, tmp_path) == [f"{number}.wav" for number in (0, 2, 3, 4, 6, 7, 9)]
    assert len(split.unseen) == 0


def test_validation_sets_are_left_out_of_training_wherever_they_stand(folder):
    config = DataConfig(recordings=str(folder), validation=str(folder / "a" / "*.ogg"), unseen=[str(folder / "b")])
    split = split_recordings(config, sample_rate=RATE)
    assert [names(part, folder) for part in split[:3]] == [["a/1.wav"], ["a/10.ogg"], ["b/2.flac"]]


def test_a_split_knows_how_many_recordings_come_from_each_source(folder):
    sources = [str(folder / "a"), str(folder / "b"), str(folder)]
    split = split_recordings(DataConfig(recordings=sources, held_out=2), sample_rate=RATE)
    # of a/1, a/10, b/2, a/1, a/10, b/2 the second, and in place of the fifth, which is the same, the next
    assert names(split.seen, folder) == ["a/10.ogg", "b/2.flac"]
    assert names(split.training, folder) == ["a/1.wav", "a/1.wav"]
    assert split.sizes == (1, 0, 1)
    split = split_recordings(DataConfig(recordings=sources, validation=str(folder / "a")), sample_rate=RATE)
    assert split.sizes == (0, 1, 1)
    assert len(split.training) == 2


@pytest.mark.parametrize("way", ["a line twice", "a folder twice", "a folder and a list", "a link", "a linked folder"])
def test_what_is_held_out_is_not_trained_on_under_another_name(tmp_path, way):
    wavs = tmp_path / "wavs"
    for number in range(4):
        write(wavs / f"{number}.wav")
    (tmp_path / "list.txt").write_text("".join(f"wavs/{number}.wav\n" for number in (0, 1, 2, 3, 1, 2, 2)))
    sources = [str(wavs)]
    if way == "a line twice":
        sources = [str(tmp_path / "list.txt")]
    elif way == "a folder twice":
        sources *= 2
    elif way == "a folder and a list":
        sources += [str(tmp_path / "list.txt")]
    else:
        (tmp_path / "links").mkdir()
        if way == "a link":
            for number in range(4):
                (tmp_path / "links" / f"other-{number}.wav").symlink_to(wavs / f"{number}.wav")
        else:
            (tmp_path / "links").rmdir()
            (tmp_path / "links").symlink_to(wavs)
        sources += [str(tmp_path / "links")]
    for held_out in (1, 2, 3):
        split = split_recordings(DataConfig(recordings=sources, held_out=held_out), sample_rate=RATE)
        aside = {Path(recording.path).resolve() for recording in split.seen}
        trained = [Path(recording.path).resolve() for recording in split.training]
        assert len(aside) == len(split.seen) == held_out
        assert aside | {*trained} == set(wavs.iterdir())
        assert not aside & {*trained}
        assert sum(split.sizes) == len(trained)
        if way == "a line twice" and wavs / "2.wav" in trained:
            assert trained.count(wavs / "2.wav") == 3  # listed so to be heard more often
    validation = [sources[-1]] if len(sources) > 1 else [str(wavs / "1.wav"), str(wavs / "2.wav")]
    config = DataConfig(recordings=[str(wavs), str(write(tmp_path / "new.wav"))], validation=validation)
    split = split_recordings(config, sample_rate=RATE)
    assert not {Path(one.path).resolve() for one in split.seen} & {Path(one.path).resolve() for one in split.training}


def test_other_stretches_of_a_held_out_file_are_trained_on(tmp_path):
    write(tmp_path / "a.wav", seconds=4)
    lines = [{"path": "a.wav", "offset": place, "duration": 1} for place in (0.0, 1.0, 1.5, 2.5)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    split = split_recordings(DataConfig(recordings=str(tmp_path / "m.jsonl"), held_out=1), sample_rate=RATE)
    assert [one.start for one in split.seen] == [1.5]
    assert [one.start for one in split.training] == [0.0, 2.5]


@pytest.mark.parametrize("kind", ["short", "short but for its silence", "broken", "missing", "silent"])
def test_recordings_that_cannot_be_judged_by_are_not_held_out(tmp_path, kind):
    listed = [tmp_path / f"{number}.wav" for number in range(10)]
    for number, path in enumerate(listed):
        if number in (3, 4, 9):
            write(path)
        elif kind == "short":
            write(path, seconds=0.2)
        elif kind == "short but for its silence":
            soundfile.write(path, np.pad(0.5 * np.sin(np.arange(800) / 5), 9 * RATE), 6 * RATE)
        elif kind == "silent":
            write(path, level=0)
        elif kind == "broken":
            path.write_bytes(b"RIFFnonsense")
    (tmp_path / "list.txt").write_text("\n".join(map(str, listed)))
    config = DataConfig(recordings=str(tmp_path / "list.txt"), held_out=2, trim=40)
    split = split_recordings(config, sample_rate=RATE)
    assert names(split.seen, tmp_path) == ["3.wav", "9.wav"]  # evenly: 2 and 7, and then the next that is any good
    assert [reason.split(": ")[0] for reason in split.passed_over] == [str(listed[k]) for k in (2, 7, 8)]
    split = split_recordings(DataConfig(recordings=config.recordings, held_out=8, trim=40), sample_rate=RATE)
    assert names(split.seen, tmp_path) == ["3.wav", "9.wav"]  # of three that are any good one is trained on
    assert len(split.training) == 8


def test_weights_name_every_source():
    assert DataConfig(recordings=("a", "b"), weights=(1, 0.5)).weights == (1.0, 0.5)
    with pytest.raises(ValueError, match="weights are 1, but recordings names 2 sources"):
        DataConfig(recordings=("a", "b"), weights=(1,))
    with pytest.raises(ValueError, match="greater than 0"):
        DataConfig(recordings="a", weights=(0,))


def test_nothing_left_to_train_on_is_an_error(folder):
    with pytest.raises(ValueError, match=r"all 3 are set aside.*held_out"):
        split_recordings(DataConfig(recordings=str(folder), held_out=3), sample_rate=RATE)


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


def test_a_file_name_in_any_bytes_is_read(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9 \xff.wav"
    shutil.copy(write(tmp_path / "a.wav"), path)
    (tmp_path / "a.wav").unlink()
    (recording,) = find_recordings([str(tmp_path)])
    assert os.fsencode(recording.path) == path
    assert len(read_recording(recording, RATE)[0]) == samples_of(recording, RATE) == RATE // 2
    assert rate_of(recording) == RATE
    with Path(recording.path).open("wb") as file:
        file.write(b"RIFFnonsense")
    with pytest.raises(Unusable, match=r"caf\\xe9 \\xff.wav: not a readable sound file") as error:
        read_recording(recording, RATE)
    str(error.value).encode("utf-8")  # can be written down


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, UnicodeEncodeError, OSError, KeyError])
@pytest.mark.parametrize("call", [read_recording, samples_of, rate_of])
def test_whatever_happens_to_a_recording_is_named(tmp_path, monkeypatch, call, error):
    path = write(tmp_path / "a.wav")

    def fail(*arguments: object, **named: object) -> None:
        raise error("utf-8", "\udce9", 0, 1, "no\nway") if error is UnicodeEncodeError else error("no\nway")

    monkeypatch.setattr("fastvoc.train.data.reading.soundfile.SoundFile", fail)
    with pytest.raises(Unusable, match=rf"^{path}: cannot be read: {error.__name__}: .*no.*way"):
        call(Recording(str(path)), RATE) if call is not rate_of else call(Recording(str(path)))


def test_an_interruption_is_no_fault_of_a_recording(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav")

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastvoc.train.data.reading.resample", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_recording(Recording(str(path)), RATE)


@pytest.mark.parametrize("factor", [2**15, 2**23, 9 / 0.5])
def test_floats_in_the_range_of_integers_are_refused_unless_they_are_scaled(tmp_path, factor):
    wave, _ = soundfile.read(write(tmp_path / "a.wav"), dtype="float32")
    soundfile.write(tmp_path / "b.wav", factor * wave, RATE, subtype="FLOAT")
    recording = Recording(str(tmp_path / "b.wav"))
    sentence = rf"b.wav: has a peak of {factor / 2:.0f}, .* within ±1; divide .* 32768 of 16 bits, or set data.peak"
    with pytest.raises(Unusable, match=sentence):
        read_recording(recording, RATE)
    scaled, _ = read_recording(recording, RATE, peak=0.95)
    np.testing.assert_allclose(scaled.numpy(), wave * (0.95 / np.abs(wave).max()), atol=1e-4)  # 16 bits: 3e-5 · 1.9
    soundfile.write(tmp_path / "c.wav", 7.9 * wave / np.abs(wave).max(), RATE, subtype="FLOAT")
    read_recording(Recording(str(tmp_path / "c.wav")), RATE)  # hot, but sound


def test_channels_that_cancel_each_other_are_named(tmp_path):
    wave = 0.5 * np.sin(np.arange(4000) / 5)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], axis=1), RATE)
    with pytest.raises(
        Unusable, match=r"a.wav: is silent when its 2 channels are averaged: they are of opposite phase"
    ):
        read_recording(Recording(str(tmp_path / "a.wav")), RATE)


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
    page = Path(__file__).resolve().parents[3] / "docs" / "data.md"
    if not page.is_file():
        pytest.skip("the pages are not here")
    table = page.read_text(encoding="utf-8").split("## The fields of DataConfig")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|")[0].strip(" `") for line in table.splitlines() if line.startswith("| `")]
    assert rows == [field.name for field in fields(DataConfig)]


def test_folders_of_runs_hold_no_recordings(tmp_path):
    """Neither a run's own nor another one's: what they have made would be trained on."""
    run = {"generator": {}, "mel": {}, "data": {}, "steps": 1, "folder": "run"}
    for name in (
        "a.wav",
        "speaker/b.wav",
        "run/samples/c.wav",
        "speaker/old/best.wav",
        "own/samples/d.wav",
        "own/e.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("run", "speaker/old", "own"):
        (tmp_path / name / "train.json").write_text(json.dumps(run))
    # a data set may have files of this name too
    (tmp_path / "train.json").write_text('{"audio_filepath": "a.wav"}\n{"audio_filepath": "b.wav"}\n')
    (tmp_path / "speaker" / "train.json").write_text("[1, 2]")

    def found(*sources: str) -> list[str]:
        names = find_recordings(tuple(str(tmp_path / source) for source in sources))
        return [str(Path(recording.path).relative_to(tmp_path)) for recording in names]

    assert found("") == ["a.wav", "speaker/b.wav"]
    assert found("**/*.wav") == ["a.wav", "speaker/b.wav"]
    # what is named itself is meant, but for what the run has made
    assert found("own") == ["own/e.wav"]
    assert found("run/samples") == found("run/samples/*.wav") == found("run/samples/c.wav") == ["run/samples/c.wav"]

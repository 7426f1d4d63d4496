"""Sound files: any kind in, nothing half-written or wrapped around out."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from fastvoc.audio import read_audio, resample, write_audio


def tone(samples: int, sample_rate: int, hertz: float = 440) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / sample_rate).float()


@pytest.mark.parametrize(
    ("suffix", "subtype"), [(".wav", "16"), (".wav", "24"), (".WAV", "float"), (".flac", "16"), (".flac", "24")]
)
def test_what_is_written_is_read_to_half_a_step(tmp_path: Path, suffix: str, subtype: str):
    step = {"16": 2.0**-15, "24": 2.0**-23, "float": 0}[subtype]
    wave = tone(1009, 22050)
    path = tmp_path / f"tone{suffix}"
    assert write_audio(path, wave, 22050, subtype) == 0
    again, sample_rate = read_audio(path)
    assert (again.dtype, again.shape, sample_rate) == (torch.float32, wave.shape, 22050)
    torch.testing.assert_close(again, wave, rtol=0, atol=step / 2)


@pytest.mark.parametrize("suffix", [".ogg", ".mp3"])
def test_lossy_formats_keep_rate_and_sound(tmp_path: Path, suffix: str):
    wave = tone(22050, 22050)
    write_audio(tmp_path / f"tone{suffix}", wave, 22050)
    again, sample_rate = read_audio(tmp_path / f"tone{suffix}")
    assert sample_rate == 22050
    spectrum = torch.fft.rfft(again).abs()
    assert spectrum.argmax() == pytest.approx(440 * len(again) / 22050, abs=1)


@pytest.mark.parametrize("subtype", ["16", "24"])
def test_full_scale_does_not_wrap_around(tmp_path: Path, subtype: str):
    wave = torch.tensor([1.0, -1.0, 1.5, -1.5, 0.0, math.nextafter(1, 0)])
    assert write_audio(tmp_path / "loud.wav", wave, 16000, subtype) == 2
    again, _ = read_audio(tmp_path / "loud.wav")
    torch.testing.assert_close(again, wave.clamp(-1, 1), rtol=0, atol=2.0**-15)


def test_sixteen_bit_files_are_copied_without_a_change(tmp_path: Path):
    values = np.arange(-(2**15), 2**15, 7, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", values, 16000)
    wave, sample_rate = read_audio(tmp_path / "a.wav")
    write_audio(tmp_path / "b.wav", wave, sample_rate)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], values)


def test_channels_are_averaged(tmp_path: Path):
    left, right = tone(500, 8000), tone(500, 8000, 700)
    soundfile.write(tmp_path / "two.wav", torch.stack([left, right], 1).numpy(), 8000, subtype="FLOAT")
    wave, _ = read_audio(tmp_path / "two.wav")
    torch.testing.assert_close(wave, (left + right) / 2)


def test_reading_resamples(tmp_path: Path):
    write_audio(tmp_path / "tone.wav", tone(48000, 48000), 48000, "float")
    wave, sample_rate = read_audio(tmp_path / "tone.wav", 16000)
    assert (wave.shape, wave.dtype, sample_rate) == ((16000,), torch.float32, 16000)
    # away from the ends, where the resampler sees the tone begin
    torch.testing.assert_close(wave[500:-500], tone(16000, 16000)[500:-500], rtol=0, atol=1e-5)


def test_resampling_takes_batches_and_keeps_the_dtype():
    waves = torch.stack([tone(4410, 44100).double(), tone(4410, 44100, 900).double()])
    low = resample(waves, 44100, 22050)
    assert (low.shape, low.dtype) == ((2, 2205), torch.float64)
    torch.testing.assert_close(resample(waves[1], 44100, 22050), low[1], rtol=0, atol=1e-12)
    assert resample(waves, 44100, 44100) is waves
    with pytest.raises(ValueError, match="from 44100 Hz to 0 Hz"):
        resample(waves, 44100, 0)


def test_silence_at_the_ends_is_cut(tmp_path: Path):
    wave = torch.cat([torch.zeros(16000), tone(16000, 16000), torch.zeros(16000)])
    write_audio(tmp_path / "pause.wav", wave, 16000)
    trimmed, _ = read_audio(tmp_path / "pause.wav", trim_decibels=40)
    assert 16000 <= len(trimmed) < 16000 + 2 * 2048  # the frames of 2048 samples that still hear the tone


def test_unreadable_files_are_refused(tmp_path: Path):
    (tmp_path / "text.wav").write_text("this is no sound")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan, np.inf]), 16000, subtype="FLOAT")
    with pytest.raises(FileNotFoundError, match=r"none\.wav: no such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_audio(tmp_path)
    with pytest.raises(ValueError, match=r"text\.wav: not a readable sound file"):
        read_audio(tmp_path / "text.wav")
    with pytest.raises(ValueError, match=r"empty\.wav: has no samples"):
        read_audio(tmp_path / "empty.wav")
    with pytest.raises(ValueError, match=r"nan\.wav: holds 2 values that are not finite"):
        read_audio(tmp_path / "nan.wav")


@pytest.mark.parametrize(
    ("name", "wave", "subtype", "error", "message"),
    [
        ("a.aiff", torch.zeros(9), "16", ValueError, r"suffix '\.aiff' is not a known format; known: \.wav"),
        ("a.wav", torch.zeros(9), "32", ValueError, "subtype is '32'"),
        ("a.flac", torch.zeros(9), "float", ValueError, "FLAC does not hold floats"),
        ("no/a.wav", torch.zeros(9), "16", FileNotFoundError, "folder .* does not exist"),
        ("a.wav", torch.zeros(9, dtype=torch.int16), "16", TypeError, "torch.int16"),
        ("a.wav", torch.zeros(1, 9), "16", ValueError, r"shape \(1, 9\)"),
        ("a.wav", torch.zeros(0), "16", ValueError, r"shape \(0,\)"),
        ("a.wav", torch.tensor([0, math.nan]), "float", ValueError, "1 values that are not finite"),
        ("a.mp3", torch.zeros(9), "16", ValueError, "cannot be written at 7 Hz"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, name, wave, subtype, error, message):
    old = tmp_path / Path(name).name
    old.write_bytes(b"old")
    with pytest.raises(error, match=message):
        write_audio(tmp_path / name, wave, 7, subtype)
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


def container(wave: Tensor, kind: str, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave.numpy(), 24000, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        *(("WAV", name) for name in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW")),
        *(("WAVEX", "PCM_24"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")),
    ],
)
def test_file_that_breaks_off_is_read_with_both_numbers_of_samples(tmp_path: Path, kind: str, subtype: str):
    whole = container(tone(22050, 24000), kind, subtype)
    path = tmp_path / "half.wav"
    path.write_bytes(whole[: len(whole) // 2])
    there = soundfile.info(str(path)).frames
    message = rf"half\.wav: breaks off: its header promises 22050 samples, but {there} are there"
    with pytest.warns(UserWarning, match=message):
        wave, _ = read_audio(path)
    assert len(wave) == there
    path.write_bytes(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_audio(path)[0]) == 22050


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "CAF"])
def test_compressed_file_that_breaks_off_is_refused(tmp_path: Path, kind: str):
    whole = container(tone(22050, 24000), kind, "VORBIS" if kind == "OGG" else "PCM_16")
    path = tmp_path / "half"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half: not a readable sound file: "):
        read_audio(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0x7FFFFFFF - 36])
def test_sizes_of_programs_that_stream_are_read_to_the_end_without_a_word(tmp_path: Path, size: int):
    content = bytearray(container(tone(22050, 24000), "WAV"))
    content[4:8] = content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "piped.wav").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_audio(tmp_path / "piped.wav")[0]) == 22050


@pytest.mark.parametrize("in_memory", [False, True])
def test_header_that_says_nothing_follows_is_named(tmp_path: Path, in_memory: bool):
    content = bytearray(container(tone(22050, 24000), "WAV"))
    content[40:44] = bytes(4)
    path = tmp_path / "zero.wav"
    path.write_bytes(content)
    source = io.BytesIO(bytes(content)) if in_memory else path
    with pytest.raises(ValueError, match="its header says 0 bytes of samples, but 44100 follow"):
        read_audio(source)
    # an empty file whose title stands behind it has no sound
    empty = container(torch.zeros(0), "WAV") + b"LIST" + (8).to_bytes(4, "little") + b"INFOINAM"
    path.write_bytes(empty)
    with pytest.raises(ValueError, match=r"zero\.wav: has no samples; needs at least one$"):
        read_audio(path)


@pytest.mark.parametrize(
    ("format", "subtype"), [("wav", "16"), ("wav", "float"), ("flac", "24"), ("ogg", "16"), ("mp3", "16")]
)
def test_file_objects_are_read_and_written(tmp_path: Path, format: str, subtype: str):
    wave = tone(4410, 22050)
    memory = io.BytesIO()
    assert write_audio(memory, wave, 22050, subtype, format=format) == 0
    write_audio(tmp_path / f"disk.{format}", wave, 22050, subtype)
    expected, _ = read_audio(tmp_path / f"disk.{format}")
    memory.seek(0)
    assert torch.equal(read_audio(memory)[0], expected)
    assert not memory.closed
    with (tmp_path / f"named.{format}").open("wb") as file:
        write_audio(file, wave, 22050, subtype)  # whose name has a suffix
    with (tmp_path / f"named.{format}").open("rb") as file:
        assert torch.equal(read_audio(file, 22050)[0], expected)


class Pipe(io.RawIOBase):
    """Neither goes back."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        content, self.content = self.content, b""
        return content

    def write(self, content) -> int:
        self.content += content
        return len(content)


def test_pipes_are_read_and_written():
    pipe = Pipe()
    write_audio(pipe, tone(441, 22050), 22050, format="wav")
    assert len(read_audio(pipe)[0]) == 441


@pytest.mark.parametrize(
    ("target", "format", "error", "message"),
    [
        (io.BytesIO(), None, ValueError, r"BytesIO: has no name .* format= one of wav, flac, ogg, mp3"),
        (io.BytesIO(), "aiff", ValueError, r"BytesIO: format 'aiff' is not a known format"),
        (io.StringIO(), "wav", TypeError, "StringIO: is opened as text"),
        (b"a.wav", "wav", TypeError, "path is a bytes; it must be a path or a binary file object"),
        (7, None, TypeError, "path is a int"),
    ],
)
def test_targets_that_take_no_sound_are_refused(target, format, error, message):
    with pytest.raises(error, match=message):
        write_audio(target, torch.zeros(9), 22050, format=format)


@pytest.mark.parametrize("source", [io.StringIO("RIFF"), b"RIFF", 7, None])
def test_sources_that_give_no_sound_are_refused(source):
    with pytest.raises(TypeError, match=r"opened as text|must be a path or a binary file object"):
        read_audio(source)


def test_format_goes_before_the_suffix(tmp_path: Path):
    write_audio(tmp_path / "take.1", tone(441, 22050), 22050, format="flac")
    assert soundfile.info(str(tmp_path / "take.1")).format == "FLAC"

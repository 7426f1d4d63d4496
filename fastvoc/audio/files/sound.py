"""Sound files: read at any rate, channel count and format; write without clicks and never by halves.

The libraries that do so are loaded when they are first used: a vocoder that only turns mels into waves needs none.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.files import header
from fastvoc.audio.inputs import Signal, as_given, as_rate, as_wave, check_precision
from fastvoc.writing import complete_file

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def read_audio(
    path: str | Path | BinaryIO, sample_rate: int | None = None, *, trim_decibels: float | None = None
) -> tuple[Tensor, int]:
    """Read a sound file as one channel.

    Parameters
    ----------
    path : str, Path or binary file object
        WAV, FLAC, OGG, MP3 or whatever else libsndfile reads; channels are averaged. A file object, such as an
        `io.BytesIO`, is read from where it stands.
    sample_rate : int, optional
        Rate to resample to, in Hz; without it the file's own rate stays.
    trim_decibels : float, optional
        Silence at both ends that is this far under the loudest frame is cut, in dB; without it nothing is cut.

    Returns
    -------
    wave : Tensor, shape (T,), float32
        Samples, in [-1, 1] unless the file itself exceeds that.
    sample_rate : int
        Their rate in Hz.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If it is neither a path nor a binary file object.
    ValueError
        If it is not a readable sound file, has no samples, or holds values that are not finite.

    Warns
    -----
    UserWarning
        If the file breaks off: its header promises more samples than follow.
    """
    import soundfile

    source, where = _source(path)
    try:
        with soundfile.SoundFile(source) as file:
            samples = file.read(dtype="float32", always_2d=True)
            file_rate = int(file.samplerate)
            promised = header.promised_frames(file, len(samples))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{where}: not a readable sound file: {error.error_string}") from None
    if samples.size == 0:
        raise ValueError(f"{where}: {header.why_empty(*_head(source))}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{where}: holds {np.sum(~np.isfinite(samples))} values that are not finite; write it anew")
    if promised > len(samples):
        warnings.warn(
            f"{where}: breaks off: its header promises {promised} samples, but {len(samples)} are there", stacklevel=2
        )
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if trim_decibels is not None:
        import librosa

        mono, _ = librosa.effects.trim(mono, top_db=trim_decibels)
    wave = torch.from_numpy(np.ascontiguousarray(mono))
    if sample_rate is None:
        return wave, file_rate
    to_rate = as_rate(sample_rate, "read_audio")
    return resample(wave, file_rate, to_rate), to_rate


def write_audio(
    path: str | Path | BinaryIO,
    wave: Tensor | NDArray[np.floating],
    sample_rate: int,
    subtype: Literal["16", "24", "float"] = "16",
    *,
    format: Literal["wav", "flac", "ogg", "mp3"] | None = None,
) -> int:
    """Write one channel to a sound file.

    A sample is scaled by 32768 (2^23 at 24 bits), the factor that reading divides by, and limited to the largest
    integer, so +1.0 does not wrap around to the loudest negative value. The file appears under its name only
    when it is complete.

    Parameters
    ----------
    path : str, Path or binary file object
        Without a `format`, the suffix names it: .wav, .flac, .ogg or .mp3. A file object, such as an `io.BytesIO`,
        is written to in one piece, and left open.
    wave : Tensor or ndarray, shape (T,), floating point
        Samples in [-1, 1], on any device.
    sample_rate : int
        Their rate in Hz.
    subtype : {"16", "24", "float"}
        Bits of each sample; "float" keeps 32-bit floats as they are, in .wav only. OGG and MP3 have an encoding of
        their own.
    format : {"wav", "flac", "ogg", "mp3"}, optional
        Has to be named for a file object without a name.

    Returns
    -------
    int
        Number of samples outside [-1, 1] that were limited: more than a few are audible.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If the wave is neither a tensor nor an array, or not floating point; if `path` is neither a path nor a binary
        file object.
    ValueError
        If the wave has another shape, no samples or values that are not finite, or the format cannot hold it.
    """
    import soundfile

    where, kind = _target(path, subtype, format)
    samples = _writable(where, wave)
    rate = as_rate(sample_rate, where)
    limited = 0 if subtype == "float" else int(np.sum(np.abs(samples) > 1))
    encoding: str | None = None
    data: NDArray[np.generic]
    if kind in ("OGG", "MP3"):
        data = np.clip(samples, -1, 1).astype(np.float32)
    elif subtype == "float":
        encoding, data = "FLOAT", samples.astype(np.float32)
    elif subtype == "24":  # libsndfile takes the upper 24 of 32 bits
        encoding, data = "PCM_24", np.clip(np.rint(samples * 2.0**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    else:
        encoding, data = "PCM_16", np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    try:
        if isinstance(path, str | os.PathLike):
            with complete_file(Path(path)) as temporary:
                soundfile.write(file_name(temporary), data, rate, subtype=encoding, format=kind)
        else:
            whole = io.BytesIO()
            soundfile.write(whole, data, rate, subtype=encoding, format=kind)
            path.write(whole.getvalue())
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{where}: cannot be written at {rate} Hz: {error.error_string}") from None
    return limited


def resample(wave: Signal, from_rate: int, to_rate: int) -> Signal:
    """Change the sample rate with the SoX resampler at its highest quality.

    Parameters
    ----------
    wave : Tensor or ndarray, shape (T,) or (B, T), float32 or float64
        Samples at `from_rate`, on any device; gradients do not pass.
    from_rate, to_rate : int
        Sample rates in Hz.

    Returns
    -------
    Tensor or ndarray, as given, shape (T',) or (B, T')
        Samples at `to_rate`, T' = T * to_rate / from_rate to the nearest integer; the wave itself for equal rates.

    Raises
    ------
    TypeError
        If the wave is neither a tensor nor an array, or not float32 or float64.
    ValueError
        If the wave has another shape, or a rate is not a positive whole number.
    """
    where = "resample"
    samples = as_wave(wave, where)
    check_precision(samples, where)
    if samples.ndim not in (1, 2):
        raise ValueError(f"{where}: wave has shape {tuple(samples.shape)}; needs (samples,) or (batch, samples)")
    rates = as_rate(from_rate, where, "from_rate"), as_rate(to_rate, where, "to_rate")
    if min(rates) <= 0:
        raise ValueError(f"{where}: from {rates[0]} Hz to {rates[1]} Hz; both rates are positive")
    if rates[0] == rates[1]:
        return as_given(samples, wave)
    import soxr

    columns = samples.detach().cpu().numpy().T  # soxr wants (samples, channels)
    resampled = soxr.resample(np.ascontiguousarray(columns), *rates, quality="VHQ")
    return as_given(torch.from_numpy(np.ascontiguousarray(resampled.T)).to(samples.device), wave)


def file_name(path: str | Path) -> str | bytes:
    """Return the name of a file as libsndfile takes it: bytes, so that names that are no text are names too."""
    return str(path) if sys.platform == "win32" else os.fsencode(path)


def _source(path: Any) -> tuple[str | bytes | io.BytesIO, str]:
    """Return what libsndfile reads from, and what to call it."""
    if isinstance(path, str | os.PathLike):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: {'is a folder, not a sound file' if path.is_dir() else 'no such file'}")
        return file_name(path), str(path)
    if not hasattr(path, "read"):
        raise TypeError(f"read_audio: path is a {type(path).__name__}; it must be a path or a binary file object")
    where = _called(path)
    if hasattr(path, "encoding"):
        raise TypeError(f"{where}: is opened as text; sound is read from a file that is opened in mode 'rb'")
    # libsndfile goes back and forth in a file, which a pipe does not, and begins at its first byte
    return io.BytesIO(path.read()), where


def _head(source: str | bytes | io.BytesIO) -> tuple[bytes, int]:
    """Return the first bytes of a file, and its size."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()[: header.HEAD], len(source.getvalue())
    with Path(os.fsdecode(source)).open("rb") as file:
        return file.read(header.HEAD), os.fstat(file.fileno()).st_size


def _target(path: Any, subtype: str, format: str | None) -> tuple[str, str]:
    """Return what to call a file that is to be written, and its format as libsndfile calls it."""
    named = isinstance(path, str | os.PathLike)
    if not named and not hasattr(path, "write"):
        raise TypeError(f"write_audio: path is a {type(path).__name__}; it must be a path or a binary file object")
    where = str(path) if named else _called(path)
    if not named and hasattr(path, "encoding"):
        raise TypeError(f"{where}: is opened as text; sound is written to a file that is opened in mode 'wb'")
    suffix = Path(where).suffix if format is None else f".{format}"
    kind = _FORMATS.get(suffix.lower())
    if kind is None and not named and format is None and not suffix:
        known = ", ".join(name[1:] for name in _FORMATS)
        raise ValueError(f"{where}: has no name that ends in a suffix; name its format, format= one of {known}")
    if kind is None:
        what = f"suffix {suffix!r}" if format is None else f"format {format!r}"
        raise ValueError(f"{where}: {what} is not a known format; known: {', '.join(_FORMATS)}")
    if subtype not in ("16", "24", "float"):
        raise ValueError(f"{where}: subtype is {subtype!r}; known: '16', '24', 'float'")
    if subtype == "float" and kind != "WAV":
        raise ValueError(f"{where}: {kind} does not hold floats; write a .wav, or 16 or 24 bits")
    if named and not Path(path).parent.is_dir():
        raise FileNotFoundError(f"{where}: folder {Path(path).parent} does not exist")
    return where, kind


def _called(file: Any) -> str:
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else type(file).__name__


def _writable(where: str, wave: Any) -> NDArray[np.float64]:
    tensor = as_wave(wave, where)
    if tensor.ndim != 1 or tensor.numel() == 0:
        raise ValueError(f"{where}: wave has shape {tuple(tensor.shape)}; needs (samples,) with at least one")
    samples = tensor.detach().cpu().double().numpy()
    if not np.isfinite(samples).all():
        raise ValueError(f"{where}: wave holds {np.sum(~np.isfinite(samples))} values that are not finite")
    return samples

"""Sound files: read at any rate, channel count and format; write without clicks and never by halves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import librosa
import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

_FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}


def read_audio(
    path: str | Path, sample_rate: int | None = None, *, trim_decibels: float | None = None
) -> tuple[Tensor, int]:
    """Read a sound file as one channel.

    Parameters
    ----------
    path : str or Path
        WAV, FLAC, OGG, MP3 or whatever else libsndfile reads; channels are averaged.
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
    ValueError
        If it is not a readable sound file, has no samples, or holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'is a folder, not a sound file' if path.is_dir() else 'no such file'}")
    try:
        samples, file_rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not a readable sound file: {error.error_string}") from None
    if samples.size == 0:
        raise ValueError(f"{path}: has no samples; needs at least one")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: holds {np.sum(~np.isfinite(samples))} values that are not finite; write it anew")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if trim_decibels is not None:
        mono, _ = librosa.effects.trim(mono, top_db=trim_decibels)
    wave = torch.from_numpy(np.ascontiguousarray(mono))
    if sample_rate is None:
        return wave, int(file_rate)
    return resample(wave, int(file_rate), sample_rate), sample_rate


def write_audio(path: str | Path, wave: Tensor, sample_rate: int, subtype: Literal["16", "24", "float"] = "16") -> int:
    """Write one channel to a sound file.

    A sample is scaled by 32768 (2^23 at 24 bits), the factor that reading divides by, and limited to the largest
    integer, so +1.0 does not wrap around to the loudest negative value. The file appears under its name only
    when it is complete.

    Parameters
    ----------
    path : str or Path
        The suffix names the format: .wav, .flac, .ogg or .mp3; the last two have an encoding of their own.
    wave : Tensor, shape (T,), floating point
        Samples in [-1, 1], on any device.
    sample_rate : int
        Their rate in Hz.
    subtype : {"16", "24", "float"}
        Bits of each sample; "float" keeps 32-bit floats as they are, in .wav only.

    Returns
    -------
    int
        Number of samples outside [-1, 1] that were limited: more than a few are audible.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If the wave is not floating point.
    ValueError
        If the wave has another shape, no samples or values that are not finite, or the format cannot hold it.
    """
    path = Path(path)
    samples, form = _writable(path, wave, subtype)
    limited = 0 if subtype == "float" else int(np.sum(np.abs(samples) > 1))
    encoding: str | None = None
    data: NDArray[np.generic]
    if form in ("OGG", "MP3"):
        data = np.clip(samples, -1, 1).astype(np.float32)
    elif subtype == "float":
        encoding, data = "FLOAT", samples.astype(np.float32)
    elif subtype == "24":  # libsndfile takes the upper 24 of 32 bits
        encoding, data = "PCM_24", np.clip(np.rint(samples * 2.0**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    else:
        encoding, data = "PCM_16", np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    temporary = path.with_name(path.name + ".partial")
    try:
        soundfile.write(str(temporary), data, sample_rate, subtype=encoding, format=form)
        temporary.replace(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: cannot be written at {sample_rate} Hz: {error.error_string}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return limited


def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with the SoX resampler at its highest quality.

    Parameters
    ----------
    wave : Tensor, shape (T,) or (B, T), float32 or float64
        Samples at `from_rate`, on any device; gradients do not pass.
    from_rate, to_rate : int
        Sample rates in Hz.

    Returns
    -------
    Tensor, shape (T',) or (B, T')
        Samples at `to_rate`, T' = T * to_rate / from_rate to the nearest integer; the wave itself for equal rates.

    Raises
    ------
    ValueError
        If a rate is not positive.
    """
    if from_rate <= 0 or to_rate <= 0:
        raise ValueError(f"resample: from {from_rate} Hz to {to_rate} Hz; both rates are positive")
    if from_rate == to_rate:
        return wave
    samples = wave.detach().cpu().numpy().T  # soxr wants (samples, channels)
    resampled = soxr.resample(np.ascontiguousarray(samples), from_rate, to_rate, quality="VHQ")
    return torch.from_numpy(np.ascontiguousarray(resampled.T)).to(wave.device)


def _writable(path: Path, wave: Tensor, subtype: str) -> tuple[NDArray[np.float64], str]:
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not a known format; known: {', '.join(_FORMATS)}")
    if subtype not in ("16", "24", "float"):
        raise ValueError(f"{path}: subtype is {subtype!r}; known: '16', '24', 'float'")
    if subtype == "float" and form != "WAV":
        raise ValueError(f"{path}: {form} does not hold floats; write a .wav, or 16 or 24 bits")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: folder {path.parent} does not exist")
    if not wave.is_floating_point():
        raise TypeError(f"{path}: wave is {wave.dtype}; convert it to floating point in [-1, 1]")
    if wave.ndim != 1 or wave.numel() == 0:
        raise ValueError(f"{path}: wave has shape {tuple(wave.shape)}; needs (samples,) with at least one")
    samples = wave.detach().cpu().double().numpy()
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: wave holds {np.sum(~np.isfinite(samples))} values that are not finite")
    return samples, form

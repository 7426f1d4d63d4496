"""How good a generator is, on whole clips that it was not trained on, from their mels to their waves."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fastvoc.audio import MelConfig, mel_l1, mel_spectrogram, multi_resolution_stft, pesq
from fastvoc.audio.pitch import pitch, voicing_error
from fastvoc.engine.opaque import OpaqueStream, is_opaque
from fastvoc.engine.sampling import Sampling
from fastvoc.models import Generator
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.lists import shown
from fastvoc.train.data.reading import Unusable, read_clip
from fastvoc.train.data.recordings import Recordings, split_recordings

_logger = logging.getLogger(__name__)


def validation_clips(config: DataConfig, *, sample_rate: int) -> dict[str, dict[str, Tensor]]:
    """Read the validation sets of a run.

    Parameters
    ----------
    config : DataConfig
    sample_rate : int
        In Hz.

    Returns
    -------
    dict of str to dict of str to Tensor, shape (T,), float32
        Set ("seen" or "unseen") to name to wave; empty sets are left out. Clips are trimmed and scaled like
        recordings that are trained on, but for their level, which is `peak`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `fastvoc.train.data.recordings.split_recordings`; or if a set has recordings, but none that is usable.
    """
    split = split_recordings(config, sample_rate=sample_rate)
    if split.passed_over:
        number, wanted, reason = len(split.passed_over), config.held_out, split.passed_over[0]
        _logger.warning(
            "held out %d recordings (data.held_out is %d); %d in their places cannot be judged by, such as %s",
            *(len(split.seen), wanted, number, reason),
        )
    sets = {"seen": split.seen, "unseen": split.unseen}
    return {name: _clips(name, part, config, sample_rate) for name, part in sets.items() if len(part)}


def validate(generator: nn.Module, clips: Mapping[str, Tensor], mel_config: MelConfig) -> dict[str, float]:
    """Judge a generator; what `measure` says of what `generate` makes.

    Parameters
    ----------
    generator : nn.Module
        (1, bands, frames) → (1, 1, frames * hop); on its own device, in any mode, which stays as it is.
    clips : mapping of str to Tensor, shape (T,), float32
        Recordings at the rate of the convention.
    mel_config : MelConfig
        The generator's convention.

    Returns
    -------
    dict of str to float
    """
    return measure(generate(generator, clips, mel_config), mel_config)


def generate(
    generator: nn.Module, clips: Mapping[str, Tensor], mel_config: MelConfig, *, seconds: float | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Vocode recordings from their own mels, without a trace in what follows.

    Training modes and random numbers are afterwards what they were, so that a run is the same however often it is
    validated; a generator that draws noise draws the same every time.

    Parameters
    ----------
    generator, clips, mel_config
        As in `validate`; a generator that draws random numbers, or is recurrent, runs as in a stream, with the seed 0.
    seconds : float, optional
        So much of each recording is vocoded, rounded up to whole frames, and no more.

    Returns
    -------
    dict of str to (Tensor, Tensor), each of shape (T,), float32, on the CPU
        Recording and generated wave, by name.
    """
    weight = next(generator.parameters())
    most = None if seconds is None else math.ceil(seconds * mel_config.sample_rate / mel_config.hop)
    pairs = {}
    with _untouched(generator, weight.device):
        for name, clip in clips.items():
            frames = len(clip) // mel_config.hop
            wave = clip[: (frames if most is None else min(frames, most)) * mel_config.hop]
            mel = _input_of(generator, wave[None].to(weight.device), mel_config)
            made = _made(generator, mel.to(weight.dtype))
            # a centred convention has one frame more
            pairs[name] = (wave.cpu(), made.flatten()[: len(wave)].float().cpu())
    return pairs


def _input_of(generator: nn.Module, wave: Tensor, mel_config: MelConfig) -> Tensor:
    """(1, T) → what a network is given, (1, bands, frames)."""
    return (
        generator.input_of(wave, mel_config) if isinstance(generator, Generator) else mel_spectrogram(wave, mel_config)
    )


def _made(generator: nn.Module, mel: Tensor) -> Tensor:
    """(1, bands, T) → samples, of a network that may be run by streams alone."""
    if not isinstance(generator, Generator) or not is_opaque(generator):
        made: Tensor = generator(mel)
        return made
    sampling, draws = None, generator.draws
    if draws is not None:
        temperature = torch.full((1,), draws.temperature, dtype=mel.dtype, device=mel.device)
        sampling = Sampling(torch.zeros(1, dtype=torch.int64, device=mel.device), temperature)
    stream = OpaqueStream(generator, sampling=sampling)
    return stream.advance(stream.start(1), mel, ended=True)


def measure(samples: Mapping[str, tuple[Tensor, Tensor]], mel_config: MelConfig) -> dict[str, float]:
    """Compare generated waves with their recordings.

    Parameters
    ----------
    samples : mapping of str to (Tensor, Tensor), each of shape (T,), float32
        Recording and generated wave, as `generate` returns them.
    mel_config : MelConfig
        Convention of the mel distance.

    Returns
    -------
    dict of str to float
        - ``mel_l1``: mean of `fastvoc.audio.mel_l1` over the clips;
        - ``mr_stft``: mean of the sum of the two terms of `fastvoc.audio.multi_resolution_stft`;
        - ``pesq``: mean of `fastvoc.audio.pesq` over the clips that it can judge, where ``fastvoc[eval]`` is installed;
        - ``periodicity``, ``voiced_f1``: `fastvoc.audio.pitch.voicing_error` over the frames of all clips.

        Not a number where a generated wave is not finite.
    """
    if not samples:
        raise ValueError("measure: there are no samples; needs at least one")
    with_pesq = find_spec("pesq") is not None
    names = ("mel_l1", "mr_stft", *(("pesq",) if with_pesq else ()), "periodicity", "voiced_f1")
    if not all(bool(made.isfinite().all()) for _, made in samples.values()):
        return dict.fromkeys(names, math.nan)
    rate = mel_config.sample_rate
    sums: dict[str, list[float]] = {name: [] for name in names}
    pitches = []
    for recorded, made in samples.values():
        sums["mel_l1"].append(float(mel_l1(made, recorded, mel_config)))
        sums["mr_stft"].append(float(sum(multi_resolution_stft(made, recorded))))
        pitches.append((pitch(recorded, rate), pitch(made, rate)))
        if with_pesq:
            sums["pesq"].extend(_pesq(made, recorded, rate))
    voicing = voicing_error(pitches)
    numbers = {name: sum(values) / len(values) for name, values in sums.items() if values}
    return numbers | {"periodicity": voicing.periodicity, "voiced_f1": voicing.voiced_f1}


def _pesq(made: Tensor, recorded: Tensor, rate: int) -> tuple[float, ...]:
    """PESQ, or nothing where the recording itself cannot be judged."""
    if not made.any():
        return (1.0,)
    try:
        return (pesq(made, recorded, rate),)
    except ValueError:
        try:
            pesq(recorded, recorded, rate)
        except ValueError:
            return ()
        return (1.0,)  # there is no speech in what was made: the lowest value


@contextmanager
def _untouched(generator: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate a network without gradients, then restore the mode of each of its modules and all random numbers."""
    modes = {module: module.training for module in generator.modules()}
    cuda = [device] if device.type == "cuda" else []
    # no_grad, not inference_mode: what a module caches now may meet autograd later
    with torch.random.fork_rng(cuda), torch.no_grad():
        torch.manual_seed(0)
        generator.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def _clips(name: str, recordings: Recordings, config: DataConfig, sample_rate: int) -> dict[str, Tensor]:
    clips: dict[str, Tensor] = {}
    reasons = []
    for index in recordings.evenly(config.validation_clips):
        recording = recordings[index]
        try:
            wave = read_clip(recording, sample_rate, trim=config.trim, peak=config.peak)
        except Unusable as error:
            reasons.append(str(error))
            continue
        title = Path(shown(recording.path)).stem
        clips[title if title not in clips else f"{title}-{index}"] = wave
    if not clips:
        remedy = "name others in data.unseen"
        if name == "seen":
            remedy = "name others in data.validation, or do without (data.held_out=0 and no data.validation)"
        raise ValueError(
            f"data: no recording of the {name} validation set can be used: {'; '.join(reasons[:3])}; {remedy}"
        )
    for reason in reasons:
        _logger.warning("left out of the %s validation set: %s", name, reason)
    return clips

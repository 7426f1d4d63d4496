"""What the user holds of a network that plays notes: pitches and points of timbre become sound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio.files.melody import Note
from fastvoc.audio.inputs import as_tensor
from fastvoc.audio.instantaneous_frequency import denormalise, note_wave
from fastvoc.checkpoints import Checkpoint, InstrumentConfig, open_checkpoint
from fastvoc.engine.surroundings import own_arithmetic, uncompiled
from fastvoc.faces.face import INSTRUMENT, Face, face_of, register
from fastvoc.models import INSTRUMENTS, GANSynth
from fastvoc.noise import Seed, normal, read_seeds

AT_ONCE = 8
"""Notes that a GPU computes at once: the last block of the published network makes 134 MB of features for each layer.
A CPU computes one after another, which is faster, since the features of one stay in memory that is used again."""

ATTACK, RELEASE, LONGEST = 0.01, 0.3, 3.0
"""Seconds in which a note of a melody rises and fades, and after which it fades though it is held."""

Pitches = int | Sequence[int] | Tensor


@register
class Instrument(Face[GANSynth]):
    """Play notes, whose timbre is a point that may be drawn, kept over a scale, and moved towards another.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `fastvoc.open`.
    device : str or torch.device
    dtype : torch.dtype or str, optional
        Of weights, arithmetic and waves, or its name; by default torch.float32. Spectra become waves in float32 where
        it is narrower.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Has no effect: the network is plain PyTorch.
    """

    config: InstrumentConfig

    CONFIG = InstrumentConfig
    GENERATORS = INSTRUMENTS

    _kept: tuple[object, list[Tensor]] | None = None
    """What the network's `taps` returned, and of which revision of its weights."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = INSTRUMENT,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Open an instrument in any known format.

        Parameters
        ----------
        path : str or Path
            A folder or file; ``"instrument"`` is the one that comes with the package, where nothing of this name is in
            the working directory.
        config : str or Path, optional
            The settings, where they do not lie beside the weights.
        device, dtype, backend
            As in the class.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ValueError
            If it holds something else; the message says what.
        """
        return super().from_pretrained(path, config=config, device=device, dtype=dtype, backend=backend)

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> Checkpoint:
        return open_checkpoint(path, config=config) if face_of(path, config) is None else super()._open(path, config)

    def _check_fits(self, generator: Any) -> None:
        if not isinstance(generator, GANSynth):
            raise TypeError(
                f"Instrument: generator is a {type(generator).__name__}; it must be a fastvoc.models.GANSynth"
            )
        given, fits = generator.config, self._generator.config
        for name in ("latent", "lowest_pitch", "pitches", "frames", "bins"):
            if getattr(given, name) != getattr(fits, name):
                raise ValueError(
                    f"Instrument: generator has {name} {getattr(given, name)}; in this instrument it must be "
                    f"{getattr(fits, name)}"
                )

    def _facts(self) -> list[str]:
        return [f"{self.sample_rate} Hz", f"pitches {self.lowest} to {self.highest}"]

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.spectrum.sample_rate

    @property
    def samples(self) -> int:
        """Of a note."""
        return self.config.spectrum.samples

    @property
    def lowest(self) -> int:
        """The lowest pitch, as a MIDI number."""
        return self._generator.config.lowest_pitch

    @property
    def highest(self) -> int:
        """The highest pitch, as a MIDI number."""
        return self.lowest + self._generator.config.pitches - 1

    @uncompiled
    def __call__(self, pitch: Pitches = 60, z: Tensor | None = None, seed: Seed | None = 0) -> Tensor:
        """Play notes.

        Parameters
        ----------
        pitch : int, or sequence or Tensor of B ints
            MIDI numbers, from `lowest` to `highest`; 60 is the middle C.
        z : Tensor or ndarray, shape (latent,) or (B, latent), optional
            Points of timbre, such as `timbre` returns: one for all notes, or one for each.
        seed : int, or sequence of B ints, optional
            Where there is no `z`, of the point of all notes, or of each note's. None is a fresh one, which
            `fastvoc.noise.last_seeds` returns.

        Returns
        -------
        Tensor, shape (samples,) or (B, samples)
            Waves at `sample_rate` Hz, on the instrument's device and in its dtype, in about [-1, 1]: nothing limits
            them. Without a sequence there is one pitch and one wave.

        Raises
        ------
        TypeError
            If pitches or seeds are no whole numbers, or `z` is no tensor of floating-point numbers.
        ValueError
            If a pitch is beyond the instrument, or `z` or seeds do not fit the pitches.
        """
        where = "Instrument"
        single, pitches = _read_pitches(pitch, self.lowest, self.highest)
        if z is None:
            given, several = _read_seed(seed)
            points = self._draw(read_seeds(given, len(pitches) if several else 1, where))
        else:
            points = self._read_timbre(z, where)
            if points.ndim == 2 and len(points) not in (1, len(pitches)):
                raise ValueError(
                    f"{where}: z holds {len(points)} points; it must be one, or one for each of {len(pitches)} pitches"
                )
        points = points.expand(len(pitches), -1)
        waves = self._play(points, torch.tensor(pitches, dtype=torch.int64, device="cpu") - self.lowest)
        return waves[0] if single else waves

    @uncompiled
    def timbre(self, seed: Seed | None = 0) -> Tensor:
        """Draw points of timbre, which are the same on every device.

        Parameters
        ----------
        seed : int, or sequence of N ints, optional
            From 0; None is a fresh one, which `fastvoc.noise.last_seeds` returns.

        Returns
        -------
        Tensor, shape (latent,) or (N, latent), float32
            Of the standard normal distribution.
        """
        given, several = _read_seed(seed)
        points = self._draw(read_seeds(given, len(given) if several else 1, "Instrument.timbre"))
        return points if several else points[0]

    @uncompiled
    def interpolate(self, first: Tensor, second: Tensor, fraction: float | Sequence[float] | Tensor = 0.5) -> Tensor:
        """Move from one point of timbre to another along a great circle, on which points stay as probable.

        Parameters
        ----------
        first, second : Tensor or ndarray, shape (latent,)
        fraction : float, or sequence or Tensor of N floats
            At 0 it is the first point, at 1 the second.

        Returns
        -------
        Tensor, shape (latent,) or (N, latent), float32

        Raises
        ------
        TypeError
            If a point is no tensor of floating-point numbers, or a fraction no number.
        ValueError
            If a fraction is not between 0 and 1, points do not fit the instrument, or they lie opposite each other:
            then no great circle is the shortest.
        """
        where = "Instrument.interpolate"
        pair = [self._read_timbre(point, where) for point in (first, second)]
        if any(point.ndim != 1 for point in pair):
            raise ValueError(
                f"{where}: points have shapes {tuple(pair[0].shape)} and {tuple(pair[1].shape)}; each "
                f"must be ({len(pair[0].T)},)"
            )
        try:
            share = torch.as_tensor(fraction, dtype=torch.float64, device="cpu").detach()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{where}: fraction is {fraction!r}; it must be a number, or a row of such") from None
        if share.ndim > 1 or not bool(((share >= 0) & (share <= 1)).all()):
            raise ValueError(f"{where}: fraction is {fraction!r}; it must be between 0 and 1, or a row of such")
        a, b = (point.double().cpu() for point in pair)
        return _slerp(a, b, share[..., None], where).float()

    @uncompiled
    def melody(self, notes: Sequence[Note], z: Tensor) -> Tensor:
        """Play a melody whose timbre may move from point to point; notes that overlap are added.

        A note rises for 10 ms and fades for 0.3 s behind its end, or behind 3 s, as the original plays MIDI files.

        Parameters
        ----------
        notes : sequence of Note
            In any order.
        z : Tensor or ndarray, shape (latent,) or (N, latent)
            Points of timbre: one, or several that lie evenly between the starts of the first and the last note.

        Returns
        -------
        Tensor, shape (T,)
            At `sample_rate` Hz; its largest magnitude is 0.5, unless it is silent.

        Raises
        ------
        ValueError
            If there are no notes, one is beyond the instrument, the melody lasts longer than a day, or two neighbouring
            points lie opposite each other.
        """
        where = "Instrument.melody"
        notes = list(notes)
        for note in notes:
            if not isinstance(note, Note):
                raise TypeError(f"{where}: {note!r} is a {type(note).__name__}; it must be a Note")
        if not notes:
            raise ValueError(f"{where}: there are no notes")
        last = max(note.start + _held(note) for note in notes)
        if last > 86400:
            raise ValueError(f"{where}: its last note ends at {last:.0f} s; no melody is longer than a day")
        _read_pitches([note.pitch for note in notes], self.lowest, self.highest)
        points = self._read_timbre(z, where).reshape(-1, self._generator.config.latent).double().cpu()
        begin, end = min(note.start for note in notes), max(note.start for note in notes)
        length = math.ceil((last + RELEASE) * self.sample_rate) + 1
        mixed = torch.zeros(length, dtype=torch.promote_types(self.dtype, torch.float32), device="cpu")
        for first in range(0, len(notes), AT_ONCE):
            some = notes[first : first + AT_ONCE]
            places = [(note.start - begin) / (end - begin) if end > begin else 0.0 for note in some]
            timbres = torch.stack([_along(points, place, where) for place in places]).float()
            waves = self([note.pitch for note in some], timbres).double().cpu()
            for note, wave in zip(some, waves, strict=True):
                played = wave * _envelope(note, self.sample_rate, len(wave)) * (note.velocity / 127)
                start = round(note.start * self.sample_rate)
                played = played[: max(0, length - start)]
                mixed[start : start + len(played)] += played
        peak = max(float(mixed.max()), -float(mixed.min()))
        if peak > 0:
            mixed *= 0.5 / peak
        return mixed.to(self.device, self.dtype)

    def _draw(self, seeds: list[int]) -> Tensor:
        """Return points of timbre, (N, latent), on the CPU."""
        with own_arithmetic(torch.device("cpu"), torch.device("cpu")):
            drawn = normal(
                torch.tensor(seeds, dtype=torch.int64, device="cpu"), 0, channels=self._generator.config.latent, rows=1
            )
        return drawn[..., 0]

    def _read_timbre(self, value: Any, where: str) -> Tensor:
        points = as_tensor(value, "z", where)
        latent = self._generator.config.latent
        if not points.is_floating_point():
            raise TypeError(f"{where}: z is of type {points.dtype}; it must be floating point")
        if points.ndim not in (1, 2) or points.shape[-1] != latent or not points.numel():
            raise ValueError(
                f"{where}: z has shape {tuple(points.shape)}; it must be ({latent},) or (points, {latent})"
            )
        points = points.detach()
        if not bool(points.float().square().sum(dim=-1).isfinite().all()):
            raise ValueError(f"{where}: z holds values that are not finite, or too large to be squared in float32")
        return points

    def _play(self, points: Tensor, pitches: Tensor) -> Tensor:
        """(B, latent) and (B,), from 0 → (B, samples)."""
        config, waves = self.config, []
        size = 1 if self.device.type == "cpu" else AT_ONCE
        with self._own():
            taps = self._taps()
            for first in range(0, len(pitches), size):
                some = slice(first, first + size)
                latent = points[some].to(self.device, torch.promote_types(self.dtype, torch.float32))
                picture = self._generator(latent, pitches[some].to(self.device), taps=taps)
                if self.dtype in (torch.float16, torch.bfloat16):
                    picture = picture.float()
                picture = denormalise(picture.permute(0, 2, 3, 1))
                wave = note_wave(picture, config.spectrum, mel=config.mel, second=config.second)
                waves.append(wave.to(self.dtype))
        return torch.cat(waves).clone()  # outside of whatever mode this is called in

    def _taps(self) -> list[Tensor]:
        """Return what the network multiplies, which is made anew only where a weight has changed."""
        revision, kept = self._version.revision(), self._kept
        if kept is None or kept[0] is not revision:
            self._kept = kept = revision, self._generator.taps()
        return kept[1]

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Compute in the instrument's own dtype, without gradients."""
        with own_arithmetic(self.device, self.device), torch.no_grad():
            yield


def _read_pitches(value: Any, lowest: int, highest: int) -> tuple[bool, list[int]]:
    """Return whether there is a single pitch, and all of them."""
    given = value.tolist() if hasattr(value, "tolist") else value
    single = not isinstance(given, Sequence) or isinstance(given, str)
    pitches = [given] if single else [item.tolist() if hasattr(item, "tolist") else item for item in given]
    if not pitches:
        raise ValueError("Instrument: there are no pitches; it needs at least one")
    for pitch in pitches:
        if not isinstance(pitch, int) or isinstance(pitch, bool):
            raise TypeError(
                f"Instrument: pitch {pitch!r} is a {type(pitch).__name__}; it must be an int, a MIDI number"
            )
        if not lowest <= pitch <= highest:
            raise ValueError(f"Instrument: pitch {pitch} is beyond this instrument, which plays {lowest} to {highest}")
    return single, pitches


def _read_seed(seed: Any) -> tuple[Any, bool]:
    """Return a seed without its tensor or array, and whether there are several."""
    given = seed.tolist() if hasattr(seed, "tolist") else seed
    return given, isinstance(given, Sequence) and not isinstance(given, str)


def _slerp(a: Tensor, b: Tensor, share: Tensor, where: str) -> Tensor:
    """Interpolate along a great circle; in a straight line where the points have one direction, or one has none."""
    lengths = float(a.norm() * b.norm())
    angle = (a @ b / lengths).clamp(-1, 1).arccos() if lengths else a.new_zeros(())
    if float(angle.sin()) < 1e-6:
        if float(angle) > 1:
            raise ValueError(f"{where}: two points lie opposite each other; go from one to the other by a third")
        return torch.lerp(a, b, share.to(a)).reshape(*share.shape[:-1], len(a))
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def _along(points: Tensor, place: float, where: str) -> Tensor:
    """Return the point at a place, from 0 to 1, of the way along (N, latent) points."""
    way = place * (len(points) - 1)
    first = min(int(way), max(0, len(points) - 2))
    if len(points) == 1:
        return points[0]
    share = torch.tensor([way - first], dtype=points.dtype, device="cpu")
    return _slerp(points[first], points[first + 1], share, where)


def _held(note: Note) -> float:
    """Return how long a note is held, in seconds."""
    return min(note.end - note.start, LONGEST)


def _envelope(note: Note, rate: int, samples: int) -> Tensor:
    """Return how loud each sample of a note is, from 0 to 1."""
    time = torch.arange(samples, dtype=torch.float64, device="cpu") / rate
    return (time / ATTACK).clamp(max=1) * (1 - (time - _held(note)) / RELEASE).clamp(0, 1)

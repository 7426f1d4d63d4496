"""Random numbers that are a function of a seed, a row and a channel, and the same bits on every device.

The hash is Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", §3.3),
computed in integers. Its key is the seed, its counter ``(row // 4, channel)``, and the four words that it makes are
those of four neighbouring rows. A number depends on nothing else: not on how many are drawn at once, on what else is in
the batch, on the device or on the number of threads. Nothing here rounds but the last step, the conversion of an
integer to float32, so compilers that fuse a multiplication with an addition change no bit either.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Seed = int | Sequence[int] | Tensor
"""What a user gives as the seed of a call: an int, or one int for each item of a batch."""

LARGEST_SEED = 2**63 - 1
"""The seeds are 0 to this."""

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What a generator draws: so many random numbers for each mel frame.

    Parameters
    ----------
    channels : int
        Random numbers side by side, independent of each other.
    rows_per_frame : int
        Rows of them for each mel frame; the hop, where there is one for each sample.
    distribution : {"normal", "uniform"}
        The standard normal one, or the uniform one in the open interval (0, 1).
    temperature : float
        What the generator is given where a caller names none; what it does with it is its own affair, and 0 is to leave
        nothing to chance.
    exact : bool
        Whether the generator is given them in single precision at least, and not in its own dtype where that is
        narrower: rounded to the eight bits of a bfloat16, numbers of a uniform distribution miss what is rare.
    """

    channels: int
    rows_per_frame: int
    distribution: Literal["normal", "uniform"] = "normal"
    temperature: float = 1.0
    exact: bool = False

    def __call__(self, seeds: Tensor, first: Tensor | int, frames: int) -> Tensor:
        """Draw the numbers of some frames.

        Parameters
        ----------
        seeds : Tensor, shape (B,), int64
        first : int, or Tensor of shape (B,), int64
            The first frame of each stream.
        frames : int
            How many.

        Returns
        -------
        Tensor, shape (B, channels, frames·rows_per_frame), float32
        """
        draw = normal if self.distribution == "normal" else uniform
        return draw(seeds, first * self.rows_per_frame, channels=self.channels, rows=frames * self.rows_per_frame)


_last: ContextVar[tuple[int, ...]] = ContextVar("last seeds", default=())


def last_seeds() -> tuple[int, ...]:
    """Return the seeds of the latest call in this thread or task that drew anything, one for each item of its batch."""
    return _last.get()


def fresh_seed() -> int:
    """Return a seed that nobody has had, of 48 bits, from the entropy of the operating system."""
    return secrets.randbits(48)


def read_seeds(seed: Seed | None, batch: int, where: str) -> list[int]:
    """Return the seed of each item of a batch, which are then the `last_seeds`.

    Parameters
    ----------
    seed : int, sequence of int or Tensor of integers, optional
        An int is the seed of the first item; the others have those that follow it. A sequence has one for each item.
        None is a fresh int.
    batch : int
    where : str
        What error messages begin with.

    Raises
    ------
    TypeError
        If a seed is no whole number.
    ValueError
        If there are more or fewer seeds than items, or one is negative or larger than `LARGEST_SEED`.
    """
    given: Any = fresh_seed() if seed is None else seed.tolist() if hasattr(seed, "tolist") else seed
    seeds: list[int]
    if isinstance(given, int) and not isinstance(given, bool):
        seeds = list(range(given, given + batch))
        if 0 <= given <= LARGEST_SEED < given + batch - 1:
            raise ValueError(
                f"{where}: seed {given} is that of the first of {batch} items, and those of the others follow it; it "
                f"must be {LARGEST_SEED - batch + 1} at most"
            )
    elif isinstance(given, Sequence) and not isinstance(given, str):
        seeds = [value.tolist() if hasattr(value, "tolist") else value for value in given]
        if len(seeds) != batch:
            raise ValueError(f"{where}: there are {len(seeds)} seeds; it must be one int, or one for each of {batch}")
    else:
        seeds = [given]
    for value in seeds:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{where}: seed {value!r} is a {type(value).__name__}; it must be an int")
        if not 0 <= value <= LARGEST_SEED:
            raise ValueError(f"{where}: seed {value} must be between 0 and {LARGEST_SEED}")
    _last.set(tuple(seeds))
    return seeds


def uniform(seeds: Tensor, first: Tensor | int, *, channels: int, rows: int) -> Tensor:
    """Draw numbers that are uniform in the open interval (0, 1): odd multiples of 2⁻²⁴.

    Parameters
    ----------
    seeds : Tensor, shape (B,), int64
        Of the streams, from 0.
    first : int, or Tensor of shape (B,), int64
        The first row of each stream, from 0.
    channels : int
        That are independent of each other.
    rows : int
        How many are drawn.

    Returns
    -------
    Tensor, shape (B, channels, rows), float32
        On the device of the seeds.
    """
    return ((words(seeds, first, channels=channels, rows=rows) >> 9) * 2 + 1).float() * 2.0**-24


def normal(seeds: Tensor, first: Tensor | int, *, channels: int, rows: int) -> Tensor:
    """Draw numbers of the standard normal distribution, the largest of which have magnitude 6.34.

    Each is the distribution's quantile at (word + ½) / 2³², to 2⁻²⁵ plus half a unit in the last place.

    Parameters
    ----------
    seeds, first, channels, rows
        As in `uniform`.

    Returns
    -------
    Tensor, shape (B, channels, rows), float32
    """
    return quantile(words(seeds, first, channels=channels, rows=rows))


def words(seeds: Tensor, first: Tensor | int, *, channels: int, rows: int) -> Tensor:
    """Draw words of 32 random bits.

    Parameters
    ----------
    seeds, first, channels, rows
        As in `uniform`.

    Returns
    -------
    Tensor, shape (B, channels, rows), int64
        Values from 0 to 2³² − 1.
    """
    device = seeds.device
    first = torch.as_tensor(first, dtype=torch.int64, device=device).expand(seeds.shape)
    blocks = (first >> 2)[:, None, None] + torch.arange((rows + 6) // 4, device=device)
    channel = torch.arange(channels, device=device)[:, None]
    key = seeds[:, None, None]
    counter = blocks & _WORD, blocks >> 32, channel, torch.zeros_like(channel)
    hashed = philox(counter, (key & _WORD, key >> 32))  # all of one shape, since every word depends on all others
    drawn = torch.stack(hashed, dim=-1).flatten(2)
    index = (first & 3)[:, None, None] + torch.arange(rows, device=device)
    return drawn.gather(-1, index.expand(-1, channels, -1))


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> list[Tensor]:
    """Hash a counter of four words with a key of two: Philox4x32-10.

    Parameters
    ----------
    counter, key : sequence of 4 and of 2 Tensors, int64
        Each a word of 32 bits; their shapes are broadcast.

    Returns
    -------
    list of 4 Tensors, int64
        Words of 32 bits.
    """
    a, b, c, d = counter
    k, m = key
    for number in range(_ROUNDS):
        # products of two words wrap around as signed numbers; their two halves are right all the same
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        # words that are only combined bit by bit may have others above them, until they are multiplied
        a = ((right >> 32) ^ b ^ (k + number * _KEY_STEPS[0])) & _WORD
        c = ((left >> 32) ^ d ^ (m + number * _KEY_STEPS[1])) & _WORD
        b, d = right, left
    return [a, b & _WORD, c, d & _WORD]


_SEGMENTS = 6
"""Bits of the number of a segment within an octave; see `quantile`."""

_FRACTION = 44
"""Bits of a quantile behind the binary point, before it is converted."""

_BEGIN = -6.3379577545537895, 1323827213.3845639
"""The quantile of 2⁻³³, and √2π exp of half its square; by mpmath in 40 digits."""


def quantile(word: Tensor) -> Tensor:
    """Return the quantile of the standard normal distribution at (word + ½) / 2³²: int64 → float32, any shape.

    The tail probability is q / 2³³ with an odd q below 2³². The octave of q, halved six times, is a segment, in which a
    polynomial of degree two comes within 2⁻²⁵. All of it is computed in integers.
    """
    sign = (word >> 31) - 1  # -1 for the lower half, of negative quantiles
    q = _WORD - 2 * ((word - 2**31) ^ sign)
    bits = q.double().view(torch.int64)  # exact, so that the exponent is the octave
    segment = (bits >> (52 - _SEGMENTS)) - (1023 << _SEGMENTS)
    place = ((bits >> (27 - _SEGMENTS)) & (2**25 - 1)) - 2**24  # from the middle; ± 2²⁴ are the ends
    value, slope, curve = (part.take(segment) for part in _table(word.device))
    magnitude = value + ((slope + (curve * place >> 24)) * place >> 24)
    return ((magnitude ^ sign) - sign).float() * 2.0**-_FRACTION


@functools.cache
def _table(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the coefficients of each segment, in units of 2⁻⁴⁴: at its middle, and per half of it and that squared."""
    rows = [[round(number * 2**_FRACTION) for number in row] for row in _polynomials()]
    value, slope, curve = torch.tensor(rows, dtype=torch.int64, device="cpu").to(device).T.contiguous()
    return value, slope, curve


def _polynomials() -> list[tuple[float, float, float]]:
    """Return the polynomials of all segments, from the smallest tail probability on.

    The quantile z at p obeys dz/dp = g and dg/dp = z g² with g = √2π exp(z²/2), in which nothing is transcendental: its
    Taylor series is followed from the tail by additions, multiplications and divisions in double precision, which all
    machines round alike. On this way errors shrink.
    """
    z, g = _BEGIN
    found = []
    for octave in range(32):
        half = 2.0 ** (octave - 34 - _SEGMENTS)  # of a segment
        for _ in range(2**_SEGMENTS):
            z, g = _onward(z, g, half)
            # Chebyshev's economisation spreads the cubic term of the series over the segment
            cubic = g**3 * (1 + 2 * z * z) / 6 * half**3
            found.append((-z, -g * half - 0.75 * cubic, -z * g * g / 2 * half * half))
            z, g = _onward(z, g, half)
    return found


def _onward(z: float, g: float, step: float) -> tuple[float, float]:
    """Return z and g where the probability is more by a step, from six terms of both series."""
    of_z, of_g, of_square = [z], [g], [g * g]
    for n in range(6):
        of_z.append(of_g[n] / (n + 1))
        of_g.append(sum(of_z[k] * of_square[n - k] for k in range(n + 1)) / (n + 1))
        of_square.append(sum(of_g[k] * of_g[n + 1 - k] for k in range(n + 2)))
    z = g = 0.0
    for a, b in zip(reversed(of_z), reversed(of_g), strict=True):
        z, g = z * step + a, g * step + b
    return z, g

"""Noise is a function of seed, row and channel: known answers, the same bits however it is cut, and the right law."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import Tensor

from fastvoc import noise

DRAWS = {"words": noise.words, "uniform": noise.uniform, "normal": noise.normal}

# Random123 1.14, tests/kat_vectors: philox4x32 10
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def seeds(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_hash_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    hashed = noise.philox([seeds(word) for word in counter], [seeds(word) for word in key])
    assert tuple(int(word) for word in hashed) == words


def test_row_seed_and_channel_are_the_words_of_the_counter_and_the_key() -> None:
    seed, row, channel = 0x299F31D0A4093822, 4 * 0x185A308D3 + 2, 5
    key = [seeds(0xA4093822), seeds(0x299F31D0)]
    expected = noise.philox([seeds(0x85A308D3), seeds(1), seeds(channel), seeds(0)], key)
    drawn = noise.words(seeds(seed), row, channels=6, rows=1)
    assert int(drawn[0, channel, 0]) == int(expected[2])


@pytest.mark.parametrize(
    ("name", "digest"),
    [*zip(DRAWS, ["b19a04a97d950d45", "ba90bd723d6e8c4c", "e4a75e4fa41070b6"], strict=True)],
)
def test_bits_are_those_of_every_machine(name: str, digest: str) -> None:
    drawn = DRAWS[name](seeds(0, 1, 2**63 - 1), 2**34 - 1000, channels=3, rows=5000)
    assert hashlib.sha256(drawn.numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", DRAWS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_part_is_that_of_the_whole(name: str, data: st.DataObject) -> None:
    draw, all_seeds = DRAWS[name], seeds(7, 2**40 + 1, 0)
    start = data.draw(st.sampled_from([0, 3, 2**34 - 50]))
    whole = draw(all_seeds, start, channels=3, rows=100)
    first = data.draw(st.lists(st.integers(0, 80), min_size=3, max_size=3))
    rows, channels = data.draw(st.integers(0, 20)), data.draw(st.integers(1, 3))
    parts = draw(all_seeds, start + seeds(*first), channels=channels, rows=rows)
    assert parts.shape == (3, channels, rows)
    for part, of, begin in zip(parts, whole, first, strict=True):
        assert torch.equal(part, of[:channels, begin : begin + rows])


def test_threads_change_no_bit() -> None:
    draw = [noise.normal(seeds(3), 0, channels=2, rows=200_000)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        draw.append(noise.normal(seeds(3), 0, channels=2, rows=200_000))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*draw)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", DRAWS)
def test_gpu_draws_the_same_bits(name: str) -> None:
    where = seeds(0, 2**62, 5)
    here = DRAWS[name](where, 2**33 - 7, channels=4, rows=100_001)
    there = DRAWS[name](where.to("cuda"), 2**33 - 7, channels=4, rows=100_001)
    assert there.device.type == "cuda"
    assert torch.equal(there.cpu(), here)


def test_normal_is_the_quantile_of_its_word() -> None:
    edges = [torch.arange(begin, begin + 4096) for begin in (0, 2**31 - 4096, 2**31, 2**32 - 4096)]
    word = torch.cat([*edges, noise.words(seeds(11), 0, channels=1, rows=2**20).flatten()])
    below = torch.minimum(word, 2**32 - 1 - word).double().numpy()  # symmetric, and exact in both tails
    exact = special.ndtri((below + 0.5) / 2**32) * np.where(word.numpy() < 2**31, 1, -1)
    drawn = noise.quantile(word).double().numpy()
    half_ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64) / 2
    # Chebyshev's bound of a cubic term over a segment of 1/64 octave: g³ (1 + 2 z²) / 6 · half³ / 4 at z = 0 or 0.67
    z = special.ndtri(0.25)
    g = math.sqrt(2 * math.pi) * math.exp(z * z / 2)
    bound = g**3 * (1 + 2 * z * z) / 6 * 2.0**-120 / 4
    assert bound < 2**-25
    assert (np.abs(drawn - exact) - half_ulp).max() <= 2**-25
    order = torch.argsort(word)
    assert (noise.quantile(word[order]).diff() >= 0).all()
    assert np.abs(drawn).max() == np.float32(-special.ndtri(2**-33))


def test_uniform_is_inside_the_open_interval() -> None:
    drawn = (noise.words(seeds(1), 0, channels=1, rows=10) * 0 + seeds(0, 1, 511, 512, *[2**32 - 1] * 6)) >> 9
    ends = ((drawn * 2 + 1).float() * 2.0**-24).flatten().tolist()
    assert ends[:4] == [2.0**-24] * 3 + [3 * 2.0**-24]
    assert ends[4:] == [1 - 2.0**-24] * 6
    values = noise.uniform(seeds(1), 0, channels=1, rows=100_000)
    assert 0 < values.min() < values.max() < 1
    assert values.dtype == torch.float32


COUNT = 2**20
ALPHA = 1e-6
"""How likely one check would be to fail, were the numbers drawn anew at each run; they are always the same."""

LIMIT = float(stats.norm.isf(ALPHA / 2))  # standard deviations, 4.9


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize(("name", "law"), [("uniform", stats.uniform), ("normal", stats.norm)])
def test_distribution_is_right(name: str, law: Any, seed: int) -> None:
    drawn = DRAWS[name](seeds(seed), 0, channels=4, rows=COUNT // 4).flatten().double().numpy()
    # Dvoretzky, Kiefer and Wolfowitz, with Massart's constant
    assert stats.kstest(drawn, law.cdf).statistic <= math.sqrt(math.log(2 / ALPHA) / (2 * COUNT))
    for power in (1, 2, 3, 4):
        mean, second = law.moment(power), law.moment(2 * power)
        allowed = LIMIT * math.sqrt((second - mean**2) / COUNT)
        assert abs((drawn**power).mean() - mean) <= allowed


def test_tails_are_as_heavy_as_they_should_be() -> None:
    count = 2**24
    found = {4.0: 0, 4.5: 0, 5.0: 0}
    for part in range(16):
        drawn = noise.normal(seeds(part), 0, channels=1, rows=count // 16).abs()
        for edge in found:
            found[edge] += int((drawn > edge).sum())
    for edge, number in found.items():
        expected = count * 2 * float(stats.norm.sf(edge))
        low, high = stats.poisson.ppf([ALPHA, 1 - ALPHA], expected)
        assert low <= number <= high


def test_seeds_channels_and_rows_are_independent() -> None:
    drawn = noise.normal(seeds(0, 1, 2, 2**32, 2**62), 0, channels=3, rows=2**16).flatten(0, 1).double()
    allowed = LIMIT / math.sqrt(2**16)  # of a correlation
    correlations = torch.corrcoef(drawn) - torch.eye(15)
    assert correlations.abs().max() <= allowed
    squares = torch.corrcoef(drawn.square()) - torch.eye(15)
    assert squares.abs().max() <= allowed
    for lag in range(1, 9):
        assert (drawn[:, lag:] * drawn[:, :-lag]).mean(-1).abs().max() <= allowed * 1.001


def test_bits_of_words_are_fair() -> None:
    word = noise.words(seeds(4), 0, channels=1, rows=2**18)
    ones = torch.stack([(word >> bit & 1).double().mean() for bit in range(32)])
    assert (ones - 0.5).abs().max() <= LIMIT * 0.5 / 2**9


def test_fresh_seeds_differ() -> None:
    fresh = {noise.fresh_seed() for _ in range(100)}
    assert len(fresh) == 100
    assert all(0 <= seed < 2**48 for seed in fresh)


def test_int_is_the_seed_of_the_first_item() -> None:
    assert noise.read_seeds(5, 3, "here") == [5, 6, 7]
    assert noise.read_seeds([9, 9], 2, "here") == [9, 9]
    assert noise.read_seeds(torch.tensor([1, 0]), 2, "here") == [1, 0]
    assert noise.read_seeds(np.int64(4), 1, "here") == [4]
    assert noise.read_seeds(4, 0, "here") == []


@pytest.mark.parametrize(
    ("seed", "kind", "sentence"),
    [
        (-1, ValueError, "here: seed -1 must be between 0 and 9223372036854775807"),
        (2**63 - 1, ValueError, r"here: seed \d+ is that of the first of 2 items, .* it must be \d+6 at most"),
        (0.5, TypeError, "here: seed 0.5 is a float; it must be an int"),
        (True, TypeError, "here: seed True is a bool"),
        ("7", TypeError, "here: seed '7' is a str"),
        ([1, 2.0], TypeError, r"here: seed 2\.0 is a float"),
        ([1, 2, 3], ValueError, "here: there are 3 seeds; it must be one int, or one for each of 2"),
    ],
)
def test_wrong_seed_is_refused_with_a_sentence(seed: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        noise.read_seeds(seed, 2, "here")

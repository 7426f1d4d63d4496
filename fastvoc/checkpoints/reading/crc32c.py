"""CRC-32C, the checksum of TensorFlow's files: Castagnoli's polynomial, by NumPy at hundreds of megabytes a second.

Castagnoli, Bräuer and Herrmann 1993; its parameters, reflected bits and all ones before and behind, are those of RFC
3720, appendix B.4, whose examples are in the tests.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_ONES = 0xFFFFFFFF

_PIECE = 1 << 24
"""Bytes that are looked at in one go: large enough that NumPy's overhead vanishes."""

_LANES = 1 << 12
"""Parts of a piece that are followed side by side."""

Words = NDArray[np.uint32]


def crc32c(content: bytes | bytearray | memoryview) -> int:
    """Return the CRC-32C of some bytes."""
    data = np.frombuffer(content, dtype=np.uint8)
    state = _ONES
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        # what a register holds and what is fed to it are independent: they are added without carry
        state = int(_apply(_zeros(len(piece)), np.array([state], np.uint32))[0]) ^ _remainder(piece)
    return state ^ _ONES


def unmask(masked: int) -> int:
    """Undo what TensorFlow and LevelDB do to a CRC that stands beside the bytes that it is of."""
    rotated = (masked - 0xA282EAD8) & _ONES
    return (rotated >> 17 | rotated << 15) & _ONES


def _remainder(piece: NDArray[np.uint8]) -> int:
    """Return what an empty register holds behind a piece: many lanes are followed, then joined in pairs."""
    lanes = 1
    while lanes < _LANES and len(piece) > 16 * lanes:
        lanes *= 2
    length = -(-len(piece) // (2 * lanes)) * 2  # bytes of a lane, pairs of which are looked up at once
    padded = np.zeros(lanes * length, np.uint8)
    padded[len(padded) - len(piece) :] = piece  # an empty register does not notice zeros
    table, states = _table(16), np.zeros(lanes, np.uint32)
    for pair in np.ascontiguousarray(padded.view("<u2").reshape(lanes, -1).T):
        states = (states >> np.uint32(16)) ^ table[(states & np.uint32(0xFFFF)) ^ pair]
    while len(states) > 1:
        states = _apply(_zeros(length), states[0::2]) ^ states[1::2]
        length *= 2
    return int(states[0])


@functools.cache
def _table(bits: int) -> Words:
    """Return what so many bits leave in a register."""
    table = np.arange(1 << bits, dtype=np.uint32)
    for _ in range(bits):
        table = (table >> np.uint32(1)) ^ np.where(table & np.uint32(1), np.uint32(_POLYNOMIAL), np.uint32(0))
    return table


@functools.lru_cache(maxsize=256)
def _zeros(count: int) -> Words:
    """Return what so many zero bytes make of each bit of a register: a linear map of 32 bits."""
    bits: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if count == 0:
        return bits
    if count == 1:
        alone: Words = (bits >> np.uint32(8)) ^ _table(8)[bits & np.uint32(0xFF)]
        return alone
    half = _zeros(count // 2)
    whole = _apply(half, half)
    return _apply(_zeros(1), whole) if count % 2 else whole


def _apply(columns: Words, states: Words) -> Words:
    """Apply a linear map of bits to each of some registers."""
    bits = (states[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    result: Words = np.bitwise_xor.reduce(np.where(bits, columns, np.uint32(0)), axis=1)
    return result

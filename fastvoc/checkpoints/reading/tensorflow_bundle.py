"""TensorFlow's tensor bundles, the checkpoints of its `Saver`: read without TensorFlow, and without trust.

::

    model.ckpt-200000.index                  a sorted table: the name of a tensor to its `_Entry`
                     .data-00000-of-00001    the values, one after another

The table is LevelDB's (tensorflow/core/lib/io/table_format.txt): blocks of entries, each of which repeats so many bytes
of the key before it; behind each block a byte that says whether it is compressed, and a CRC; at the end an index of
the blocks and a footer. The entries are protocol buffers (tensorflow/core/protobuf/tensor_bundle.proto). No length is
believed before it is compared with what is there, and all checksums are verified.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc.checkpoints.reading.crc32c import crc32c, unmask

INDEX = ".index"
MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of a table."""

_FOOTER, _TRAILER = 48, 5
"""Bytes at the end of a table, and behind each of its blocks."""

_LARGEST = 1 << 26
"""Bytes of an index: names and shapes of half a million tensors."""

_MOST = 1 << 16
"""Tensors in a bundle; training states of large models have some thousands."""

_LONGEST_NAME, _LONGEST_SHAPE, _LONGEST_SIDE = 4096, 16, 1 << 40
"""Bytes of a name, dimensions of a tensor, and the largest of those."""

_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
"""By their numbers in tensorflow/core/framework/types.proto; strings and others are no weights, and are left out."""

_BESIDE = re.compile(r"\.data-\d{5}-of-\d{5}|\.meta")


class _Damaged(ValueError):
    """What is wrong with the bytes of a file, as the rest of a sentence."""


class _Entry(NamedTuple):
    """Where a tensor lies, and what it is."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    sliced: bool = False


def index_of(path: Path) -> Path:
    """Return the index of a bundle that a path means: its prefix, as TensorFlow names it, or a file beside the index.

    Any other path is returned as it is.
    """
    if path.is_dir():
        return path
    beside = _BESIDE.search(path.name)
    prefix = path.name[: beside.start()] if beside and beside.end() == len(path.name) else path.name
    index = path.with_name(prefix + INDEX)
    return index if index.is_file() and (beside or not path.exists()) else path


def is_index(path: Path) -> bool:
    """Whether a file ends as the index of a bundle does."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(MAGIC)))
        return file.read() == MAGIC


def read(path: Path) -> dict[str, Tensor]:
    """Read all numerical tensors of a bundle.

    Parameters
    ----------
    path : Path
        The index; the files of values lie beside it.

    Returns
    -------
    dict of str to Tensor
        In own memory, on the CPU, in TensorFlow's layout and under its names.

    Raises
    ------
    ValueError
        One sentence: a file is absent, damaged, cut short, or holds what no checkpoint of weights does.
    """
    try:
        return _read(path)
    except _Damaged as error:
        raise ValueError(f"{path}: is a checkpoint of TensorFlow that is damaged: {error}; fetch it again") from None


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != INDEX:
        raise ValueError(f"{path}: is the index of a checkpoint of TensorFlow; its name must end in {INDEX}")
    if (size := path.stat().st_size) > _LARGEST:
        raise ValueError(f"{path}: is an index of {size} bytes, more than the names of weights take")
    entries = dict(_table(path.read_bytes()))
    if b"" not in entries:
        raise _Damaged("it has no header")
    count, order = _header(entries.pop(b""))
    if order:
        raise ValueError(f"{path}: is of a machine of the other order of bytes, which is not read; save it on another")
    found = {_text(key): _entry(value) for key, value in entries.items()}
    shards: dict[int, Path] = {}
    claimed: dict[int, int] = {}
    tensors = {}
    for name, entry in found.items():
        if entry.sliced:
            raise ValueError(f"{path}: {name} is saved in slices, as of a variable of several machines; save it whole")
        if entry.dtype not in _DTYPES:
            continue
        if not 0 <= entry.shard < count:
            raise _Damaged(f"{name} lies in part {entry.shard} of {count}")
        if entry.shard not in shards:
            data = path.with_name(f"{path.name.removesuffix(INDEX)}.data-{entry.shard:05d}-of-{count:05d}")
            if not data.is_file():
                raise ValueError(f"{path}: is the index of {data.name}, which is not beside it")
            shards[entry.shard] = data
        claimed[entry.shard] = claimed.get(entry.shard, 0) + entry.size
        held = shards[entry.shard].stat().st_size
        if claimed[entry.shard] > held:  # each byte belongs to one tensor
            raise _Damaged(f"{shards[entry.shard].name} has {held} bytes, fewer than its tensors")
        tensors[name] = _values(name, entry, shards[entry.shard], held)
    return tensors


def _values(name: str, entry: _Entry, data: Path, held: int) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    if entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise _Damaged(f"{name} of shape {entry.shape} has {entry.size} bytes")
    if entry.offset + entry.size > held:
        raise _Damaged(f"{name} ends at byte {entry.offset + entry.size} of {data.name}, which has {held}")
    if not entry.size:
        return torch.empty(entry.shape, dtype=dtype)
    values = bytearray(entry.size)
    with data.open("rb") as file:
        file.seek(entry.offset)
        if file.readinto(values) != entry.size:
            raise _Damaged(f"{data.name} is cut short")
    if crc32c(values) != unmask(entry.crc):
        raise _Damaged(f"the checksum of {name} is not that of its values")
    if dtype == torch.bool:
        return torch.frombuffer(values, dtype=torch.uint8).ne(0).reshape(entry.shape)
    return torch.frombuffer(values, dtype=dtype).reshape(entry.shape)


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a sorted table, whose keys rise."""
    if len(content) < _FOOTER or not content.endswith(MAGIC):
        raise _Damaged("its end is missing")
    footer, place = content[-_FOOTER:], 0
    for _ in range(2):  # of the index of filters, of which there are none, and of the index of blocks
        offset, place = _varint(footer, place)
        size, place = _varint(footer, place)
    blocks = content[:-_FOOTER]
    last, count, seen = None, 0, 0
    for _, handle in _block(blocks, offset, size):
        offset, place = _varint(handle, 0)
        size, _ = _varint(handle, place)
        seen += size + _TRAILER
        if seen > len(blocks):
            raise _Damaged("its blocks lie over each other")
        for key, value in _block(blocks, offset, size):
            if last is not None and key <= last:
                raise _Damaged("its names are not in order")
            last, count = key, count + 1
            if count > _MOST:
                raise _Damaged(f"it has more than {_MOST} entries")
            yield key, value


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a block."""
    end = offset + size
    if end + _TRAILER > len(content):
        raise _Damaged(f"a block of {size} bytes at {offset} goes beyond its end")
    trailer = content[end : end + _TRAILER]
    if crc32c(content[offset : end + 1]) != unmask(int.from_bytes(trailer[1:], "little")):
        raise _Damaged(f"the checksum of the block at {offset} is not that of its bytes")
    if trailer[0]:
        raise _Damaged(f"the block at {offset} is compressed, which TensorFlow does not do to indexes")
    block = content[offset:end]
    # behind the entries, the places where no key repeats another, and their number
    entries = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    if len(block) < 4 or entries < 0:
        raise _Damaged(f"the block at {offset} has no end")
    key, place = b"", 0
    while place < entries:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or place + fresh + length > entries:
            raise _Damaged(f"an entry of the block at {offset} goes beyond it")
        if shared + fresh > _LONGEST_NAME:
            raise _Damaged(f"a name of the block at {offset} has {shared + fresh} bytes")
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _header(message: bytes) -> tuple[int, Any]:
    """Return in how many files the values lie, and the order of their bytes: 0 is the little end first."""
    fields = {number: value for number, _, value in _fields(message)}
    count = fields.get(1, 0)
    if not isinstance(count, int) or not 1 <= count <= _MOST:
        raise _Damaged(f"it has {count!r} files of values")
    return count, fields.get(2, 0)


def _entry(message: bytes) -> _Entry:
    names = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc"}
    found: dict[str, Any] = {}
    for number, wire, value in _fields(message):
        if number == 2 and wire == 2:
            found["shape"] = _shape(value)
        elif number == 7:
            found["sliced"] = True
        elif number in names:
            if wire != (5 if number == 6 else 0):
                raise _Damaged(f"field {number} of an entry is of wire type {wire}")
            found[names[number]] = value
    return _Entry(**found)


def _shape(message: bytes) -> tuple[int, ...]:
    sizes = []
    for number, wire, dimension in _fields(message):
        if number == 2 and wire == 2:
            size = next((value for field, kind, value in _fields(dimension) if (field, kind) == (1, 0)), 0)
            sizes.append(size)
    if len(sizes) > _LONGEST_SHAPE or max(sizes, default=0) > _LONGEST_SIDE:
        raise _Damaged("a tensor has more dimensions, or larger ones, than a machine holds")
    return tuple(sizes)


def _fields(message: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield number, wire type and value of each field of a protocol buffer: numbers, or bytes of what has a length."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value: Any
            value, place = _varint(message, place)
            yield tag >> 3, wire, value
            continue
        if wire == 2:
            length, place = _varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _Damaged(f"a field is of wire type {wire}")
        if place + length > len(message):
            raise _Damaged("a field goes beyond its message")
        value = message[place : place + length]
        place += length
        yield tag >> 3, wire, value if wire == 2 else int.from_bytes(value, "little")


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return a number of up to 64 bits, seven to a byte, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            break
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise _Damaged("a number has no end")


def _text(key: bytes) -> str:
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise _Damaged("the name of a tensor is no text") from None

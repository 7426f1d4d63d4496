"""Writes tensor bundles as TensorFlow's `Saver` does, for tests of their reader; checksums are computed bit by bit."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

NUMBERS = {
    torch.float32: 1,
    torch.float64: 2,
    torch.int32: 3,
    torch.uint8: 4,
    torch.int16: 5,
    torch.int8: 6,
    torch.int64: 9,
    torch.bool: 10,
    torch.bfloat16: 14,
    torch.float16: 19,
}
"""Of dtypes in entries."""

MAGIC = 0xDB4775248B80FB57


def write(
    prefix: Path,
    tensors: Mapping[str, Tensor],
    *,
    shards: int = 1,
    block: int = 4096,
    restart: int = 16,
    texts: Mapping[str, bytes] | None = None,
) -> Path:
    """Write an index of blocks of about so many bytes and the files of values, and return the index."""
    values = [bytearray() for _ in range(shards)]
    entries = {b"": number(1, shards) + message(3, number(1, 1))}
    for place, (name, tensor) in enumerate(tensors.items()):
        content = raw(tensor)
        shard = place % shards
        shape = b"".join(message(2, number(1, size)) for size in tensor.shape)
        entries[name.encode()] = entry(NUMBERS[tensor.dtype], shape, shard, len(values[shard]), content)
        values[shard] += content
    for name, text in (texts or {}).items():
        entries[name.encode()] = entry(7, b"", 0, len(values[0]), text)
        values[0] += text
    for shard, content in enumerate(values):
        data = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        data.write_bytes(bytes(content))
    index = prefix.with_name(prefix.name + ".index")
    index.write_bytes(table(entries, block=block, restart=restart))
    return index


def raw(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def entry(dtype: int, shape: bytes, shard: int, offset: int, content: bytes) -> bytes:
    """Return an entry, from which fields that are zero are left out."""
    fields = number(1, dtype) + message(2, shape)
    fields += b"".join(number(field, value) for field, value in ((3, shard), (4, offset), (5, len(content))) if value)
    return fields + bytes([6 << 3 | 5]) + masked(content).to_bytes(4, "little")


def table(entries: Mapping[bytes, bytes], *, block: int = 4096, restart: int = 16) -> bytes:
    """Return a table of entries, which are sorted here."""
    content, handles = bytearray(), {}
    part: dict[bytes, bytes] = {}
    for key, value in sorted(entries.items()):
        part[key] = value
        if sum(len(k) + len(v) for k, v in part.items()) >= block:
            handles[key] = add(content, blocked(part, restart))
            part = {}
    if part:
        handles[max(part) + b"\xff"] = add(content, blocked(part, restart))
    filters = add(content, blocked({}, restart))
    footer = filters + add(content, blocked(handles, 1))
    return bytes(content) + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def blocked(entries: Mapping[bytes, bytes], restart: int) -> bytes:
    block, restarts, before = bytearray(), [], b""
    for place, (key, value) in enumerate(entries.items()):
        shared = 0
        if place % restart == 0:
            restarts.append(len(block))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    numbers = [*(restarts or [0]), len(restarts or [0])]
    return bytes(block) + b"".join(value.to_bytes(4, "little") for value in numbers)


def add(content: bytearray, block: bytes) -> bytes:
    """Append a block with its trailer, and return its handle."""
    handle = varint(len(content)) + varint(len(block))
    content += block + b"\0" + masked(block + b"\0").to_bytes(4, "little")
    return handle


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def masked(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _byte((crc ^ byte) & 0xFF)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value

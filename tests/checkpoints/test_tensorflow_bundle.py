"""TensorFlow's tensor bundles: what is written comes back, and nothing that is damaged does."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow_bundles as bundles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvoc.checkpoints.reading.crc32c import crc32c, unmask
from fastvoc.checkpoints.reading.safe_loading import load
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.reading.tensorflow_bundle import index_of, is_index, read

TENSORS: dict[str, Tensor] = {
    "layer_1/W": torch.arange(24.0).reshape(1, 2, 3, 4),
    "layer_1/biases": torch.linspace(-1, 1, 7),
    "layer_10/W": torch.full((2, 1), -0.0),
    "layer_2/W": torch.arange(5, dtype=torch.float64),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([[3.0]], dtype=torch.bfloat16),
    "global_step": torch.tensor(200000, dtype=torch.int64),
    "counts": torch.tensor([-1, 1 << 30], dtype=torch.int32),
    "flags": torch.tensor([True, False]),
    "nothing": torch.empty(0, 3),
}


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720, B.4, and the check value of the catalogue of CRCs
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0
    assert unmask(bundles.masked(b"123456789")) == 0xE3069283


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 255, 4097, 70001])
def test_the_checksum_is_that_of_bit_by_bit(count: int) -> None:
    content = bytes(torch.randint(256, (count,), generator=torch.Generator().manual_seed(count)).tolist())
    assert crc32c(content) == unmask(bundles.masked(content))


def test_a_checksum_goes_on_over_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvoc.checkpoints.reading.crc32c._PIECE", 1000)
    content = bytes(range(250)) * 13
    assert crc32c(content) == unmask(bundles.masked(content))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("block", [1, 40, 4096])
@pytest.mark.parametrize("restart", [1, 2, 16])
def test_what_is_written_is_read(tmp_path: Path, shards: int, block: int, restart: int) -> None:
    texts = {"_CHECKPOINTABLE_OBJECT_GRAPH": b"\x04text"}
    index = bundles.write(tmp_path / "m", TENSORS, shards=shards, block=block, restart=restart, texts=texts)
    found = load(index)
    assert list(found) == sorted(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_bundle_is_named_as_tensorflow_does_or_by_any_of_its_files(tmp_path: Path) -> None:
    index = bundles.write(tmp_path / "model.ckpt-200000", TENSORS)
    (tmp_path / "model.ckpt-200000.meta").write_bytes(b"graph")
    for name in ("", ".index", ".data-00000-of-00001", ".meta"):
        assert index_of(tmp_path / f"model.ckpt-200000{name}") == index
        assert Source.find(tmp_path / f"model.ckpt-200000{name}", None, ()).file == index
    assert index_of(tmp_path) == tmp_path
    assert index_of(tmp_path / "model.ckpt-2") == tmp_path / "model.ckpt-2"
    (tmp_path / "model.ckpt-200000").write_bytes(b"something else")  # a file that is there is what is meant
    assert index_of(tmp_path / "model.ckpt-200000") == tmp_path / "model.ckpt-200000"
    assert not is_index(tmp_path / "model.ckpt-200000.meta")


def test_every_flipped_byte_of_an_index_and_every_cut_is_a_sentence(tmp_path: Path) -> None:
    index = bundles.write(tmp_path / "m", TENSORS, block=100, restart=2)
    whole = index.read_bytes()
    lengths = [*range(0, len(whole), 7)]
    for place in range(len(whole)):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        _refused_or_equal(index)
    for length in lengths:
        index.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            read(index)


def test_every_flipped_byte_of_the_values_and_every_cut_is_a_sentence(tmp_path: Path) -> None:
    index = bundles.write(tmp_path / "m", TENSORS)
    data = tmp_path / "m.data-00000-of-00001"
    whole = data.read_bytes()
    for place in range(len(whole)):
        data.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"the checksum of .* is not that of its values"):
            read(index)
        data.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"has \d+ bytes, fewer than|which has \d+"):
            read(index)
    data.unlink()
    with pytest.raises(ValueError, match=r"is the index of m\.data-00000-of-00001, which is not beside it"):
        read(index)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_entries_of_any_bytes_are_read_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The checksums of these are right, so that what lies behind them is reached."""
    folder = tmp_path_factory.mktemp("fuzz")
    index = bundles.write(folder / "m", {"a": torch.arange(4.0)})
    header = bundles.number(1, 1)
    good = bundles.entry(1, bundles.message(2, bundles.number(1, 4)), 0, 0, bundles.raw(torch.arange(4.0)))
    value = data.draw(st.binary(max_size=40) | st.just(good).flatmap(_mutated))
    index.write_bytes(bundles.table({b"": header, data.draw(st.binary(min_size=1, max_size=6)): value}))
    _refused_or_equal(index, {})


@settings(max_examples=200, deadline=None)
@given(block=st.binary(max_size=60), count=st.integers(0, 9))
def test_blocks_of_any_bytes_are_read_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, block: bytes, count: int
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray()
    handle = bundles.add(content, block + count.to_bytes(4, "little"))
    footer = bundles.add(content, bundles.blocked({}, 1)) + bundles.add(content, bundles.blocked({b"z": handle}, 1))
    (folder / "m.index").write_bytes(bytes(content) + footer.ljust(40, b"\0") + bundles.MAGIC.to_bytes(8, "little"))
    _refused_or_equal(folder / "m.index", {})


HOSTILE = {
    "a shape that its bytes do not fill": (1, (3, 5), 0, 0, "has 16 bytes"),
    "a shape beyond any machine": (1, (1 << 41, 0), 0, 0, "more dimensions, or larger ones"),
    "more dimensions than anything": (1, (1,) * 17, 0, 0, "more dimensions, or larger ones"),
    "a shape whose product wraps around": (1, (1 << 32, 1 << 32, 4), 0, 0, "has 16 bytes"),
    "an offset beyond the end": (1, (4,), 0, 1 << 62, "which has 16"),
    "a part that is not there": (1, (4,), 7, 0, "lies in part 7 of 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_claims_too_much_is_a_sentence(tmp_path: Path, name: str) -> None:
    dtype, sizes, shard, offset, said = HOSTILE[name]
    index = bundles.write(tmp_path / "m", {"a": torch.arange(4.0)})
    shape = b"".join(bundles.message(2, bundles.number(1, size)) for size in sizes)
    claimed = bundles.entry(dtype, shape, shard, offset, bundles.raw(torch.arange(4.0)))
    index.write_bytes(bundles.table({b"": bundles.number(1, 1), b"a": claimed}))
    with pytest.raises(ValueError, match=f"damaged: .*{said}"):
        read(index)


def test_many_tensors_of_the_same_bytes_are_not_read(tmp_path: Path) -> None:
    index = bundles.write(tmp_path / "m", {"a": torch.arange(4.0)})
    shape = bundles.message(2, bundles.number(1, 4))
    same = bundles.entry(1, shape, 0, 0, bundles.raw(torch.arange(4.0)))
    index.write_bytes(bundles.table({b"": bundles.number(1, 1), b"a": same, b"b": same}))
    with pytest.raises(ValueError, match="has 16 bytes, fewer than its tensors"):
        read(index)


@pytest.mark.parametrize(
    ("length", "said"), [(1, "its names are not in order"), (4000, "its blocks lie over each other")]
)
def test_one_block_is_not_followed_twice(tmp_path: Path, length: int, said: str) -> None:
    content = bytearray()
    handle = bundles.add(content, bundles.blocked({b"": bundles.number(1, 1), b"n" * length: b""}, 1))
    again = {bytes([n]): handle for n in range(9)}
    footer = bundles.add(content, bundles.blocked({}, 1)) + bundles.add(content, bundles.blocked(again, 1))
    index = tmp_path / "m.index"
    index.write_bytes(bytes(content) + footer.ljust(40, b"\0") + bundles.MAGIC.to_bytes(8, "little"))
    with pytest.raises(ValueError, match=said):
        read(index)


def test_names_without_end_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(bundles.table({b"": bundles.number(1, 1), b"n" * 5000: b""}, block=1 << 20))
    with pytest.raises(ValueError, match=r"a name of the block at \d+ has 500\d bytes"):
        read(tmp_path / "m.index")


def test_other_tables_are_named(tmp_path: Path) -> None:
    index = bundles.write(tmp_path / "m", {"a": torch.arange(4.0)})
    index.rename(tmp_path / "renamed")
    with pytest.raises(ValueError, match=r"renamed: is the index of a checkpoint of TensorFlow; its name must end in"):
        load(tmp_path / "renamed")
    index.write_bytes(bundles.table({b"a": b""}))
    with pytest.raises(ValueError, match="it has no header"):
        load(index)
    index.write_bytes(bundles.table({b"": bundles.number(1, 1) + bundles.number(2, 1)}))
    with pytest.raises(ValueError, match="order of bytes"):
        load(index)
    sliced = bundles.entry(1, b"", 0, 0, b"") + bundles.message(7, b"")
    index.write_bytes(bundles.table({b"": bundles.number(1, 1), b"a": sliced}))
    with pytest.raises(ValueError, match="a is saved in slices"):
        load(index)
    content = bytearray()
    block = bundles.blocked({b"": bundles.number(1, 1)}, 1) + b"\1"
    content += block + bundles.masked(block).to_bytes(4, "little")
    handle = bundles.varint(0) + bundles.varint(len(block) - 1)
    footer = bundles.add(content, bundles.blocked({}, 1)) + bundles.add(content, bundles.blocked({b"z": handle}, 1))
    index.write_bytes(bytes(content) + footer.ljust(40, b"\0") + bundles.MAGIC.to_bytes(8, "little"))
    with pytest.raises(ValueError, match="is compressed"):
        load(index)


def _mutated(content: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(content) - 1)
    return st.tuples(places, st.integers(0, 255), st.integers(0, len(content))).map(
        lambda drawn: (content[: drawn[0]] + bytes([drawn[1]]) + content[drawn[0] + 1 :])[: drawn[2]]
    )


def _refused_or_equal(index: Path, expected: dict[str, Tensor] | None = None) -> None:
    """What is not refused holds what was written, unless nothing was said of that."""
    try:
        found = read(index)
    except ValueError as error:
        assert str(error).startswith(f"{index}: ") and "\n" not in str(error)
        return
    if expected is None:
        assert found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)

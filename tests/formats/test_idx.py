from __future__ import annotations

import gzip
import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feedline.errors import CorruptSample
from feedline.formats.idx import parse_idx, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def encode(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IDX_ARRAYS = st.sampled_from(sorted(CODES)).flatmap(
    lambda code: arrays.arrays(code, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


@given(array=IDX_ARRAYS, compress=st.booleans())
def test_what_was_written_is_read_back(array, compress):
    data = gzip.compress(encode(array)) if compress else encode(array)
    read = parse_idx(data)
    assert read.tobytes() == array.tobytes()
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert read.dtype.isnative
    assert read.flags.c_contiguous
    assert read.flags.writeable


@pytest.mark.parametrize("name", ["labels", "labels.gz"])
@pytest.mark.parametrize("compress", [False, True])
def test_gzip_is_recognised_by_content_not_by_name(tmp_path, name, compress):
    data = encode(np.arange(5, dtype=np.uint8))
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if compress else data)
    assert read_idx(path).tolist() == [0, 1, 2, 3, 4]


def test_gzip_members_one_after_the_other_are_one_file():
    data = encode(np.arange(5, dtype=np.int16))
    assert parse_idx(gzip.compress(data[:9]) + gzip.compress(data[9:])).tolist() == [0, 1, 2, 3, 4]


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b"", 0, "expected 4 bytes of magic number, found 0"),
        (b"\0\0\x08", 0, "expected 4 bytes of magic number, found 3"),
        (b"PK\3\4", 0, r"expected an IDX magic number \(it begins with two zero bytes\), found 0x504b0304"),
        (b"\0\0\x0a\1", 2, "expected an element type among 0x08, 0x09, .*, found 0x0A"),
        (b"\0\0\x08\0", 3, "expected 1 to 32 dimensions, found 0"),
        (b"\0\0\x08\x21", 3, "expected 1 to 32 dimensions, found 33"),
        (b"\0\0\x08\2\0\0\0\1\0", 4, "expected 8 bytes of 2 dimensions, found 5"),
        (b"\0\0\x08\3" + b"\xff" * 12, 4, r"expected dimensions that memory can hold, found \(4294967295,"),
        (b"\0\0\x08\4" + b"\0" * 4 + b"\xff" * 12, 4, "expected dimensions that memory can hold"),
        (
            b"\0\0\x0b\1\0\0\0\3" + b"12345",
            8,
            r"expected 6 bytes of elements for shape \(3,\), 2 each, found 5",
        ),
        (b"\0\0\x08\1\0\0\0\3" + b"1234", 11, "expected the data to end here, found more"),
    ],
)
def test_the_error_says_where_and_what_was_expected(tmp_path, data, offset, message):
    path = tmp_path / "file"
    for content in (data, gzip.compress(data)):
        path.write_bytes(content)
        with pytest.raises(CorruptSample, match=message) as caught:
            read_idx(path)
        assert caught.value.offset == offset
        assert caught.value.path == path


@pytest.mark.parametrize(
    "break_it",
    [lambda data: data[:-9], lambda data: data[:-1] + b"!", lambda data: data[:20] + b"?????" + data[25:]],
    ids=["cut", "length differs", "damaged"],
)
def test_a_broken_gzip_stream_is_a_corrupt_sample_with_its_cause(break_it):
    data = gzip.compress(encode(np.arange(500, dtype=np.int32)))
    with pytest.raises(CorruptSample, match="expected a sound gzip stream from here on") as caught:
        parse_idx(break_it(data), path="images.gz")
    assert str(caught.value).startswith("images.gz, byte ")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">BBBBI", 0, 0, 0x08, 1, 1 << 31) + bytes(100),
        gzip.compress(struct.pack(">BBBBI", 0, 0, 0x08, 1, 1 << 31) + bytes(100)),
        gzip.compress(struct.pack(">BBBBI", 0, 0, 0x08, 1, 4) + bytes(64 << 20)),
    ],
    ids=["plain", "gzip", "bomb"],
)
def test_memory_follows_what_is_there_not_what_is_promised(data):
    tracemalloc.start()
    try:
        with pytest.raises(CorruptSample, match=r"expected .* bytes of elements|expected the data to end here"):
            parse_idx(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_twenty_thousand_mutations_give_their_array_or_a_corrupt_sample(mutated):
    """Whatever is accepted is exactly what the bytes say: encoding it gives them back."""
    shapes = {"u1": (3, 4, 4), "i1": (7,), "i2": (0, 5), "i4": (2, 3), "f4": (5,), "f8": (1, 1, 2, 2)}
    plain = [encode(np.arange(math.prod(shape)).reshape(shape).astype(code)) for code, shape in shapes.items()]
    seeds = plain + [gzip.compress(data, mtime=0) for data in plain]
    seeds.append(gzip.compress(plain[0][:10], mtime=0) + gzip.compress(plain[0][10:], mtime=0))
    accepted = refused = 0
    for data in mutated(seeds, 20_000, header=16):
        try:
            array = parse_idx(data)
        except CorruptSample as error:
            refused += error.offset is not None
        else:
            accepted += 1
            assert encode(array) == (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    assert accepted + refused == 20_000
    assert min(accepted, refused) > 1000

from __future__ import annotations

import random

import numpy as np
import pytest

from feedline.errors import CorruptSample
from feedline.formats.cifar import CIFAR10_LABELS, CIFAR100_LABELS, parse_cifar, read_cifar

DRAW = random.Random(3)
RECORDS = {
    CIFAR10_LABELS: b"".join(bytes([label]) + DRAW.randbytes(3072) for label in (3, 9, 0)),
    CIFAR100_LABELS: b"".join(bytes([label // 5, label]) + DRAW.randbytes(3072) for label in (99, 0, 42)),
}
LAYOUTS = pytest.mark.parametrize("layout", RECORDS, ids=["CIFAR-10", "CIFAR-100"])


def encode(images, labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels.astype(np.uint8), planes], axis=1).tobytes()


def test_pixels_lie_at_row_column_channel_and_labels_are_int64(tmp_path):
    pixel = np.arange(3072, dtype=np.uint16).astype(np.uint8)
    path = tmp_path / "batch.bin"
    path.write_bytes(bytes([7]) + pixel.tobytes())
    images, labels = read_cifar(path)
    assert images.shape == (1, 32, 32, 3)
    assert (labels.tolist(), labels.dtype) == ([[7]], np.int64)
    for row, column, channel in [(0, 0, 0), (5, 3, 0), (5, 3, 1), (31, 31, 2)]:
        assert images[0, row, column, channel] == pixel[channel * 1024 + row * 32 + column]


def test_the_coarse_label_comes_before_the_fine_one():
    _, labels = parse_cifar(RECORDS[CIFAR100_LABELS], CIFAR100_LABELS)
    assert labels.tolist() == [[19, 99], [0, 0], [8, 42]]


@LAYOUTS
def test_what_was_written_is_read_back_and_owned(layout):
    images, labels = parse_cifar(RECORDS[layout], layout)
    assert encode(images, labels) == RECORDS[layout]
    assert images.dtype == np.uint8
    for array in (images, labels):
        assert array.flags.c_contiguous
        assert array.flags.writeable


@pytest.mark.parametrize(
    ("data", "layout", "offset", "message"),
    [
        (b"", CIFAR10_LABELS, 0, "whole records of 3073 bytes, at least one, found 0 bytes after 0 of them"),
        (bytes(3074), CIFAR10_LABELS, 3073, "expected whole records of 3073 bytes, .* found 1 bytes after 1"),
        (bytes(3073), CIFAR100_LABELS, 0, "whole records of 3074 bytes, .* found 3073 bytes after 0"),
        (bytes(3073) + b"\x0a" + bytes(3072), CIFAR10_LABELS, 3073, "a label below 10 in record 1, found 10"),
        (b"\0\x64" + bytes(3072), CIFAR100_LABELS, 1, "expected a label below 100 in record 0, found 100"),
        (b"\x14\0" + bytes(3072), CIFAR100_LABELS, 0, "expected a label below 20 in record 0, found 20"),
    ],
)
def test_the_error_says_where_and_what_was_expected(tmp_path, data, layout, offset, message):
    path = tmp_path / "batch.bin"
    path.write_bytes(data)
    with pytest.raises(CorruptSample, match=message) as caught:
        read_cifar(path, layout)
    assert (caught.value.path, caught.value.offset) == (path, offset)


@LAYOUTS
def test_twenty_thousand_mutations_give_their_records_or_a_corrupt_sample(layout, mutated):
    """Whatever is accepted is exactly what the bytes say: encoding it gives them back."""
    accepted = refused = 0
    for data in mutated([RECORDS[layout], RECORDS[layout][: len(RECORDS[layout]) // 3]], 20_000, header=3):
        try:
            images, labels = parse_cifar(data, layout)
        except CorruptSample as error:
            refused += error.offset is not None
        else:
            accepted += 1
            assert encode(images, labels) == data
    assert accepted + refused == 20_000
    assert min(accepted, refused) > 1000

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from feedline.datasets.mnist import MNIST, FashionMNIST
from feedline.datasets.tensor import TensorDataset
from feedline.errors import CorruptSample, FeedlineError

COLLECTIONS = pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
SCALARS = b"\0\0\x08\1\0\0\0\1\0"
SIGNED = b"\0\0\x09\3" + struct.pack(">3I", 5, 1, 1) + bytes(5)


def digests(folder):
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@COLLECTIONS
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_files_are_found_plain_or_gzip_in_the_root_or_below(tmp_path, write_mnist, cls, compress, nested):
    folder = tmp_path / cls.folder if nested else tmp_path
    for part, count in (("train", 5), ("t10k", 3)):
        images, labels = write_mnist(folder, part, count, compress=compress)
        dataset = cls(tmp_path, train=part == "train")
        assert isinstance(dataset, TensorDataset)
        assert np.array_equal(dataset.tensors[0], images)
        assert np.array_equal(dataset.tensors[1], labels)
        assert dataset.tensors[1].dtype == np.int64
        image, label = dataset[-1]
        assert (image.shape, image.dtype, label.dtype) == ((28, 28), np.uint8, np.int64)


def test_names_with_a_dot_before_idx_are_found_too(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 5, compress=False, name="{}.idx{}-ubyte")
    assert len(MNIST(tmp_path)) == 5


def test_classes_are_named_by_label(tmp_path, write_mnist):
    write_mnist(tmp_path, "train", 5)
    assert MNIST(tmp_path).classes[7] == "7 - seven"
    assert FashionMNIST(tmp_path).classes[7] == "Sneaker"
    assert len(MNIST(tmp_path).classes) == len(FashionMNIST(tmp_path).classes) == 10


@COLLECTIONS
def test_a_missing_file_is_named_with_the_remedy(tmp_path, write_mnist, cls):
    write_mnist(tmp_path, "t10k", 3)
    with pytest.raises(
        FileNotFoundError,
        match=rf"{cls.__name__} needs train-images-idx3-ubyte \(or train-images-idx3-ubyte\.gz\) in "
        rf"{tmp_path} or in {tmp_path / cls.folder}, and it is in neither; download=True fetches it",
    ):
        cls(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images-idx3", SCALARS, r"expected uint8 images of shape \(N, H, W\), found uint8 \(1,\)"),
        ("images-idx3", SIGNED, "expected uint8 images of shape .*, found int8"),
        ("images-idx3", b"\0\0\x08\3", "expected 12 bytes of 3 dimensions, found 0"),
        ("labels-idx1", SCALARS, r"expected uint8 labels of shape \(5,\) for .*images.*, found uint8 \(1,\)"),
        ("labels-idx1", b"\0\0\x09\1\0\0\0\5abcde", r"uint8 labels of shape \(5,\) .*, found int8 \(5,\)"),
        ("labels-idx1", b"\0\0\x08\1\0\0\0\5\0\0\0\0\x0a", "expected labels below 10, found 10"),
    ],
)
def test_files_that_do_not_fit_are_corrupt_and_named(tmp_path, write_mnist, name, content, message):
    write_mnist(tmp_path, "train", 5)
    path = tmp_path / f"train-{name}-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(CorruptSample, match=message) as caught:
        MNIST(tmp_path)
    assert caught.value.path == path


def test_download_fetches_what_is_missing_and_only_that(tmp_path, write_mnist, mirror):
    images, _ = write_mnist(mirror.folder, "train", 5)

    class Mirrored(MNIST):
        base_url = mirror.url
        md5 = digests(mirror.folder)

    dataset = Mirrored(tmp_path / "root", download=True)
    assert np.array_equal(dataset.tensors[0], images)
    raw = tmp_path / "root" / "MNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(Mirrored.md5)
    assert len(mirror.paths) == 2
    Mirrored(tmp_path / "root", download=True)
    assert len(mirror.paths) == 2
    (raw / "train-labels-idx1-ubyte.gz").unlink()
    Mirrored(tmp_path / "root", download=True)
    assert mirror.paths[2:] == ["/train-labels-idx1-ubyte.gz"]


def test_a_download_with_another_checksum_is_refused(tmp_path, write_mnist, mirror):
    write_mnist(mirror.folder, "train", 5)

    class Mirrored(MNIST):
        base_url = mirror.url

    with pytest.raises(FeedlineError, match="expected md5 f68b3c2dcbeaaa9fbdd348bbdeb94873, got "):
        Mirrored(tmp_path / "root", download=True)
    assert list((tmp_path / "root" / "MNIST" / "raw").iterdir()) == []


@COLLECTIONS
def test_all_four_files_have_a_checksum(cls):
    assert sorted(cls.md5) == [
        *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        *("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ]
    assert all(len(digest) == 32 for digest in cls.md5.values())

"""Small folders of each kind that the demo recognises. Their images can be told apart by how bright they are."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image


def _images(count, shape, classes):
    labels = np.arange(count, dtype=np.uint8) % classes
    images = np.zeros((count, *shape), np.uint8)
    images += (labels * (255 // classes)).reshape(-1, *[1] * len(shape))
    return images, labels


def _write_mnist(folder, part, count, *, compress=False, shape=(28, 28)):
    for kind, array in zip(("images", "labels"), _images(count, shape, 10), strict=True):
        data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        path = folder / f"{part}-{kind}-idx{array.ndim}-ubyte{'.gz' if compress else ''}"
        path.write_bytes(gzip.compress(data) if compress else data)


def _write_cifar(path, count):
    images, labels = _images(count, (3072,), 10)
    path.write_bytes(np.concatenate([labels[:, None], images], axis=1).tobytes())


def _write_tree(folder, per_class, classes=("cat", "dog")):
    """Images of as many sizes as there are, some lying and some standing, the first of three rows."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            size = (40 - 2 * number, 3 + 5 * number)
            Image.new("RGB", size, (40 + 150 * label, 0, 0)).save(folder / name / f"{number}.png")


@pytest.fixture
def write_mnist():
    return _write_mnist


@pytest.fixture
def write_cifar():
    return _write_cifar


@pytest.fixture
def write_tree():
    return _write_tree

"""The binary format of CIFAR-10 and CIFAR-100: records of one or two label bytes and a 32 x 32 colour image.

An image is 3,072 bytes: its red plane, its green, its blue, each row by row (A. Krizhevsky, "Learning
Multiple Layers of Features from Tiny Images", 2009, and the data sets' page, section "Binary version").

Guarantee: any sequence of bytes gives whole records with labels in range, or `CorruptSample`; nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feedline.errors import CorruptSample

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["CIFAR10_LABELS", "CIFAR100_LABELS", "parse_cifar", "read_cifar"]

CIFAR10_LABELS = (10,)
"""The number of classes of each label byte of a CIFAR-10 record."""
CIFAR100_LABELS = (20, 100)
"""The same for CIFAR-100: the coarse label, then the fine one."""

_SIDE = 32
_IMAGE_NBYTES = 3 * _SIDE * _SIDE


def read_cifar(
    path: str | os.PathLike[str], label_classes: tuple[int, ...] = CIFAR10_LABELS
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images and labels in a CIFAR file: see `parse_cifar`.

    Raises:
        CorruptSample: see `parse_cifar`.
        OSError: the file cannot be read.
    """
    return parse_cifar(Path(path).read_bytes(), label_classes, path=path)


def parse_cifar(
    data: bytes,
    label_classes: tuple[int, ...] = CIFAR10_LABELS,
    *,
    path: str | os.PathLike[str] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images and labels in the bytes of a CIFAR file.

    Args:
        data: the whole file: one record or more.
        label_classes: how many classes each label byte tells apart: `CIFAR10_LABELS` or `CIFAR100_LABELS`.
        path: where the bytes come from, for errors.

    Returns:
        Images of shape (N, 32, 32, 3), uint8, height x width x RGB, and labels of shape (N, label bytes),
        int64; both C-contiguous, writable and the caller's own.

    Raises:
        CorruptSample: there is no record, the last one is incomplete, or a label is out of range.

    Example:
        >>> images, labels = parse_cifar(bytes([7]) + bytes(1024) + bytes([255]) * 2048)
        >>> labels.tolist(), images[0, 0, 0].tolist()
        ([[7]], [0, 255, 255])
    """
    nlabels = len(label_classes)
    record_nbytes = nlabels + _IMAGE_NBYTES
    count, rest = divmod(len(data), record_nbytes)
    if rest or not count:
        raise CorruptSample(
            f"expected whole records of {record_nbytes} bytes, at least one, found {rest} bytes after {count} of them",
            path=path,
            offset=count * record_nbytes,
        )
    records = np.frombuffer(data, np.uint8).reshape(count, record_nbytes)
    labels = records[:, :nlabels]
    outside = np.argwhere(labels >= np.array(label_classes))
    if len(outside):
        record, column = outside[0].tolist()
        raise CorruptSample(
            f"expected a label below {label_classes[column]} in record {record}, found {labels[record, column]}",
            path=path,
            offset=record * record_nbytes + column,
        )
    planes = records[:, nlabels:].reshape(count, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.astype(np.int64)

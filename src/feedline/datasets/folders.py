"""Which collection a folder holds: told by its files' names, without opening an image.

Guarantee: nothing is fetched or written; what is damaged or half there is an error, never another collection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedline.datasets.cifar import CIFAR10
from feedline.datasets.image_files import ImageFolder, class_folders, image_paths
from feedline.datasets.mnist import MNIST, FashionMNIST
from feedline.errors import FeedlineError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from feedline.datasets.base import Dataset

__all__ = ["Collection", "recognise"]

_TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Collection:
    """What a folder holds.

    Args:
        name: of the collection, as ``"MNIST"``.
        train: the samples to train on, ``(image, label)`` each. Where only the publisher's test part is
            there, it is this one.
        test: the samples to test on, or None where there is no part apart from ``train``.
        classes: the names of the labels.

    Example:
        >>> from feedline.datasets import Collection, Digits
        >>> digits = Digits()
        >>> Collection("digits", train=digits, test=None, classes=digits.classes).classes[-1]
        '9'
    """

    name: str
    train: Dataset[Any]
    test: Dataset[Any] | None
    classes: Sequence[str]


def recognise(root: str | os.PathLike[str]) -> Collection:
    """The collection in the folder ``root``: MNIST, Fashion-MNIST, CIFAR-10, or images in class folders.

    MNIST and CIFAR are found where `MNIST` and `CIFAR10` find them, one part of them being enough. MNIST and
    Fashion-MNIST have files of the same names and sizes: those that lie in ``root`` itself are taken for
    Fashion-MNIST if "fashion" is in the path of ``root``, in either case, and for MNIST otherwise. A tree of
    images has a folder for each class in ``root``; or in ``root/train``, and those to test on in
    ``root/test``, ``root/val``, ``root/valid`` or ``root/validation``.

    Raises:
        FileNotFoundError: there is no such folder.
        FeedlineError: it holds none of these; the message lists what was looked for.
        CorruptSample: one of the files is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     _ = Path(root, "test_batch.bin").write_bytes(bytes([3]) + bytes(3 * 32 * 32))
        ...     found = recognise(root)
        >>> found.name, len(found.train), found.classes[found.train[0][1]]
        ('CIFAR-10', 1, 'cat')
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder")
    collection = _published(root) or _class_folders(root)
    if collection is None:
        raise FeedlineError(
            f"{root}: not recognised. Looked for MNIST or Fashion-MNIST (train-images-idx3-ubyte and "
            "train-labels-idx1-ubyte, or t10k-..., with or without .gz), CIFAR-10 (data_batch_1.bin ... or "
            "test_batch.bin), and a folder of images for each class"
        )
    return collection


def _published(root: Path) -> Collection | None:
    """The first of the known collections of which a part is there."""
    known: list[tuple[str, type[MNIST | CIFAR10]]] = [("MNIST", MNIST), ("Fashion-MNIST", FashionMNIST)]
    if "fashion" in str(root.resolve()).lower():  # the files alone do not tell
        known.reverse()
    for name, cls in [*known, ("CIFAR-10", CIFAR10)]:
        parts = [cls(root, train=train) for train in (True, False) if cls.is_there(root, train=train)]
        if parts:
            return Collection(name, parts[0], parts[1] if len(parts) == 2 else None, parts[0].classes)
    return None


def _class_folders(root: Path) -> Collection | None:
    tests = [root / name for name in _TEST_FOLDERS if _holds_classes(root / name)]
    if _holds_classes(root / "train"):
        train = ImageFolder(root / "train")
        test = ImageFolder(tests[0]) if tests else None
        if test is not None and test.classes != train.classes:
            raise FeedlineError(
                f"{root}: train and {tests[0].name} must have the same class folders, "
                f"got {train.classes} and {test.classes}"
            )
        return Collection(root.resolve().name, train, test, train.classes)
    if _holds_classes(root):
        whole = ImageFolder(root)
        return Collection(root.resolve().name, whole, None, whole.classes)
    return None


def _holds_classes(folder: Path) -> bool:
    return folder.is_dir() and any(image_paths(folder / name) for name in class_folders(folder))

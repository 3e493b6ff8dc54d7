"""What the demo learns from: the digits that come with the package, or what it recognises in a folder.

Guarantee: the images to check with are none of those to train on. Where a collection comes in one part, a fifth of it,
drawn by the seed, is kept to check with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feedline.datasets import random_split
from feedline.datasets.digits import Digits
from feedline.datasets.folders import recognise
from feedline.datasets.image_files import ImageFolder
from feedline.errors import FeedlineError
from feedline.transforms import Resize

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from feedline.datasets.base import Dataset

__all__ = ["Problem", "ToFeatures", "digits", "in_folder"]

_KEPT_SHARE = 5  # one in five is kept to check with
_RESIZED = (32, 32)  # CIFAR's size: details are lost on a network this small
_CACHED_IMAGES = 100_000  # of 3 KiB each once resized: at most 300 MiB, and no file is decoded twice


@dataclass(frozen=True, slots=True)
class Problem:
    """Images to tell apart.

    Args:
        name: of the collection.
        train: samples ``(image, label)`` to learn from; all images of one shape, uint8.
        validation: samples to check with.
        classes: how many there are.
        brightest: the pixels' greatest value.

    Raises:
        FeedlineError: there is nothing to learn: a single class, no images, or no pixels; or the images to check with
            are of another shape than those to train on.
    """

    name: str
    train: Any
    validation: Any
    classes: int
    brightest: int = 255

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise FeedlineError(f"{self.name} has one class: there is nothing to tell apart, at least two are needed")
        if not len(self.train):
            raise FeedlineError(f"{self.name} has no images to learn from")
        found = self.validation[0][0].shape
        if found != self.image_shape or 0 in found:
            raise FeedlineError(
                f"{self.name}: images must have pixels, and the same shape to learn from and to check with; "
                f"got {self.image_shape} and {found}"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        shape: tuple[int, ...] = self.train[0][0].shape
        return shape


def digits(seed: int) -> Problem:
    """The UCI handwritten digits.

    Example:
        >>> problem = digits(seed=0)
        >>> len(problem.train), len(problem.validation), problem.image_shape
        (1438, 359, (8, 8))
    """
    data = Digits()
    train, validation = _split(data, "the digits", seed)
    return Problem("UCI handwritten digits", train, validation, len(data.classes), brightest=16)


def in_folder(root: str | os.PathLike[str], seed: int) -> Problem:
    """What `feedline.datasets.folders.recognise` finds in a folder; image files are resized to 32 x 32.

    Raises:
        FileNotFoundError: there is no such folder.
        FeedlineError: it is not recognised, has less than two images or less than two classes, or is damaged.
    """
    found = recognise(root)
    train, test = found.train, found.test
    if isinstance(train, ImageFolder):
        train = _resized(train)
        test = None if test is None else _resized(test)
    if not test:  # neither None nor an empty part can be checked with
        train, test = _split(train, found.name, seed)
    return Problem(found.name, train, test, len(found.classes))


def _resized(images: Dataset[Any]) -> Dataset[Any]:
    return images.map(Resize(_RESIZED, interpolation="area", layout="HWC"), key=0).cache(max_items=_CACHED_IMAGES)


def _split(dataset: Any, name: str, seed: int) -> tuple[Dataset[Any], Dataset[Any]]:
    count = len(dataset)
    if count < 2:
        raise FeedlineError(
            f"{name}: at least two images are needed, one to learn from and one to check with; got {count}"
        )
    kept = max(1, count // _KEPT_SHARE)
    train, validation = random_split(dataset, [count - kept, kept], seed=seed)
    return train, validation


@dataclass(frozen=True, slots=True)
class ToFeatures:
    """A batch of images as the network takes it: a row of numbers from -0.5 to 0.5 for each. A ``batch_transform``.

    Args:
        brightest: the pixels' greatest value.

    Example:
        >>> images = np.array([[[0, 255], [255, 0]]], np.uint8)  # one image, 2 x 2
        >>> ToFeatures(255)((images, np.array([1])))
        (array([[-0.5,  0.5,  0.5, -0.5]], dtype=float32), array([1]))
    """

    brightest: int

    def __call__(
        self, batch: tuple[NDArray[np.uint8], NDArray[np.int64]]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Images (B, ...) become features (B, pixels), float32; the labels pass through."""
        images, labels = batch
        features = images.reshape(len(images), -1).astype(np.float32)
        features /= self.brightest
        features -= 0.5
        return features, labels
